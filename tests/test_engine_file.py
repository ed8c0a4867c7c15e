"""Engine files that are damaged, cut off, another's, or none; none of them is loaded."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import TYPE_CHECKING

import pytest

from rexport._errors import EngineFileError
from rexport.engine_file import EngineFacts, facts_path, read_facts, read_header, require_intact
from rexport.inspection import inspect_file

if TYPE_CHECKING:
    from pathlib import Path


def _engine(folder: Path, *, bits: int = 0b1100) -> Path:
    """Write a file with the header that TensorRT for RTX 1.7 writes, and noise behind it."""
    body = bytes(range(256)) * 4
    head = b"vtrt" + bytes(4) + struct.pack("<QQ4B4sI", 2, 64 + len(body), 1, 7, 1, 116, b"vtrt", bits)
    path = folder / "m.engine"
    path.write_bytes(head.ljust(64, b"\0") + body)
    return path


def _facts(path: Path) -> EngineFacts:
    return EngineFacts(
        backend="rtx",
        version="1.7.1.116",
        capabilities=(86, 89),
        device=None,
        cuda=None,
        batch=(1, 1, 1),
        inputs=({"name": "images", "dtype": "float", "shape": [1, 3, 8, 8]},),
        outputs=({"name": "logits", "dtype": "float", "shape": [1, 10]},),
        layers=({"name": "conv1", "op_type": "Conv", "precision": "int8"},),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        bytes=path.stat().st_size,
        onnx="m.onnx",
        onnx_sha256="0" * 64,
        repairs=(),
        warnings=(),
        seconds=1.5,
        command="rexport engine m.onnx -o m.engine",
        rexport="0.1.0",
    )


def test_the_header_says_what_it_is(tmp_path: Path) -> None:
    header = read_header(_engine(tmp_path))
    assert (header.version, header.size, header.capabilities) == ("1.7.1.116", 64 + 1024, (86, 89))


def test_what_lies_beside_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = _engine(tmp_path)
    facts = _facts(path)
    facts_path(path).write_text(json.dumps(facts.to_json()))
    assert read_facts(path) == facts
    require_intact(path, facts)


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    path = _engine(tmp_path)
    facts, whole = _facts(path), path.read_bytes()
    for index in range(0, len(whole), 97):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with pytest.raises(EngineFileError, match=r"copy it again, or build it again from m\.onnx"):
            require_intact(path, facts)


@pytest.mark.parametrize("length", [0, 3, 63, 64, 500, 1087])
def test_what_was_cut_off_is_refused(tmp_path: Path, length: int) -> None:
    path = _engine(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(EngineFileError, match=r"no engine of a known format|was cut off"):
        read_header(path)


def test_a_text_file_called_engine_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.engine"
    path.write_text("This is no engine, however long it is. " * 10)
    for read in (read_header, inspect_file):
        with pytest.raises(EngineFileError, match="is no engine of a known format"):
            read(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "is not JSON"), ("[]", "does not describe"), ('{"schema": "rexport.engine/1"}', "does not describe")],
)
def test_a_broken_file_beside_it(tmp_path: Path, text: str, words: str) -> None:
    path = _engine(tmp_path)
    facts_path(path).write_text(text)
    with pytest.raises(EngineFileError, match=words):
        read_facts(path)


def test_inspecting_compares_both(tmp_path: Path) -> None:
    path = _engine(tmp_path)
    assert dict(inspect_file(path).facts)["made by"].startswith("unknown")
    facts_path(path).write_text(json.dumps(_facts(path).to_json()))
    report = inspect_file(path)
    assert report.kind == "engine"
    assert report.tables[0].rows == (("conv1", "Conv", "int8"),)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(EngineFileError, match=r"is not the file that m\.engine\.json describes"):
        inspect_file(path)
