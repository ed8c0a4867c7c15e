"""Keeping a process's replies apart from what libraries print."""

from __future__ import annotations

import os
import sys
from typing import TextIO

__all__ = ["claim_stdout"]


def claim_stdout() -> TextIO:
    """Return a stream to this process's stdout, and send whatever else is written there to stderr.

    It works on the file descriptors, so it also catches what C++ libraries print. The stream is not
    inherited by child processes: whoever reads it sees its end when this process ends.
    """
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return stream
