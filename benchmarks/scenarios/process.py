"""The other end of a system under test: a process with the model loaded and images ready."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from rexport import _errors
from rexport._child import Child, ChildError
from rexport._errors import RexportError
from rexport.benchmarks.affinity import choose_cores, sibling_groups, usable_cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rexport.benchmarks.jobs import Job

__all__ = ["SutProcess", "opened"]

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
def opened(job: Job) -> Iterator[SutProcess]:
    """Yield a process with a job's model loaded and images ready, and end it after the block.

    What goes wrong in the process is raised here as the error of :mod:`rexport._errors` that it was there.
    """
    cores = choose_cores(job.threads, sibling_groups(usable_cores()))
    try:
        with SutProcess(cores=cores) as process:
            process.request("load", should_take=_LOADING, **job.loading())
            process.request("prepare", should_take=0, seed=0, **job.images())
            yield process
    except ChildError as error:
        if error.kind in _errors.__all__:
            raise getattr(_errors, error.kind)(str(error)) from error
        raise RexportError(f"{job.source} failed on {job.runtime}: {error}") from error
