"""Engine files: what their header and the file beside them say, without loading them.

An engine is executable code of one version of TensorRT for certain GPUs. Loading one that is none, or another's, may
crash the process. So beside ``model.engine`` lies ``model.engine.json``, which says what it is, and whoever loads it
asks :func:`require_intact` and :func:`require_loadable` first. A hash finds damage, not malice: that takes a signature.

The header of TensorRT for RTX, as observed in version 1.7 (offsets in bytes, little-endian): ``vtrt`` at 0, the size
of the file at 16 (u64), four bytes of the version at 24, the compute capabilities as bits at 32 (u32).
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from rexport._errors import EngineFileError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EngineFacts", "EngineHeader", "facts_path", "read_facts", "read_header", "require_intact"]

SCHEMA = "rexport.engine/1"
_MAGIC = b"vtrt"
_HEADER_BYTES = 64
_BITS = {1: 75, 2: 80, 4: 86, 8: 89, 0x10: 120, 0x20: 121}


@dataclass(frozen=True, kw_only=True)
class EngineHeader:
    """The first bytes of an engine file.

    Attributes:
        version: Of TensorRT, four numbers.
        size: Of the whole file in bytes, as it says.
        capabilities: The GPUs' compute capabilities times ten, as far as the bits are known.
    """

    version: str
    size: int
    capabilities: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What the file beside an engine says of it.

    Attributes:
        backend: ``tensorrt`` or ``rtx``.
        version: Of TensorRT, exactly.
        capabilities: The compute capabilities that it was built for; empty for those of ``device``.
        device: The GPU that it was built on; ``None`` where none was needed.
        cuda: The version of CUDA; ``None`` where none was needed.
        batch: The least, best and most images at a time.
        inputs: Name, dtype and shape of each, ``-1`` for an open batch.
        outputs: Likewise.
        layers: Each layer that multiplies: its name, its operator, and the ``precision`` that it came out in; ``float``
            where the file does not quantize it.
        sha256: Of the engine.
        bytes: Its size.
        onnx: The name of the ONNX file that it was built from.
        onnx_sha256: Of that file.
        repairs: What was changed in it for TensorRT's rules.
        warnings: The builder's.
        seconds: That the build took.
        command: That built it.
        rexport: The version of rexport.
    """

    backend: str
    version: str
    capabilities: tuple[int, ...]
    device: str | None
    cuda: str | None
    batch: tuple[int, int, int]
    inputs: tuple[dict[str, Any], ...]
    outputs: tuple[dict[str, Any], ...]
    layers: tuple[dict[str, Any], ...]
    sha256: str
    bytes: int
    onnx: str
    onnx_sha256: str
    repairs: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: float
    command: str
    rexport: str

    def to_json(self) -> dict[str, Any]:
        """Return the document of schema ``rexport.engine/1``."""
        return {"schema": SCHEMA, **asdict(self)}


def facts_path(engine: Path) -> Path:
    """Return the path of the file beside an engine."""
    return engine.with_name(engine.name + ".json")


def read_facts(engine: Path) -> EngineFacts:
    """Read the file beside an engine.

    Raises:
        EngineFileError: There is none, or it can't be read.
    """
    path = facts_path(engine)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EngineFileError(
            f"There is no {path} beside the engine, so that nothing is known of it; build it with `rexport engine`."
        ) from error
    except ValueError as error:
        raise EngineFileError(f"{path} is not JSON ({error}); build the engine again.") from error
    names = {field.name for field in fields(EngineFacts)}
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or not names <= set(document):
        raise EngineFileError(f"{path} does not describe an engine in schema {SCHEMA}; build the engine again.")
    stated: dict[str, Any] = {
        key: tuple(one) if isinstance(one, list) else one for key, one in document.items() if key in names
    }
    return EngineFacts(**stated)


def read_header(engine: Path) -> EngineHeader:
    """Read the header of an engine file.

    Raises:
        EngineFileError: It is no engine of a known format, or shorter or longer than it says.
    """
    try:
        with engine.open("rb") as file:
            head = file.read(_HEADER_BYTES)
        size = engine.stat().st_size
    except OSError as error:
        raise EngineFileError(f"{engine} can't be read: {error.strerror}.") from error
    if len(head) < _HEADER_BYTES or not head.startswith(_MAGIC):
        raise EngineFileError(f"{engine} is no engine of a known format: its first bytes are {head[:8]!r}.")
    stated, version = struct.unpack_from("<Q4B", head, 16)[0], struct.unpack_from("4B", head, 24)
    (bits,) = struct.unpack_from("<I", head, 32)
    if stated != size:
        cut = "was cut off" if size < stated else "has something behind its end"
        raise EngineFileError(f"{engine} {cut}: it has {size:,} bytes and says {stated:,}; copy or build it again.")
    return EngineHeader(
        version=".".join(map(str, version)),
        size=stated,
        capabilities=tuple(capability for bit, capability in _BITS.items() if bits & bit),
    )


def require_intact(engine: Path, facts: EngineFacts) -> None:
    """Do nothing if an engine file is the one that ``facts`` describe, to the byte.

    Raises:
        EngineFileError: It can't be read, or is another.
    """
    try:
        found = hashlib.sha256(engine.read_bytes()).hexdigest()
    except OSError as error:
        raise EngineFileError(f"{engine} can't be read: {error.strerror}.") from error
    if found != facts.sha256:
        raise EngineFileError(
            f"{engine} is not the file that {facts_path(engine).name} describes (sha256 {found[:12]}…, not "
            f"{facts.sha256[:12]}…); copy it again, or build it again from {facts.onnx}."
        )
