"""One network in the kinds of files that runtimes are given, and what ONNX Runtime's CPU provider makes of them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from rexport._cpu import this_cpu
from rexport.calibration import calibrate
from rexport.exporting.half import to_half
from rexport.model_file import to_bytes
from rexport.passes.raw_image import with_raw_images
from rexport.preprocessing import Preprocessing
from rexport.quantization import quantize
from rexport.quantization.targets import target_for
from rexport.runtimes import open_runtime
from rexport.runtimes.source import Source
from tests.quantization._tables import exported, pictures

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

KINDS = ("float", "raw", "x86", "openvino", "raw openvino")
_NETWORK = "cifar_resnet8"


def write(kind: str, folder: Path, *, batch: int | None = None) -> Path:
    """Write a file: ``float``, ``half``, ``raw`` (takes uint8), a target's INT8, or ``raw`` and a target."""
    model = _model(kind).clone()
    if batch is not None:
        shape = model.graph.inputs[0].shape
        assert shape is not None
        shape[0] = batch
    path = folder / f"{kind.replace(' ', '_')}.onnx"
    path.write_bytes(to_bytes(model))
    return path


def images_for(kind: str, count: int) -> np.ndarray:
    """Return pictures as such a file takes them."""
    if kind.startswith("raw"):
        return np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3), np.uint8)
    return pictures(count)


def on_cpu(path: Path, images: np.ndarray) -> np.ndarray:
    """Return the logits of ONNX Runtime's CPU provider."""
    with open_runtime("cpu", Source(path=path), threads=1) as runtime:
        return runtime.run(images)


@cache
def _model(kind: str) -> ir.Model:
    plain = exported(_NETWORK)
    if kind == "float":
        return plain
    if kind == "half":
        return to_half(plain).conversion.model
    if kind == "raw":
        return with_raw_images(plain, Preprocessing(size=32))
    before = _model("raw") if kind.startswith("raw") else plain
    table = calibrate(before, [images_for(kind, 16)])
    target = target_for(kind.split()[-1], this_cpu())  # sums of eight bits saturate without VNNI
    return quantize(before, table, target=target).model
