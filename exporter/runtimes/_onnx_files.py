"""Files and batches, for the runtimes of any library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rexport._errors import UnavailableError
from rexport.engine_file import is_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rexport.runtimes.source import Source

__all__ = ["filled_up", "in_batches", "onnx_file", "run_in_batches"]


def onnx_file(source: Source, runtime: str) -> Path:
    """Return the source's file.

    Args:
        source: The model to run.
        runtime: The runtime's name in words.

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
        yield filled_up(images[start : start + size], size)


def filled_up(images: np.ndarray, size: int) -> np.ndarray:
    """Return a batch of ``size``: the images, and copies of the last one."""
    if len(images) == size:
        return images
    return np.concatenate([images, np.repeat(images[-1:], size - len(images), axis=0)])


def run_in_batches(run: Callable[[np.ndarray], np.ndarray], images: np.ndarray, size: int | None) -> np.ndarray:
    """Return the result of ``run`` for each image, calling it with batches of ``size`` only."""
    parts = [run(part) for part in in_batches(images, size)]
    logits = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return logits[: len(images)]
