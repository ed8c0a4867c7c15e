"""Engine files for tests: a small real one of TensorRT for RTX, and those of the stand-ins, which are ONNX files."""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from cuda.bindings._internal import driver as bindings
from cuda.pathfinder import LoadedDL

from rexport.engine import BatchRange, BuildOptions, build_engine
from rexport.engine_file import BackendName, EngineFacts, facts_path
from rexport.model_file import save
from tests._graphs import convolution, graph, images, vector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cuda.core.utils import StridedMemoryView

    from rexport.runtimes._cuda import Cuda

_HERE = Path(__file__).parent
_KINDS = {onnx.TensorProto.FLOAT: "float", onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.FLOAT16: "half"}
VERSION = "10.13.0.1"  # of the stand-in


def write_tiny(folder: Path, kind: str = "float", *, batch: int | None = None) -> Path:
    """Write a convolution and a classifier; ``raw`` takes uint8 pictures of shape ``(N, 16, 16, 3)``."""
    before = "p = Cast <to=1> (images) x = Transpose <perm=[0,3,1,2]> (p)" if kind == "raw" else "x = Identity (images)"
    shape = "uint8[N, 16, 16, 3]" if kind == "raw" else "float[N, 3, 16, 16]"
    model = graph(
        f"{before} c = Conv <pads=[1,1,1,1]> (x, w) r = Relu (c) g = GlobalAveragePool (r) f = Flatten (g) "
        "logits = Gemm <transB=1> (f, v)",
        {"w": convolution(4, 3), "v": vector(40).reshape(10, 4)},
        inputs=f"{shape.replace('N', str(batch or 'N'))} images",
        outputs=f"float[{batch or 'N'}, 10] logits",
    )
    path = folder / f"{kind}.onnx"
    save(model, path)
    return path


def tiny_images(count: int, kind: str = "float") -> np.ndarray:
    """Return pictures as such a file takes them."""
    if kind == "raw":
        return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)
    return images(count)


def build_rtx(folder: Path) -> Path:
    """Build a real engine for batches of 1 to 8 and the capability 86."""
    pytest.importorskip("tensorrt_rtx", reason="pip install 'rexport[rtx]' to build engines without a GPU")
    options = BuildOptions(
        backend=BackendName.RTX, capabilities=(86,), batch=BatchRange(least=1, best=4, most=8), optimization_level=0
    )
    built = build_engine(write_tiny(folder), options, command="rexport engine float.onnx -o m.engine")
    built.save(folder / "m.engine")
    return folder / "m.engine"


def write_stand_in(
    folder: Path, kind: str = "float", *, batch: int | None = None, profiles: Sequence[Sequence[int]] = ((1, 4, 8),)
) -> Path:
    """Write an engine of the stand-in, with what lies beside it; :func:`write_tiny` writes the same network."""
    model = onnx.load(write_tiny(folder, kind, batch=batch))
    model.metadata_props.add(key="profiles", value=",".join(":".join(map(str, one)) for one in profiles))
    path = folder / f"{kind}.engine"
    path.write_bytes(model.SerializeToString())
    describe(path, batch=tuple(profiles[0]), inputs=_tensors(model.graph.input), outputs=_tensors(model.graph.output))
    return path


def describe(path: Path, **fields: Any) -> EngineFacts:
    """Write what lies beside an engine of the stand-in."""
    data = path.read_bytes()
    stated: dict[str, Any] = {
        "backend": "tensorrt",
        "version": VERSION,
        "capabilities": (86,),
        "device": "Stand-in",
        "cuda": "13.1",
        "batch": (1, 4, 8),
        "inputs": (),
        "outputs": (),
        "layers": (),
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "onnx": "m.onnx",
        "onnx_sha256": "0" * 64,
        "repairs": (),
        "warnings": (),
        "seconds": 1.0,
        "command": "rexport engine m.onnx --backend tensorrt -o m.engine",
        "rexport": "0.1.0",
    }
    facts = EngineFacts(**{**stated, **fields})
    facts_path(path).write_text(json.dumps(facts.to_json()))
    return facts


def change_facts(path: Path, **fields: Any) -> None:
    """Change what lies beside an engine."""
    beside = facts_path(path)
    beside.write_text(json.dumps({**json.loads(beside.read_text()), **fields}))


def _tensors(values: Sequence[onnx.ValueInfoProto]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "name": value.name,
            "dtype": _KINDS[value.type.tensor_type.elem_type],
            "shape": [d.dim_value or -1 for d in value.type.tensor_type.shape.dim],
        }
        for value in values
    )


class StandIns:
    """The stand-ins for CUDA's driver and ``tensorrt``, for this process and those that it starts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.driver = ctypes.CDLL(str(folder / "libcuda.so.1"))
        self._patch = monkeypatch
        shutil.copy(_HERE / "_stand_in_tensorrt.py", folder / "tensorrt.py")
        # the first one to be used stays the driver of this process
        loaded = LoadedDL(str(folder / "libcuda.so.1"), False, self.driver._handle, "a stand-in")
        monkeypatch.setattr(bindings, "load_nvidia_dynamic_lib", lambda _: loaded)
        monkeypatch.setenv("STAND_IN_DRIVER", str(folder / "libcuda.so.1"))
        monkeypatch.syspath_prepend(folder)
        # what is imported from now on is forgotten at the end of the test
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        monkeypatch.delitem(sys.modules, "tensorrt")
        for name in ("PYTHONPATH", "LD_LIBRARY_PATH"):
            monkeypatch.setenv(name, os.pathsep.join(filter(None, [str(folder), os.environ.get(name)])))

    def set(self, **variables: str) -> None:
        """Set variables that the stand-ins look at: ``fault``, ``version``, ``capability``, ``no_gpu``."""
        for name, value in variables.items():
            self._patch.setenv(f"STAND_IN_{name.upper()}", value)
        self._patch.delitem(sys.modules, "tensorrt", raising=False)

    @property
    def live(self) -> int:
        """How many things of the driver's were not freed."""
        return int(self.driver.stand_in_live())

    @property
    def launches(self) -> int:
        """How often a graph was launched."""
        return int(self.driver.stand_in_launches())


def at_address(pointer: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the floats that lie in the stand-in's memory, which is this machine's."""
    size = 4 * math.prod(shape)
    return np.frombuffer((ctypes.c_ubyte * size).from_address(pointer), np.float32).reshape(shape)


def on_stand_in(cuda: Cuda, array: np.ndarray) -> StridedMemoryView:
    """Return an array as another library has it on the GPU."""
    data = cuda.allocate(array.nbytes)
    at_address(data.handle, array.shape)[...] = array
    return cuda.hand_out(data, array.shape, array.dtype)


def compile_driver(folder: Path) -> None:
    """Compile the stand-in for CUDA's driver."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the stand-in for CUDA's driver takes Linux and a C compiler")
    command = [compiler, "-shared", "-fPIC", "-O1", str(_HERE / "_stand_in_driver.c"), "-o", "libcuda.so.1"]
    subprocess.run(command, cwd=folder, check=True)
