"""ONNX Runtime's CUDA provider.

Float32 stays float32: TensorFloat-32, which newer GPUs would round the factors of products to (10 bits), is off. The
provider has no INT8 convolutions, so that a quantized model runs there in float between its Q/DQ nodes; INT8 on NVIDIA
GPUs is TensorRT's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rexport.runtimes.onnxruntime_gpu import OnnxRuntimeGpu

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OnnxRuntimeCuda"]


class OnnxRuntimeCuda(OnnxRuntimeGpu):
    """An ONNX file in a session of the CUDA provider, for all shapes."""

    NAME: ClassVar[str] = "cuda"
    PROVIDER: ClassVar[str] = "CUDAExecutionProvider"
    OPTIONS: ClassVar[Mapping[str, str]] = {
        "device_id": "0",
        "use_tf32": "0",
        "cudnn_conv_algo_search": "EXHAUSTIVE",  # each convolution's algorithms are timed at the first call of a shape
        "do_copy_in_default_stream": "1",
    }
