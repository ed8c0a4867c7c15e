"""AMD Quark's quantization of one model, as a command of its own, in an environment without rexport.

    python quantize_quark.py MODEL.onnx IMAGES.npy OUTPUT.onnx u8s8|s8s8|a8w8|xint8 MinMax|Percentile|preset

The first is the preset (U8S8_AAWS, S8S8_AAWS, A8W8, XINT8), which is taken with weights int8 per channel except for
XINT8, whose scales are powers of two per tensor; the last is the calibration, ``preset`` being the preset's own.
Cross-layer equalization, which two of the presets switch on and which changes what grouped convolutions compute, is
off.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from quark.onnx import ModelQuantizer
from quark.onnx.quantization.config import Config
from quark.onnx.quantization.config.custom_config import get_default_config

if TYPE_CHECKING:
    from collections.abc import Iterator

_PRESETS = {"u8s8": "U8S8_AAWS", "s8s8": "S8S8_AAWS", "a8w8": "A8W8", "xint8": "XINT8"}


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Feeds of one image each, float32 of shape ``(1, 3, S, S)``, as Quark's examples have it."""

    def __init__(self, images: np.ndarray, name: str) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = ({name: image[None]} for image in images)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next feed, ``None`` after the last."""
        return next(self._feeds, None)


def main(model: str, images: str, output: str, preset: str, method: str) -> None:
    """Quantize ``model``."""
    settings = get_default_config(_PRESETS[preset])
    settings.per_channel = preset != "xint8"
    settings.include_cle = False
    if method != "preset":
        settings.calibrate_method = getattr(CalibrationMethod, method)
    reader = _Images(np.load(images), onnx.load(model).graph.input[0].name)
    ModelQuantizer(Config(global_quant_config=settings)).quantize_model(model, output, reader)


if __name__ == "__main__":
    main(*sys.argv[1:])
