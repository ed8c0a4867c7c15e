"""The names of the scenarios; this module loads nothing else, as the command line does."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Scenario"]


class Scenario(StrEnum):
    """How a model is asked."""

    SINGLE_STREAM = "single-stream"
    OFFLINE = "offline"
    SERVER = "server"
