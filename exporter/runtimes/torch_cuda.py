"""PyTorch on an NVIDIA GPU, eager or compiled: what the network costs there before it is exported.

Float32 stays float32, as on the CUDA provider: TensorFloat-32, which PyTorch allows in convolutions by itself, is off.
Network and pictures are in the channels-last layout, which NVIDIA's convolutions compute in. Not run on a GPU yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from rexport._errors import UnavailableError
from rexport.models import registry
from rexport.runtimes.probes import require

if TYPE_CHECKING:
    import numpy as np

    from rexport.runtimes.source import Source

__all__ = ["TorchCompileCuda", "TorchCuda"]


class TorchCuda:
    """A network of the zoo, run eagerly on the GPU in inference mode; ``threads`` are ignored."""

    COMPILED: ClassVar[bool] = False

    def __init__(self, source: Source, *, threads: int | None = None) -> None:  # noqa: ARG002
        if source.network is None:
            raise UnavailableError(f"PyTorch runs networks, not files such as {source}.")
        require("torch-cuda")
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = True  # each convolution's algorithms are timed at the first call of a shape
        # PyTorch does not declare memory_format among what Module.to takes
        module: Any = registry.build(source.network, weights=source.weights, num_classes=source.num_classes)
        self._module: Any = module.to("cuda", memory_format=torch.channels_last)
        if self.COMPILED:
            self._module = torch.compile(self._module, backend="inductor", dynamic=False, fullgraph=True)

    def __enter__(self) -> TorchCuda:
        return self

    def __exit__(self, *exception: object) -> None:
        del self._module

    def run(self, images: np.ndarray) -> np.ndarray:
        """Run a batch of shape ``(N, 3, S, S)``, float32; return the logits."""
        with torch.inference_mode():
            pictures = torch.from_numpy(images).to("cuda").to(memory_format=torch.channels_last)
            logits: np.ndarray = self._module(pictures).cpu().numpy()  # waits for the GPU
        return logits


class TorchCompileCuda(TorchCuda):
    """The same, compiled by ``torch.compile`` at the first call of each shape."""

    COMPILED: ClassVar[bool] = True
