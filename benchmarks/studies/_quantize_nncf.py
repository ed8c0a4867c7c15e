"""NNCF's quantization of one model, as a command of its own, in an environment that has it and nothing of rexport.

    python _quantize_nncf.py MODEL.onnx IMAGES.npy OUTPUT.onnx performance|mixed fast|accurate|none RANGES

The last two are the bias correction and the estimator of ranges: MEAN_MINMAX, its default here, or MINMAX.
"""

from __future__ import annotations

import sys

import nncf
import numpy as np
import onnx
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
from nncf.quantization.range_estimator import RangeEstimatorParametersSet


def main(model: str, images: str, output: str, preset: str, bias_correction: str, ranges: str) -> None:
    """Quantize ``model``; its statistics are of single images, as NNCF's documentation advises."""
    loaded, arrays = onnx.load(model), np.load(images)
    name = loaded.graph.input[0].name
    quantized = nncf.quantize(
        loaded,
        nncf.Dataset([image[None] for image in arrays], lambda image: {name: image}),
        preset=nncf.QuantizationPreset(preset),
        subset_size=len(arrays),
        fast_bias_correction=bias_correction != "accurate",
        advanced_parameters=AdvancedQuantizationParameters(
            disable_bias_correction=bias_correction == "none",
            activations_range_estimator_params=getattr(RangeEstimatorParametersSet, ranges),
        ),
    )
    onnx.save(quantized, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
