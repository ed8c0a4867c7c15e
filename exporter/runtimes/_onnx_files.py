"""What the runtimes of ONNX files share, whichever library they load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rexport._errors import UnavailableError
from rexport.engine_file import is_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rexport.runtimes.source import Source

__all__ = ["in_batches", "onnx_file", "run_in_batches"]


def onnx_file(source: Source, runtime: str) -> Path:
    """Return the source's file.

    Args:
        source: What is to run.
        runtime: Who asks, in words.

    Raises:
        UnavailableError: The source is a network, or an engine file.
    """
    if source.path is None:
        raise UnavailableError(f"{runtime} runs ONNX files; make one with `rexport onnx {source} -o {source}.onnx`.")
    if is_engine(source.path):
        raise UnavailableError(f"{runtime} runs ONNX files, and {source} is an engine; leave --on out to run it.")
    return source.path


def in_batches(images: np.ndarray, size: int | None) -> Iterator[np.ndarray]:
    """Yield ``images`` in parts of exactly ``size``, the last filled up with copies of its last image.

    Without a size, they are one part.
    """
    size = size or max(1, len(images))
    for start in range(0, len(images), size):
        part = images[start : start + size]
        yield part if len(part) == size else np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])


def run_in_batches(run: Callable[[np.ndarray], np.ndarray], images: np.ndarray, size: int | None) -> np.ndarray:
    """Return what ``run`` gives for each image, calling it with batches of ``size`` only."""
    parts = [run(part) for part in in_batches(images, size)]
    logits = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return logits[: len(images)]
