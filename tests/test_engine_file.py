"""Engine files that are damaged, cut off, another's, or none; none of them is loaded."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rexport._errors import EngineFileError, UnavailableError
from rexport.engine_file import (
    BackendName,
    EngineFacts,
    Installed,
    facts_path,
    read_facts,
    read_header,
    read_intact,
    require_loadable,
)
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
        backend=BackendName.RTX,
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
    read_intact(path, facts)


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    path = _engine(tmp_path)
    facts, whole = _facts(path), path.read_bytes()
    for index in range(0, len(whole), 97):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with pytest.raises(EngineFileError, match=r"copy it again, or build it again from m\.onnx"):
            read_intact(path, facts)


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
    [("{", "is not JSON"), ("[]", "does not describe"), ('{"schema": "rexport.engine/1"}', "missing required field")],
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


def test_fields_that_came_later_may_be_missing(tmp_path: Path) -> None:
    path = _engine(tmp_path)
    facts = _facts(path)
    later = ("version_compatible", "hardware_compatible", "metadata", "stripped")
    facts_path(path).write_text(json.dumps({k: v for k, v in facts.to_json().items() if k not in later}))
    assert read_facts(path) == facts


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backend", "abacus"),
        ("version", 1.7),
        ("version", "newest"),
        ("capabilities", "86"),
        ("batch", [1, 2]),
        ("batch", [4, 2, 1]),
        ("inputs", []),
        ("inputs", [{"name": "images"}]),
        ("outputs", [{"name": "logits", "dtype": "float", "shape": "1x10"}]),
        ("layers", [1]),
        ("layers", [{"name": "conv1"}]),
        ("seconds", {"a": 1.5}),
        ("sha256", "abc"),
        ("metadata", {"rexport.classes": 3}),
        ("stripped", None),
        ("device", 86),
    ],
)
def test_a_garbled_field_is_named(tmp_path: Path, name: str, value: object) -> None:
    path = _engine(tmp_path)
    facts_path(path).write_text(json.dumps({**_facts(path).to_json(), name: value}))
    with pytest.raises(EngineFileError, match=rf"json: {name}\b"):
        read_facts(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_found_wherever_it_is(tmp_path: Path, number: float) -> None:
    path = _engine(tmp_path)
    document = _facts(path).to_json()
    document["layers"][0]["seconds"] = number
    facts_path(path).write_text(json.dumps(document))
    with pytest.raises(EngineFileError, match="is not JSON"):
        read_facts(path)


def test_the_bytes_that_were_hashed_are_returned(tmp_path: Path) -> None:
    path = _engine(tmp_path)
    assert read_intact(path, _facts(path)) == path.read_bytes()
    with pytest.raises(EngineFileError, match=r"of version 1\.7\.1\.116 by its header, and of 1\.6\.0\.1 by m\.engine"):
        read_intact(path, replace(_facts(path), version="1.6.0.1"))


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EngineFileError, match=r"gone\.engine can't be read: No such file"):
        read_facts(tmp_path / "gone.engine")


_HERE = Installed(backend="rtx", version="1.7.1.116", device="a GPU", capability=86)


def test_what_fits_is_loadable(tmp_path: Path) -> None:
    path = _engine(tmp_path)
    facts = _facts(path)
    for loadable, here in (
        (facts, _HERE),
        (facts, replace(_HERE, capability=89)),
        (replace(facts, capabilities=()), replace(_HERE, capability=61)),  # an older file, which does not say
        (replace(facts, hardware_compatible=True), replace(_HERE, capability=120)),
        (replace(facts, version_compatible=True), replace(_HERE, version="1.8.0.1", lean=facts.version)),
    ):
        require_loadable(path, loadable, here)


@pytest.mark.parametrize(
    ("facts", "here", "words"),
    [
        ({}, {"version": None}, r"which is not installed; type `pip install 'tensorrt-rtx==1\.7\.1\.116'`"),
        (
            {},
            {"version": "1.8.0.1"},
            r"by TensorRT for RTX 1\.7\.1\.116, and this device has 1\.8\.0\.1: run `rexport .*` again here\.$",
        ),
        ({"command": ""}, {"version": "1.8.0.1"}, r"build it again from m\.onnx here\.$"),
        ({"version_compatible": True}, {"version": "1.8.0.1"}, r"or install its lean runtime, `pip install"),
        ({"version_compatible": True}, {"version": "1.8.0.1", "lean": "1.8.0.1"}, r"this device has 1\.8\.0\.1"),
        (
            {},
            {"capability": None, "why_no_device": "The NVIDIA driver sees no GPU."},
            r"needs an NVIDIA GPU\. The NVIDIA driver sees no GPU\. To use it: install the NVIDIA driver",
        ),
        (
            {},
            {"capability": 75},
            r"for GPUs of compute capability 86, 89, and a GPU has 75: build it again with `--sm 75`",
        ),
        (
            {"backend": "tensorrt"},
            {"capability": 75},
            r"and a GPU has 75: run `rexport engine m\.onnx -o m\.engine` again",
        ),
        ({"hardware_compatible": True}, {"capability": 75}, "and a GPU has 75"),
        ({"stripped": True}, {}, r"without its weights; fill them in with `rexport engine m\.onnx --refit"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_type(
    tmp_path: Path, facts: dict[str, Any], here: dict[str, Any], words: str
) -> None:
    path = _engine(tmp_path)
    with pytest.raises(UnavailableError, match=words):
        require_loadable(path, replace(_facts(path), **facts), replace(_HERE, **here))
