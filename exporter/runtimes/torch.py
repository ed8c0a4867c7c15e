"""PyTorch on the CPU, eager: what the network costs before it is exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rexport._cpu import this_cpu
from rexport._errors import UnavailableError
from rexport.feeds import one_array
from rexport.models import registry

if TYPE_CHECKING:
    import numpy as np

    from rexport.feeds import Feed
    from rexport.runtimes.source import Source

__all__ = ["TorchEager"]


class TorchEager:
    """A network of the zoo, run eagerly in inference mode. Sets PyTorch's threads for the whole process."""

    def __init__(self, source: Source, *, threads: int | None = None) -> None:
        if source.network is None:
            raise UnavailableError(f"PyTorch runs networks, not ONNX files such as {source}.")
        torch.set_num_threads(threads or this_cpu().cores)
        self._module = registry.build(source.network, weights=source.weights, num_classes=source.num_classes)

    def __enter__(self) -> TorchEager:
        return self

    def __exit__(self, *exception: object) -> None:
        del self._module

    def run(self, feed: Feed) -> np.ndarray:
        """Run a batch of shape ``(N, C, H, W)``, float32; return the logits."""
        with torch.inference_mode():
            logits: np.ndarray = self._module(torch.from_numpy(one_array(feed))).numpy()
        return logits
