"""The agent that runs on a device: it verifies, checks and activates bundles, and rolls back automatically.

It is copied there as one file, so it needs nothing but Python 3.8's standard library and the ``openssl`` command, and
imports nothing else of rexport. NumPy and the runtime are imported in a process of their own, which may fail.
"""

from __future__ import annotations

__all__ = ["AGENT_VERSION"]

AGENT_VERSION = "1.0"
