"""PyTorch on the CPU, compiled by ``torch.compile`` (TorchInductor): what the network costs without being exported.

The network's weights and its pictures are in PyTorch's channels-last layout: ResNet-50 ran 1.3 times as fast as with
the channels first, both compiled, at batch 1 and 8. Freezing (weights as constants) changed nothing beyond the noise
and is left off, as ``torch.compile`` leaves it.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rexport._cpu import this_cpu
from rexport._errors import UnavailableError
from rexport.models import registry

if TYPE_CHECKING:
    import numpy as np

    from rexport.runtimes.source import Source

__all__ = ["TorchCompile", "why_no_compiler"]


class TorchCompile:
    """A network of the zoo, compiled at the first call of each shape, in inference mode.

    Sets PyTorch's threads for the whole process. What was compiled is kept in PyTorch's own cache on the disk, so that
    a first call takes seconds after another process's took half a minute.
    """

    def __init__(self, source: Source, *, threads: int | None = None) -> None:
        if source.network is None:
            raise UnavailableError(f"torch.compile runs networks, not ONNX files such as {source}.")
        reason = why_no_compiler()
        if reason is not None:
            raise UnavailableError(reason)
        torch.set_num_threads(threads or this_cpu().cores)
        # PyTorch does not declare memory_format among what Module.to takes
        module: Any = registry.build(source.network, weights=source.weights, num_classes=source.num_classes)
        self._module: Any = torch.compile(
            module.to(memory_format=torch.channels_last),
            backend="inductor",
            dynamic=False,
            fullgraph=True,  # a part that can't be compiled is an error, not a part that runs eagerly
            options={"compile_threads": 1},  # otherwise its compiler processes outlive the compilation
        )

    def __enter__(self) -> TorchCompile:
        return self

    def __exit__(self, *exception: object) -> None:
        del self._module

    def run(self, images: np.ndarray) -> np.ndarray:
        """Run a batch of shape ``(N, 3, S, S)``, float32; return the logits."""
        with torch.inference_mode():
            pictures = torch.from_numpy(images).to(memory_format=torch.channels_last)
            logits: np.ndarray = self._module(pictures).numpy()
        return logits


def why_no_compiler() -> str | None:
    """Say what TorchInductor lacks to compile here, and how to get it; ``None`` if it lacks nothing."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError):
        return (
            "torch.compile writes C++ and finds no compiler for it; install one, such as with `apt install g++`, or "
            "name it in the environment variable CXX."
        )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        return (
            f"torch.compile writes C++ that includes Python's headers, and there is no {header}; install them, such as "
            "with `apt install python3-dev`."
        )
    return None
