"""The errors that the agent raises on purpose, and the exit code of each: those of the ``rexport`` command.

AgentError               1  something else failed
├── UsageError           2  the arguments make no sense
├── RefusedError         3  signature, hash, version, expiry: the bundle is not to be trusted
├── UnusableError        5  this bundle, or the agent, can't run on this device
└── InstallError         6  an install or a switch failed; what was active still is
"""

from __future__ import annotations

__all__ = ["AgentError", "InstallError", "RefusedError", "UnusableError", "UsageError"]


class AgentError(Exception):
    """Base class of all errors that the agent raises on purpose."""

    exit_code = 1


class UsageError(AgentError):
    """The command line makes no sense."""

    exit_code = 2


class RefusedError(AgentError):
    """The bundle is not what a trusted key signed, or not to be installed any more."""

    exit_code = 3


class UnusableError(AgentError):
    """The bundle is for other devices, or something that is needed is missing on this one."""

    exit_code = 5


class InstallError(AgentError):
    """The bundle was not installed, and what was active before still is."""

    exit_code = 6
