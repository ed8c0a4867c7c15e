"""Does this version, on this device, give the logits that it should, and soon enough?

It runs in a worker, which may crash or hang. For TensorRT, an engine of the bundle that fits exactly is used; otherwise
one is built from the ONNX file and kept under the version of TensorRT, the GPU's compute capability and the model's
hash.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from ._errors import InstallError, UnusableError, UsageError
from ._files import flush, remove, sha256_of, write_atomic
from ._manifest import OUTPUTS
from ._target import usable_runtimes
from ._worker_process import Bounds, WorkerError, answers_of_worker, ask_worker

if TYPE_CHECKING:
    from pathlib import Path

    from ._manifest import Manifest

__all__ = ["Checked", "Version", "classify", "self_check"]

_BUILD_SECONDS = 1800.0


class Version(NamedTuple):
    """A version that is whole: its folder, its manifest, and where engines that are built for it are kept."""

    folder: Path
    manifest: Manifest
    engines: Path

    def file(self, name: str) -> list[str]:
        """Return the path of one of its files, and what its SHA-256 must be."""
        return [str(self.folder / name), self.manifest.files[name].sha256]


class Checked(NamedTuple):
    """What a self-check found.

    Attributes:
        runtime: That ran it.
        runtime_version: Its version.
        sqnr_db: Of the output that is furthest from its golden one; ``None`` where all are equal.
        same_top1: Whether the top class is that of the golden logits; ``None`` of outputs that are no scores.
        latency_ms: The median call; ``None`` if that was left out.
    """

    runtime: str
    runtime_version: str
    sqnr_db: float | None
    same_top1: bool | None
    latency_ms: float | None


def self_check(version: Version, *, quick: bool = False) -> Checked:
    """Run a version on its golden input.

    Args:
        version: That is to be checked.
        quick: Leave out the time that it takes.

    Raises:
        InstallError: It crashed, took too long, or gave other outputs than it should.
        UnusableError: None of the bundle's runtimes is here.
    """
    manifest = version.manifest
    runtime = usable_runtimes(manifest)[0]
    try:
        question = {**_question(version, runtime), "task": "check", "quick": quick}
        answer = ask_worker(question, _bounds(manifest, runtime))
        _judge(manifest, answer)
    except WorkerError as error:
        raise InstallError(
            f"{manifest.name} {manifest.version} failed its self-check on {runtime['name']} {runtime['version']}: "
            f"{error}."
        ) from error
    return Checked(
        runtime=runtime["name"],
        runtime_version=str(answer["version"]),
        sqnr_db=answer["sqnr_db"],
        same_top1=None if manifest.head == OUTPUTS else answer["same_top1"],
        latency_ms=answer["latency_ms"],
    )


def classify(version: Version, images: list[Path]) -> list[dict[str, Any]]:
    """Return the likeliest classes of each picture; one that can't be classified has an ``error`` and no classes.

    Each picture has the time that the self-check has, and one that crashes the worker costs none of the others.

    Raises:
        UsageError: Its model gives no scores of classes.
        UnusableError: None of the version's runtimes is here, or its model does not load.
    """
    manifest = version.manifest
    if manifest.head == OUTPUTS:
        raise UsageError(
            f"{manifest.name} {manifest.version} gives no scores of classes; run {version.folder / manifest.model} in "
            f"your own program, with pictures as {version.folder / 'manifest.json'} says under preprocessing."
        )
    runtime = usable_runtimes(manifest)[0]
    question = {
        **_question(version, runtime),
        "task": "classify",
        "head": manifest.head,
        "preprocessing": manifest.preprocessing,
        "classes": manifest.classes and version.file(manifest.classes),
    }
    results: list[dict[str, Any]] = []
    while len(results) < len(images):
        waiting = images[len(results) :]
        question["images"] = [str(image.resolve()) for image in waiting]
        loaded = False
        try:
            with closing(answers_of_worker(question, _bounds(manifest, runtime), 1 + len(waiting))) as answers:
                next(answers)
                loaded = True
                for image, answer in zip(waiting, answers):
                    error = answer["why_not"] and f"{image}: {answer['why_not']}"
                    results.append({"image": str(image), "top": answer["top"], "error": error})
        except WorkerError as error:
            if not loaded:
                raise UnusableError(f"{manifest.name} {manifest.version} can't classify: {error}.") from error
            image = images[len(results)]
            results.append({"image": str(image), "top": [], "error": f"{image}: can't be classified ({error})"})
    return results


def _question(version: Version, runtime: dict[str, str]) -> dict[str, Any]:
    manifest, golden = version.manifest, version.manifest.golden
    question: dict[str, Any] = {
        "runtime": runtime["name"],
        "golden": {
            "input": version.file(golden.input),
            "logits": version.file(golden.logits),
            "others": {name: version.file(file) for name, file in golden.others.items()},
        },
        "model": version.file(manifest.model),
    }
    if runtime["name"] != "onnxruntime":
        question["engine"] = _engine(version, runtime, question)
    return question


def _judge(manifest: Manifest, answer: dict[str, Any]) -> None:
    golden, bound = manifest.golden, manifest.limits.latency_ms
    if answer["sqnr_db"] is not None and answer["sqnr_db"] < golden.min_sqnr_db:
        raise WorkerError(
            f"its {answer['output']} have an SQNR of {answer['sqnr_db']:.1f} dB to the golden ones "
            f"(min {golden.min_sqnr_db:g} dB)"
        )
    if golden.same_top1 and not answer["same_top1"]:
        raise WorkerError("its top class is not that of the golden logits")
    if bound is not None and answer["latency_ms"] is not None and answer["latency_ms"] > bound:
        raise WorkerError(f"its median latency is {answer['latency_ms']:.1f} ms (limit {bound:g} ms)")


def _engine(version: Version, runtime: dict[str, str], question: dict[str, Any]) -> list[str]:
    """Return the path and SHA-256 of the engine to load, which may first have to be built."""
    name, release, capability = runtime["name"], runtime["version"], runtime["capability"]
    for engine in version.manifest.engines:
        if (engine.backend, engine.version) == (name, release) and int(capability) in engine.capabilities:
            return version.file(engine.file)
    model_sha256 = version.manifest.files[version.manifest.model].sha256
    built = version.engines / f"{name}-{release}-{capability}-{model_sha256[:16]}.engine"
    hash_file = built.with_suffix(".sha256")
    try:
        sha256 = hash_file.read_text(encoding="ascii").strip()
        if sha256_of(built) == sha256:
            return [str(built), sha256]
    except (OSError, ValueError):
        pass  # none yet, or half of one
    return [
        str(built),
        _build(built, hash_file, {**question, "task": "build", "capability": int(capability)}, version.manifest),
    ]


def _build(built: Path, hash_file: Path, question: dict[str, Any], manifest: Manifest) -> str:
    built.parent.mkdir(exist_ok=True)
    part = built.with_suffix(".part")
    remove(part)
    bounds = Bounds(max(_BUILD_SECONDS, manifest.limits.seconds), manifest.limits.memory_mib, data_limit=False)
    try:
        sha256 = str(ask_worker({**question, "output": str(part)}, bounds)["sha256"])
        part.replace(built)
        flush(built.parent)
        write_atomic(hash_file, f"{sha256}\n".encode("ascii"))
    finally:
        remove(part)
    return sha256


def _bounds(manifest: Manifest, runtime: dict[str, str]) -> Bounds:
    limits = manifest.limits
    return Bounds(limits.seconds, limits.memory_mib, data_limit=runtime["name"] == "onnxruntime")
