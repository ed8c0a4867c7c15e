"""Probes: whether this machine can really use a runtime, tried on a model of one convolution.

Being listed is not being usable: ONNX Runtime lists providers whose libraries are missing and then falls
back to the CPU, and a runtime without a driver may crash the process. So every probe is a process of its own,
``python -m rexport.runtimes.probes NAME``, which prints one line of JSON; the caller sees crashes and hangs
from outside.
"""

from __future__ import annotations

import ctypes
import importlib
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rexport._child import Child, ChildError, answer_requests
from rexport._cpu import this_cpu
from rexport._errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

__all__ = ["PROBES", "Finding", "fell_back", "load_libraries", "probe", "probe_all", "probe_model", "require"]

_TIMEOUT = 60.0  # seconds; loading CUDA for the first time takes some
_DRIVER = "libcuda.so.1" if sys.platform != "win32" else "nvcuda.dll"
_SIZE = 8  # pixels
_INSIDE = 27.0  # 3 × 3 × 3 ones times ones, away from the border


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of a probe.

    Attributes:
        name: The name of the probe.
        what: The runtime in words.
        usable: Whether it ran the model and gave the right numbers.
        version: The version of the package, where it could be imported.
        reason: Why it is not usable, in a sentence.
        advice: The command to type, or the step to take, to make it usable.
    """

    name: str
    what: str
    usable: bool
    version: str | None = None
    reason: str | None = None
    advice: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Probe:
    """``function`` returns the version and why it is not usable, if so; ``package`` is what it imports."""

    what: str
    function: str
    arguments: tuple[str, ...] = ()
    package: str
    advice: str
    needs_driver: bool = False


PROBES = {
    "cpu": _Probe(
        what="ONNX Runtime on the CPU",
        function="_onnxruntime",
        arguments=("CPUExecutionProvider",),
        package="onnxruntime",
        advice="pip install --force-reinstall rexport",
    ),
    "torch": _Probe(
        what="PyTorch on the CPU",
        function="_torch",
        package="torch",
        advice="pip install --force-reinstall rexport",
    ),
    "torch-cuda": _Probe(
        what="PyTorch on the GPU",
        function="_torch",
        arguments=("cuda",),
        package="torch",
        advice="install PyTorch's build for CUDA, see https://pytorch.org/get-started",
        needs_driver=True,
    ),
    "cuda": _Probe(
        what="ONNX Runtime's CUDA provider",
        function="_onnxruntime",
        arguments=("CUDAExecutionProvider",),
        package="onnxruntime",
        advice="pip install 'onnxruntime-gpu[cuda,cudnn]'",
        needs_driver=True,
    ),
    "tensorrt": _Probe(
        what="ONNX Runtime's TensorRT provider",
        function="_onnxruntime",
        arguments=("TensorrtExecutionProvider", "tensorrt_libs"),
        package="onnxruntime",
        advice="pip install 'onnxruntime-gpu[cuda,cudnn]' 'rexport[tensorrt]'",
        needs_driver=True,
    ),
    "tensorrt-engine": _Probe(
        what="TensorRT engines",
        function="_engine",
        arguments=("tensorrt",),
        package="tensorrt",
        advice="pip install 'rexport[tensorrt]'",
        needs_driver=True,
    ),
    "tensorrt-rtx-engine": _Probe(
        what="TensorRT for RTX engines",
        function="_engine",
        arguments=("tensorrt_rtx",),
        package="tensorrt_rtx",
        advice="pip install 'rexport[rtx]'",
        needs_driver=True,
    ),
    "openvino": _Probe(
        what="OpenVINO on the CPU", function="_openvino", package="openvino", advice="pip install 'rexport[openvino]'"
    ),
}


def probe_all(names: Sequence[str] = tuple(PROBES), *, timeout: float = _TIMEOUT) -> list[Finding]:
    """Run probes, as many at once as there are cores, and return their findings in order."""
    with ThreadPoolExecutor(max_workers=this_cpu().cores) as pool:
        return list(pool.map(lambda name: probe(name, timeout=timeout), names))


def probe(name: str, *, timeout: float = _TIMEOUT) -> Finding:
    """Run one probe in a process of its own and return its finding; a crash or a hang there is one too.

    Args:
        name: One of :data:`PROBES`.
        timeout: Seconds after which it counts as hanging.

    Raises:
        UsageError: There is no such probe.
    """
    if name not in PROBES:
        raise UsageError(f"There is no probe {name!r}; choose from {', '.join(PROBES)}.")
    with Child("rexport.runtimes.probes") as child:
        try:
            finding = Finding(**child.ask("probe", limit=timeout, name=name))
        except ChildError as error:
            if error.kind == "TimeoutError":
                return _not_usable(name, f"It was still not done after {timeout:g} seconds.")
            return _not_usable(name, str(error))
        errors = child.errors
    missing = re.search(r"error: (\S+): cannot open shared object file", errors)
    if not finding.usable and missing is not None and finding.reason is not None:
        finding = replace(finding, reason=f"{finding.reason} {missing[1]} is missing.")
    return finding


def require(name: str) -> None:
    """Run one probe in a process of its own.

    Raises:
        UnavailableError: It finds the runtime not usable; the message says why, and what to type.
    """
    finding = probe(name)
    if not finding.usable:
        raise UnavailableError(f"{finding.what} is not usable here: {finding.reason} To use it: {finding.advice}")


def load_libraries(provider: str, *packages: str) -> None:
    """Load the shared libraries that a provider of ONNX Runtime links, from the packages that bring them."""
    import onnxruntime

    for package in packages:  # it loads them when imported
        if find_spec(package) is not None:
            importlib.import_module(package)
    if provider != "CPUExecutionProvider":
        onnxruntime.preload_dlls()


def fell_back(session: Any, provider: str) -> str | None:
    """Say which provider a session of ONNX Runtime runs on instead of the requested one; ``None`` if it does not."""
    first = session.get_providers()[0]
    return None if first == provider else f"ONNX Runtime fell back to {first}."


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run the probe named in the request in this process."""
    return _find_out(request["name"]).to_json()


def _find_out(name: str) -> Finding:
    """Run a probe in this process; it may crash."""
    entry = PROBES[name]
    if find_spec(entry.package) is None:
        return _not_usable(name, f"The package {entry.package} is not installed.")
    if entry.needs_driver and (reason := _no_gpu()):
        return _not_usable(name, reason, advice="Install the NVIDIA driver; `nvidia-smi` must list a GPU.")
    version = None
    try:
        version = str(importlib.import_module(entry.package).__version__)
        reason = globals()[entry.function](*entry.arguments)
    except Exception as error:  # each runtime raises its own
        reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    if reason is None:
        return Finding(name=name, what=entry.what, usable=True, version=version)
    return _not_usable(name, reason, version=version)


def _not_usable(name: str, reason: str, *, version: str | None = None, advice: str | None = None) -> Finding:
    entry = PROBES[name]
    return Finding(
        name=name, what=entry.what, usable=False, version=version, reason=reason, advice=advice or entry.advice
    )


def _onnxruntime(provider: str, *libraries: str) -> str | None:
    import onnxruntime

    load_libraries(provider, *libraries)
    if provider not in onnxruntime.get_available_providers():
        return f"This build of ONNX Runtime has no {provider}; it takes the package onnxruntime-gpu."
    session = onnxruntime.InferenceSession(probe_model(), providers=[provider])
    reason = fell_back(session, provider)
    if reason is not None:
        return reason
    return _wrong(session.run(None, {"images": _ones()})[0])


def _torch(device: str = "cpu") -> str | None:
    import torch

    with torch.inference_mode():
        pictures, weight = torch.from_numpy(_ones()).to(device), torch.ones(4, 3, 3, 3, device=device)
        return _wrong(torch.conv2d(pictures, weight, padding=1).cpu().numpy())


def _openvino() -> str | None:
    openvino: Any = importlib.import_module("openvino")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(probe_model()), "CPU")
    return _wrong(compiled(_ones())[0])


def _engine(package: str) -> str | None:
    """Build an engine, load it and run it, in either package, as the runtimes of engine files do."""
    from rexport.runtimes._tensorrt import LoadedEngine

    trt: Any = importlib.import_module(package)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)  # typed weakly on TensorRT 10: the model is in float
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(probe_model()):
        return f"It can't parse a convolution: {parser.get_error(0).desc()}."
    engine = builder.build_serialized_network(network, builder.create_builder_config())
    if engine is None:
        return "It can't build an engine from a convolution."
    memory = LoadedEngine(trt, bytes(engine)).memory(1, 0)
    memory.upload(_ones())
    memory.compute()
    return _wrong(memory.download())


def _no_gpu() -> str | None:
    """Say why CUDA's driver is not usable. Asked first, because TensorRT may crash without it."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return f"There is no NVIDIA driver: {_DRIVER} can't be loaded."
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status:
        return f"The NVIDIA driver reports error {status}."
    return None if count.value else "The NVIDIA driver sees no GPU."


def probe_model() -> bytes:
    """Return a 3×3 convolution of ones in ONNX's oldest operators, which every runtime can read."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Conv", ["images", "weight"], ["sums"], pads=[1, 1, 1, 1])],
        "probe",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, _SIZE, _SIZE])],
        [helper.make_tensor_value_info("sums", TensorProto.FLOAT, [1, 4, _SIZE, _SIZE])],
        [numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def _ones() -> np.ndarray:
    import numpy as np

    return np.ones((1, 3, _SIZE, _SIZE), np.float32)


def _wrong(sums: np.ndarray) -> str | None:
    inside = sums[:, :, 1:-1, 1:-1]
    # small integers: exact in every float format, TF32 and bfloat16 included
    if inside.shape == (1, 4, _SIZE - 2, _SIZE - 2) and (inside == _INSIDE).all():
        return None
    return f"It computes wrong numbers: a sum of {_INSIDE:g} ones came out as {inside.ravel()[:1]}."


if __name__ == "__main__":
    answer_requests(_answer)
