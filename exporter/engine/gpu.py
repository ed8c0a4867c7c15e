"""The GPU that is here, as far as a build needs it: a machine without one is no error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rexport._errors import UnavailableError
from rexport.runtimes._cuda import find_gpu

if TYPE_CHECKING:
    from rexport.runtimes._cuda import Gpu

__all__ = ["facts_of_gpu", "this_gpu"]


def this_gpu() -> Gpu | None:
    """Return the first GPU that CUDA sees; ``None`` if there is no driver, or it sees none."""
    try:
        return find_gpu()
    except UnavailableError:
        return None


def facts_of_gpu() -> dict[str, Any]:
    """Return the facts about the GPU that a worker built on; empty where there is none."""
    gpu = this_gpu()
    if gpu is None:
        return {}
    return {"device": gpu.name, "cuda": gpu.cuda, "capabilities": [gpu.capability]}
