"""Engine files: their header and the file beside them, read without loading the engine.

An engine is executable code of one version of TensorRT for certain GPUs. Loading a broken one, or one of another
version, may crash the process. So ``model.engine.json`` lies beside ``model.engine`` and describes it, and whoever
loads it calls :func:`read_facts`, :func:`read_intact` and :func:`require_loadable` first, and gives TensorRT the very
bytes that were hashed. A hash finds damage, not malice: that takes a signature.

The header of TensorRT for RTX, as observed in version 1.7 (offsets in bytes, little-endian): ``vtrt`` at 0, the size
of the file at 16 (u64), four bytes of the version at 24, the compute capabilities as bits at 32 (u32).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from msgspec import Meta

from rexport._documents import Count, Finite, Sha256, as_record, load_json
from rexport._errors import EngineFileError, InputError, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "SUFFIXES",
    "BackendName",
    "EngineFacts",
    "EngineHeader",
    "EngineLayer",
    "EngineTensor",
    "Installed",
    "facts_path",
    "intact_facts",
    "is_engine",
    "read_facts",
    "read_header",
    "read_intact",
    "require_loadable",
]

SCHEMA = "rexport.engine/1"
_MAGIC = b"vtrt"
_VERSION = r"^[0-9]+(\.[0-9]+(\..*)?)?$"
_HEADER_BYTES = 64
SUFFIXES = (".engine", ".plan", ".trt")
"""The suffixes of engine files."""
_AMPERE = 80
_BITS = {1: 75, 2: 80, 4: 86, 8: 89, 0x10: 120, 0x20: 121}


@dataclass(frozen=True, kw_only=True)
class EngineHeader:
    """The first bytes of an engine file.

    Attributes:
        version: Of TensorRT, four numbers.
        size: Of the whole file in bytes, as it says.
        capabilities: The GPUs' compute capabilities times ten, as far as the bits are known.
    """

    version: str
    size: int
    capabilities: tuple[int, ...]


class BackendName(StrEnum):
    """Whose compiler.

    ``tensorrt``: for the GPU that is here. ``rtx``: TensorRT for RTX, for GPUs that need not be. ``onnxruntime``: ONNX
    Runtime's TensorRT provider, which writes an ONNX file that holds the engine; for the GPU that is here.
    """

    TENSORRT = "tensorrt"
    RTX = "rtx"
    ONNXRUNTIME = "onnxruntime"


_PACKAGES = {
    BackendName.TENSORRT: ("TensorRT", "tensorrt-cu13"),
    BackendName.RTX: ("TensorRT for RTX", "tensorrt-rtx"),
}


class EngineTensor(TypedDict):
    """An input or output: its name, its dtype by TensorRT's name, and its shape, ``-1`` for an open size."""

    name: str
    dtype: str
    shape: list[int]


class EngineLayer(TypedDict):
    """A layer that multiplies: its name, its operator, and the precision that it came out in."""

    name: str
    op_type: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """The contents of the file beside an engine.

    Attributes:
        backend: ``tensorrt`` or ``rtx``; ``onnxruntime`` for an ONNX file that holds an engine.
        version: Of TensorRT, exactly; of ONNX Runtime with ``onnxruntime``.
        capabilities: The compute capabilities that it was built for; empty for those of ``device``.
        device: The GPU that it was built on; ``None`` where none was needed.
        cuda: The version of CUDA; ``None`` where none was needed.
        batch: The least, best and most images at a time.
        inputs: Name, dtype and shape of each, ``-1`` for an open batch.
        outputs: Likewise.
        layers: Each layer that multiplies: its name, its operator, and the ``precision`` that it came out in; ``float``
            where that is unknown, which only a layer that the file does not quantize may be. Empty with
            ``onnxruntime``, which reports none.
        sha256: Of the engine.
        bytes: Its size.
        onnx: The name of the ONNX file that it was built from.
        onnx_sha256: Of that file.
        repairs: The changes made to it for TensorRT's rules.
        warnings: The builder's.
        seconds: The time of the build.
        command: The command that built it.
        rexport: The version of rexport.
        version_compatible: Whether later versions of TensorRT may run it, with the lean runtime of ``version``.
        hardware_compatible: Whether other GPUs of Ampere and later may.
        metadata: Of the ONNX file, as rexport wrote it there: how pictures become the input, the names of the classes.
        stripped: Whether it has no weights yet; they must be filled in before it runs.
    """

    backend: BackendName
    version: Annotated[str, Meta(pattern=_VERSION)]
    capabilities: tuple[int, ...]
    device: str | None
    cuda: str | None
    batch: tuple[Count, Count, Count]
    inputs: Annotated[tuple[EngineTensor, ...], Meta(min_length=1)]
    outputs: Annotated[tuple[EngineTensor, ...], Meta(min_length=1)]
    layers: tuple[EngineLayer, ...]
    sha256: Sha256
    bytes: int
    onnx: str
    onnx_sha256: str
    repairs: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: Finite
    command: str
    rexport: str
    version_compatible: bool = False
    hardware_compatible: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    stripped: bool = False

    def __post_init__(self) -> None:
        least, best, most = self.batch
        if not least <= best <= most:
            raise ValueError(f"Batch {least}:{best}:{most} is not MIN:OPT:MAX")

    def to_json(self) -> dict[str, Any]:
        """Return the document of schema ``rexport.engine/1``."""
        return {"schema": SCHEMA, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Installed:
    """The software and the GPU that could run an engine.

    Attributes:
        backend: ``tensorrt`` or ``rtx``.
        version: Of its package; ``None`` if that is not installed.
        lean: Of the lean runtime, which runs version-compatible engines; ``None`` if that is not installed.
        device: The GPU's name; ``None`` if there is none that can be used.
        capability: Its compute capability times ten, such as 86.
        why_no_device: Why there is none, in a sentence.
    """

    backend: str
    version: str | None
    lean: str | None = None
    device: str | None = None
    capability: int | None = None
    why_no_device: str = ""


def is_engine(path: Path) -> bool:
    """Say whether a file has a suffix of engines."""
    return path.suffix.lower() in SUFFIXES


def facts_path(engine: Path) -> Path:
    """Return the path of the file beside an engine."""
    return engine.with_name(engine.name + ".json")


def read_facts(engine: Path) -> EngineFacts:
    """Read the file beside an engine.

    Raises:
        EngineFileError: There is none, or it can't be read.
    """
    path = facts_path(engine)
    if not path.exists():
        _require_not_text(engine)
        raise EngineFileError(
            f"There is no {path} beside the engine, so that nothing is known of it; build it with `rexport engine`."
        )
    try:
        values = load_json(path)
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise EngineFileError(f"{path} does not describe an engine in schema {SCHEMA}; build the engine again.")
        facts = as_record(values, EngineFacts, where=path, advice="copy it again, or build the engine again")
    except InputError as error:
        raise EngineFileError(str(error)) from error
    fixed = next(iter(facts.inputs[0]["shape"]), -1)
    if fixed > 0:  # older versions recorded the batch of the request
        facts = replace(facts, batch=(fixed, fixed, fixed))
    return facts


def read_header(engine: Path) -> EngineHeader:
    """Read the header of an engine file.

    Raises:
        EngineFileError: It is no engine of a known format, or shorter or longer than it says.
    """
    head = _bytes_of(engine, _HEADER_BYTES)
    return _header_of(engine, head, engine.stat().st_size)


def read_intact(engine: Path, facts: EngineFacts) -> bytes:
    """Return the bytes of an engine file, after checking that ``facts`` describe exactly these.

    Raises:
        EngineFileError: It can't be read, is another file, or its own header contradicts ``facts``.
    """
    data = _bytes_of(engine)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != facts.sha256:
        raise EngineFileError(
            f"{engine} is not the file that {facts_path(engine).name} describes (sha256 {sha256[:12]}…, not "
            f"{facts.sha256[:12]}…); copy it again, or build it again from {facts.onnx}."
        )
    if data.startswith(_MAGIC) or facts.backend == "rtx":
        header = _header_of(engine, data[:_HEADER_BYTES], len(data))
        if not _same_version(header.version, facts.version):
            raise EngineFileError(
                f"{engine} is of version {header.version} by its header, and of {facts.version} by "
                f"{facts_path(engine).name}; build it again from {facts.onnx}."
            )
    return data


def intact_facts(engine: Path) -> EngineFacts | None:
    """Return the facts beside an engine, after checking that they are of this very file; ``None`` without any.

    Raises:
        EngineFileError: It can't be read, or is of another file.
    """
    if not facts_path(engine).exists():
        return None
    facts = read_facts(engine)
    read_intact(engine, facts)
    return facts


def require_loadable(engine: Path, facts: EngineFacts, installed: Installed) -> None:
    """Check that an engine can run here, as far as that is known before it is loaded.

    Loading an engine of another version or GPU ends in a null pointer, or a crash.

    Args:
        engine: The file, for messages; :func:`read_intact` checks its contents.
        facts: The facts beside it.
        installed: The software and the GPU to run it on.

    Raises:
        UnavailableError: Its backend is not installed, or in another version; or there is no GPU, or another.
    """
    if facts.stripped:
        raise UnavailableError(
            f"{engine} was built without its weights; fill them in with `rexport engine {facts.onnx} --refit {engine} "
            f"-o {engine.with_stem(engine.stem + '-whole')}`."
        )
    advice = f"build it again from {facts.onnx}"
    if facts.command:
        advice = f"run `{facts.command}` again"
    _require_version(engine, facts, installed, advice)
    if installed.capability is None:
        raise UnavailableError(
            f"{engine} needs an NVIDIA GPU. {installed.why_no_device or 'There is none.'} To use it: install the "
            "NVIDIA driver; `nvidia-smi` must list a GPU."
        )
    if not _for_gpu(facts, installed.capability):
        if facts.backend == "rtx":
            advice = f"build it again with `--sm {installed.capability}`: {facts.command}".removesuffix(": ")
        raise UnavailableError(
            f"{engine} was built for GPUs of compute capability {', '.join(map(str, facts.capabilities))}, and "
            f"{installed.device or 'the GPU here'} has {installed.capability}: {advice}."
        )


def _require_version(engine: Path, facts: EngineFacts, installed: Installed, advice: str) -> None:
    name, package = _PACKAGES.get(facts.backend, _PACKAGES[BackendName.TENSORRT])
    if installed.version is None:
        raise UnavailableError(
            f"{engine} runs on {name} {facts.version}, which is not installed; type "
            f"`pip install '{package}=={facts.version}'`."
        )
    if installed.version != facts.version and not (facts.version_compatible and installed.lean == facts.version):
        lean = ""
        if facts.version_compatible:
            lean = f" (or install its lean runtime, `pip install 'tensorrt-lean-cu13=={facts.version}'`)"
        raise UnavailableError(
            f"{engine} was built by {name} {facts.version}, and this device has {installed.version}: {advice} "
            f"here{lean}."
        )


def _bytes_of(engine: Path, count: int = -1) -> bytes:
    """Return the first ``count`` bytes of a file, or all."""
    try:
        with engine.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise EngineFileError(f"{engine} can't be read: {error.strerror}.") from error


def _header_of(engine: Path, head: bytes, size: int) -> EngineHeader:
    if len(head) < _HEADER_BYTES or not head.startswith(_MAGIC):
        raise EngineFileError(f"{engine} is no engine of a known format: its first bytes are {head[:8]!r}.")
    stated_size, *version, bits = struct.unpack_from("<Q4B4xI", head, 16)
    if stated_size != size:
        defect = "was cut off" if size < stated_size else "has something behind its end"
        raise EngineFileError(
            f"{engine} {defect}: it has {size:,} bytes and says {stated_size:,}; copy or build it again."
        )
    return EngineHeader(
        version=".".join(map(str, version)),
        size=size,
        capabilities=tuple(capability for bit, capability in _BITS.items() if bits & bit),
    )


def _require_not_text(engine: Path) -> None:
    """Refuse a text file, whatever its name."""
    head = _bytes_of(engine, _HEADER_BYTES)
    if head.isascii() and "".join(head.decode().split()).isprintable():
        raise EngineFileError(f"{engine} is no engine of a known format: its first bytes are {head[:8]!r}.")


def _for_gpu(facts: EngineFacts, capability: int) -> bool:
    if not facts.capabilities:  # an older file of the GPU that it was built on: loading it tells
        return True
    if facts.hardware_compatible and capability >= _AMPERE and min(facts.capabilities) >= _AMPERE:
        return True
    return capability in facts.capabilities


def _same_version(first: str, second: str) -> bool:
    """Compare the first three numbers of two versions, as far as both have them."""
    return all(a == b for a, b in zip(first.split(".")[:3], second.split(".")[:3], strict=False))
