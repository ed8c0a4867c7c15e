"""Writing the agent's file, for devices that are set up by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from rexport._apart import WRITE
from rexport._files import write_bytes
from rexport.deploy.agent_file import AGENT_NAME, agent_bytes

__all__ = ["DeviceAgentRequest", "DeviceAgentResult", "run"]


@dataclass(frozen=True, kw_only=True)
class DeviceAgentRequest:
    """Where the agent's file goes."""

    output: Path = field(default=Path(AGENT_NAME), metadata=WRITE)


@dataclass(frozen=True, kw_only=True)
class DeviceAgentResult:
    """The file that was written, its size in bytes, and its SHA-256 in hex."""

    file: Path
    size: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return the document ``rexport.devices-agent/1``."""
        schema = {"schema": "rexport.devices-agent/1"}
        return {**schema, "file": str(self.file), "bytes": self.size, "sha256": self.sha256}


def run(request: DeviceAgentRequest) -> DeviceAgentResult:
    """Write the agent's file.

    Raises:
        OutputError: It can't be written.
    """
    data = agent_bytes()
    write_bytes(request.output, data)
    return DeviceAgentResult(file=request.output, size=len(data), sha256=sha256(data).hexdigest())
