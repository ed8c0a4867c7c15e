"""Signed bundles that fail their self-check, each in another way: the previous version stays active every time.

The faults of models are in the bundles: other weights, no model, endless loops, too much memory. Those of runtimes are
planted: a module of the runtime's name that crashes or hangs when it is imported, the first time, before the switch,
or the second, after it.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx

from rexport.deploy.golden import npy
from tests.faults._part import Part
from tests.faults.agent import Agent, Workshop, complaint, fault_in
from tests.faults.seeds import small_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from rexport.device._manifest import Limits

__all__ = ["REPETITIONS", "endless", "greedy", "run"]

REPETITIONS = 10
_SECONDS = 10
_CODES = (5, 6)
_PLANTED = """
import os, signal, sys, time
counter = os.environ["REXPORT_PLANTED_COUNTER"]
with open(counter, "a") as file:
    file.write("x")
if os.path.getsize(counter) >= int(os.environ["REXPORT_PLANTED_AT"]):
    if os.environ["REXPORT_PLANTED"] == "hang":
        time.sleep(3600)
    os.kill(os.getpid(), getattr(signal, os.environ["REXPORT_PLANTED"]))
sys.path.remove(os.path.dirname(os.path.abspath(__file__)))
del sys.modules["onnxruntime"]
import onnxruntime
"""


@dataclass(frozen=True, kw_only=True)
class _Fault:
    """A bundle of version 2 that must not stay, and what is planted in the environment of the agent."""

    name: str
    bundle: Path
    planted: Mapping[str, str] = field(default_factory=dict)


def run(
    folder: Path, *, repetitions: int = REPETITIONS, only: tuple[str, ...] = (), done: Callable[[int], None]
) -> Part:
    """Install each bundle on a device that has version 1, and look at what is active; then install a good one.

    Args:
        folder: An empty folder to work in.
        repetitions: How often, for each fault.
        only: The names of faults; by default all.
        done: Is told how many more are done.
    """
    workshop = Workshop.set_up(folder / "workshop")
    first, good = workshop.bundle(1), workshop.bundle(3)
    ready = workshop.root(first, name="ready")
    failures: list[str] = []
    returned: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    for fault in _faults(workshop, only):
        for _ in range(repetitions):
            root = workshop.copy_of(ready, folder / "root")
            wrong = _try(workshop, fault, root, good)
            tried[fault.name] += 1
            returned[fault.name] += wrong is None
            if wrong is not None:
                failures.append(f"{fault.name}: {wrong}")
            done(1)
    detail = {"returned": {name: f"{returned[name]} of {count}" for name, count in tried.items()}}
    return Part(cases=sum(tried.values()), failures=tuple(failures), detail=detail)


def _try(workshop: Workshop, fault: _Fault, root: Path, good: Path) -> str | None:
    agent = workshop.agent
    if fault.planted:
        counter = root.with_suffix(".count")
        counter.unlink(missing_ok=True)
        names = {**fault.planted, "REXPORT_PLANTED_COUNTER": str(counter)}
        agent = Agent(("env", *(f"{name}={value}" for name, value in names.items()), *agent.command))
    failed = agent.run("install", fault.bundle, root=root)
    wrong = complaint(failed) or fault_in(root, allowed=(1,))
    if wrong is not None:
        return wrong
    if failed.code not in _CODES:
        return f"it ended with {failed.code}: {failed.stderr.strip()}"
    if fault.bundle.stem == "2-good" and len(root.with_suffix(".count").read_text()) < int(
        fault.planted["REXPORT_PLANTED_AT"]
    ):
        return f"the planted fault did not strike: {failed.stderr.strip()}"
    if workshop.agent.run("status", root=root).code:
        return "status fails afterwards"
    mended = workshop.agent.run("install", good, root=root)
    return fault_in(root, allowed=(3,)) or (mended.stderr.strip() if mended.code else None)


def _faults(workshop: Workshop, only: tuple[str, ...]) -> Iterator[_Fault]:
    from rexport.device._manifest import Limits

    brief, ample = Limits(seconds=_SECONDS), Limits(seconds=8 * _SECONDS)
    other = small_network(seed=99).SerializeToString()
    changes: dict[str, tuple[Mapping[str, bytes], Limits]] = {
        "the weights of another model": ({"model.onnx": other}, ample),
        "weights that are slightly off": ({"model.onnx": _disturbed(small_network(seed=2), 0.3)}, ample),
        "weights that are not finite": ({"model.onnx": _disturbed(small_network(seed=2), np.nan)}, ample),
        "no model": ({"model.onnx": np.random.default_rng(0).bytes(4096)}, ample),
        "a model that was cut off": ({"model.onnx": small_network(seed=2).SerializeToString()[:-900]}, ample),
        "an endless loop": ({"model.onnx": endless()}, brief),
        "more memory than the limit": ({"model.onnx": greedy()}, ample),
        "logits of another shape": ({"golden/logits.npy": npy(np.zeros((1, 7), np.float32))}, ample),
        "logits that name another class": ({"golden/logits.npy": npy(-_logits(workshop))}, ample),
        "too slow": ({}, Limits(seconds=8 * _SECONDS, latency_ms=1e-6)),
    }
    for name, (files, limits) in changes.items():
        if not only or name in only:
            yield _Fault(name=name, bundle=workshop.bundle(2, name="2-wrong", files=files, limits=limits))
    if not only or "a corrupt engine" in only:
        yield _Fault(name="a corrupt engine", bundle=_with_corrupt_engine(workshop))
    planted = workshop.folder / "planted"
    planted.mkdir()
    (planted / "onnxruntime.py").write_text(_PLANTED)
    bundle = workshop.bundle(2, name="2-good", limits=brief)
    for kind in ("SIGSEGV", "SIGABRT", "SIGILL", "SIGKILL", "hang"):
        for at, when in (("1", "before the switch"), ("2", "after the switch")):
            what = "a runtime that hangs" if kind == "hang" else f"a runtime that dies of {kind}"
            if not only or f"{what}, {when}" in only:
                path = os.pathsep.join([str(planted), *filter(None, [os.environ.get("PYTHONPATH")])])
                environment = {"PYTHONPATH": path, "REXPORT_PLANTED": kind, "REXPORT_PLANTED_AT": at}
                yield _Fault(name=f"{what}, {when}", bundle=bundle, planted=environment)


def _disturbed(model: onnx.ModelProto, by: float) -> bytes:
    """Return the model with noise of this share in its last weights."""
    tensor = next(one for one in model.graph.initializer if one.name == "fc")
    weights = onnx.numpy_helper.to_array(tensor)
    noise = np.random.default_rng(0).standard_normal(weights.shape) * by * np.abs(weights).mean()
    tensor.CopyFrom(onnx.numpy_helper.from_array((weights + noise).astype(np.float32), "fc"))
    data: bytes = model.SerializeToString()
    return data


def endless(*, side: int = 16, classes: int = 10) -> bytes:
    """Return a classifier that does not come to an end."""
    return _classifier(
        f"<int64 count = {{9223372036854775807}}, bool go = {{1}}, int64[2] shape = {{1, {classes}}}>",
        f"""start = ConstantOfShape (shape)
            y = Loop (count, go, start) <body = once (int64 i, bool go_in, float[1, {classes}] seen)
                => (bool go_out, float[1, {classes}] out) {{ go_out = Identity (go_in)  out = Identity (seen) }}>""",
        side=side,
        classes=classes,
    )


def greedy(*, side: int = 16, classes: int = 10) -> bytes:
    """Return a classifier that takes more memory than there is."""
    return _classifier(
        f"<int64[1] many = {{40000000000}}, int64[2] shape = {{1, {classes}}}>",
        "large = ConstantOfShape (many)  sum = ReduceMean <keepdims = 1> (large)  y = Expand (sum, shape)",
        side=side,
        classes=classes,
    )


def _classifier(weights: str, nodes: str, *, side: int, classes: int) -> bytes:
    data: bytes = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 18]> g (float[N, 3, {side}, {side}] x) => (float[N, {classes}] y) '
        f"{weights} {{ {nodes} }}"
    ).SerializeToString()
    return data


def _logits(workshop: Workshop) -> np.ndarray:
    """Return the golden logits of version 2, as the agent's own worker would be asked to meet them."""
    from rexport.deploy.container import read

    logits: np.ndarray = np.load(io.BytesIO(read(workshop.bundle(2)).files["golden/logits.npy"]))
    return logits


def _with_corrupt_engine(workshop: Workshop) -> Path:
    """Return a bundle that only an engine can run, which is noise behind a header; without a GPU it is unusable."""
    from rexport.deploy.bundle import sign_files
    from rexport.deploy.container import read, to_rxb
    from rexport.deploy.manifest import from_bytes
    from rexport.device._manifest import Engine

    contents = read(workshop.bundle(2))
    manifest = from_bytes(contents.manifest)
    engine = b"vtrt" + np.random.default_rng(0).bytes(4096)
    signed = sign_files(
        manifest._replace(
            target=manifest.target._replace(runtimes={"rtx": ()}),
            engines=(Engine(file="engines/noise.engine", backend="rtx", version="1.7.1.116", capabilities=(86, 89)),),
        ),
        {**contents.files, "engines/noise.engine": engine},
        workshop.key,
    )
    path = workshop.folder / "2-engine.rxb"
    path.write_bytes(to_rxb(signed))
    return path
