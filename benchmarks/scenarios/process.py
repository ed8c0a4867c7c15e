"""The other end of a system under test: a process with the model loaded and images ready."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from rexport import _errors
from rexport._child import Child, ChildError
from rexport._cpu import this_cpu
from rexport._errors import RexportError
from rexport.benchmarks.affinity import choose_cores, sibling_groups, usable_cores
from rexport.benchmarks.scenarios.image import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rexport.runtimes.source import Source

__all__ = ["SutProcess", "opened", "user_errors"]

_LOADING = 900.0  # seconds: a compiler of graphs may take minutes
_PATIENCE = 120.0  # seconds beyond what a command should take, before it counts as hanging


class SutProcess(Child):
    """A process of ``rexport.benchmarks.scenarios.worker``.

    It measures by itself; only results cross the pipe. It is not stopped in between, so measure one at a time.

    Args:
        cores: To stay on (see ``affinity``); by default wherever the system puts it.
    """

    def __init__(self, *, cores: Sequence[int] = ()) -> None:
        super().__init__("rexport.benchmarks.scenarios.worker", cores=cores)

    def request(self, do: str, *, should_take: float, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its reply, two minutes longer than it should take, in seconds.

        Raises:
            ChildError: The process says so, or it died, or hangs.
        """
        return self.ask(do, limit=should_take + _PATIENCE, **arguments)


@contextlib.contextmanager
def user_errors(source: Source, runtime: str) -> Iterator[None]:
    """Turn what goes wrong in the process into the error of :mod:`rexport._errors` that it was there."""
    try:
        yield
    except ChildError as error:
        if error.kind in _errors.__all__:
            raise getattr(_errors, error.kind)(str(error)) from error
        raise RexportError(f"{source} failed on {runtime}: {error}") from error


@contextlib.contextmanager
def opened(
    source: Source, runtime: str, *, image: Image | None, threads: int | None, batch: int, seed: int
) -> Iterator[SutProcess]:
    """Yield a process with the model loaded and images ready, and end it after the block.

    By default images are what the model takes, and there are as many threads as usable cores.
    """
    image, threads = image or Image.of(source), threads or this_cpu().cores
    cores = choose_cores(threads, sibling_groups(usable_cores()))
    with user_errors(source, runtime), SutProcess(cores=cores) as process:
        process.request(
            "load",
            should_take=_LOADING,
            runtime=runtime,
            threads=threads,
            path=source.path and str(source.path),
            network=source.network,
            weights=source.weights and str(source.weights),
            num_classes=source.num_classes,
        )
        preprocessing = image.preprocessing and image.preprocessing.to_json()
        shape, dtype = image.shape, image.dtype
        process.request(
            "prepare", should_take=0, shape=shape, dtype=dtype, preprocessing=preprocessing, batch=batch, seed=seed
        )
        yield process
