"""Files and batches, for the runtimes of any library."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from rexport._errors import UnavailableError
from rexport.engine_file import is_engine
from rexport.feeds import examples_in, in_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rexport.feeds import Feed
    from rexport.runtimes.source import Source

__all__ = ["Outputs", "onnx_file", "run_in_batches"]

Outputs: TypeAlias = "list[np.ndarray]"


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


def run_in_batches(run: Callable[[Feed], Outputs], feed: Feed, size: int | None) -> Outputs:
    """Return the outputs of ``run`` for each example, calling it with batches of ``size`` only."""
    parts = [run(part) for part in in_batches(feed, size)]
    if len(parts) == 1 and size in (None, examples_in(feed)):
        return parts[0]
    return [_joined(output, examples_in(feed)) for output in zip(*parts, strict=True)]


def _joined(parts: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Return one output for ``count`` examples; a single number is the same for all."""
    return np.concatenate(parts)[:count] if parts[0].ndim else parts[0]
