"""onnxruntime's static quantization of one model, as a command of its own; it needs nothing of rexport.

    python _quantize_onnxruntime.py MODEL.onnx IMAGES.npy OUTPUT.onnx u8s8|s8s8 MinMax|Entropy|Percentile

Weights are int8 per channel, and the model goes through the pre-processing that its documentation asks for.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

if TYPE_CHECKING:
    from collections.abc import Iterator

_BATCH = 8
_ACTIVATIONS = {"u8s8": QuantType.QUInt8, "s8s8": QuantType.QInt8}


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Feeds of some images each, float32 of shape ``(N, 3, S, S)``."""

    def __init__(self, images: np.ndarray, name: str) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = (
            {name: images[start : start + _BATCH]} for start in range(0, len(images), _BATCH)
        )

    def get_next(self) -> dict[str, Any] | None:
        """Return the next feed, ``None`` after the last."""
        return next(self._feeds, None)


def main(model: str, images: str, output: str, types: str, method: str) -> None:
    """Quantize ``model``."""
    prepared = f"{output}.prepared"
    quant_pre_process(model, prepared)
    quantize_static(
        prepared,
        output,
        _Images(np.load(images), onnx.load(prepared).graph.input[0].name),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=_ACTIVATIONS[types],
        weight_type=QuantType.QInt8,
        calibrate_method=getattr(CalibrationMethod, method),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
