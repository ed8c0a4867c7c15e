"""onnxruntime's static quantization of one model, as a command of its own; it needs nothing of rexport.

    python _quantize_onnxruntime.py MODEL.onnx IMAGES.npy|FOLDER OUTPUT.onnx u8s8|s8s8 MinMax|Entropy|Percentile

FOLDER holds an .npz with an array per input for each example, as the model takes it.
Weights are int8 per channel, and the model goes through the pre-processing that its documentation asks for.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

if TYPE_CHECKING:
    from collections.abc import Iterator

_BATCH = 8
_PER_CHANNEL_OPSET = 13  # the first in which weights have a scale per channel
_ACTIVATIONS = {"u8s8": QuantType.QUInt8, "s8s8": QuantType.QInt8}


class _Examples(CalibrationDataReader):  # type: ignore[misc]
    """Feeds of some examples each."""

    def __init__(self, feeds: Iterator[dict[str, np.ndarray]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, Any] | None:
        """Return the next feed, ``None`` after the last."""
        return next(self._feeds, None)


def _feeds(path: Path, model: str) -> Iterator[dict[str, np.ndarray]]:
    if path.is_dir():
        yield from (dict(np.load(file)) for file in sorted(path.glob("*.npz")))
        return
    images, name = np.load(path), onnx.load(model).graph.input[0].name
    yield from ({name: images[start : start + _BATCH]} for start in range(0, len(images), _BATCH))


def _prepare(model: str, prepared: str) -> None:
    """Pre-process a model, without inferring symbolic shapes where that fails."""
    try:
        quant_pre_process(model, prepared)
    except Exception:  # it raises whatever comes
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
    ready = onnx.load(prepared)
    if next(entry.version for entry in ready.opset_import if not entry.domain) < _PER_CHANNEL_OPSET:
        onnx.save(version_converter.convert_version(ready, _PER_CHANNEL_OPSET), prepared)


def main(model: str, images: str, output: str, types: str, method: str) -> None:
    """Quantize ``model``."""
    prepared = f"{output}.prepared"
    _prepare(model, prepared)
    quantize_static(
        prepared,
        output,
        _Examples(_feeds(Path(images), prepared)),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=_ACTIVATIONS[types],
        weight_type=QuantType.QInt8,
        calibrate_method=getattr(CalibrationMethod, method),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
