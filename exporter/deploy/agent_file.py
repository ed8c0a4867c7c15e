"""The agent as one file, ``rexport-agent.pyz``: what ``python3`` on a device runs, always the same bytes.

A zip of :mod:`rexport.device`'s sources with a line before it, as Python's ``zipapp`` makes them, but stored, sorted
and dated alike: so a device's agent is known by its hash.
"""

from __future__ import annotations

import io
import zipfile
from importlib.resources import files

__all__ = ["AGENT_NAME", "agent_bytes"]

AGENT_NAME = "rexport-agent.pyz"
_PACKAGE = "rexport_agent"
_INTERPRETER = b"#!/usr/bin/env python3\n"
_MAIN = f"import sys\n\nfrom {_PACKAGE}.command_line import main\n\nsys.exit(main())\n"


def agent_bytes() -> bytes:
    """Return the agent's file.

    Returns:
        The same bytes for the same sources, on every machine.
    """
    sources = {
        f"{_PACKAGE}/{file.name}": file.read_text(encoding="utf-8")
        for file in files("rexport.device").iterdir()
        if file.name.endswith(".py") and file.name != "__main__.py"
    }
    buffer = io.BytesIO()
    buffer.write(_INTERPRETER)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        for name, text in sorted({"__main__.py": _MAIN, **sources}.items()):
            member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            member.create_system = 3  # Unix, wherever this runs
            member.external_attr = 0o100644 << 16
            archive.writestr(member, text.encode())
    return buffer.getvalue()
