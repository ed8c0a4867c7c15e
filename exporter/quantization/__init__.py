"""INT8: from a float model and the ranges of its tensors to a model with QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from rexport.quantization.audit import audit
from rexport.quantization.quantize import LayerReport, QuantizedModel, quantize, require_float
from rexport.quantization.recovery import Recovered, recover
from rexport.quantization.targets import ARM, ONNX_RUNTIME, OPENVINO, TARGETS, TENSORRT, X86, Target, target_for

__all__ = [
    "ARM",
    "ONNX_RUNTIME",
    "OPENVINO",
    "TARGETS",
    "TENSORRT",
    "X86",
    "LayerReport",
    "QuantizedModel",
    "Recovered",
    "Target",
    "audit",
    "quantize",
    "recover",
    "require_float",
    "target_for",
]
