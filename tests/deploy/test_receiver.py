"""Taking a file on a device: whole or not at all, and on from where it ended."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rexport.deploy._receiver as receiver
from rexport.deploy.agent_file import AGENT_NAME

_SOURCE = Path(receiver.__file__).read_text()
_DATA = bytes(range(256)) * 4096  # a MiB
_SHA256 = hashlib.sha256(_DATA).hexdigest()


def _run(*words: object, stdin: bytes = b"") -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-I", "-c", _SOURCE, *map(str, words)], input=stdin, capture_output=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (1 if "error" in answer else 0), done.stderr
    return answer


def test_an_interrupted_file_is_continued(tmp_path: Path) -> None:
    root = tmp_path / "new" / "root"
    name = f"incoming/{_SHA256}.rxb"
    cut = _run("receive", root, name, _SHA256, 0, len(_DATA), stdin=_DATA[:300_000])
    assert cut == {"received": 300_000, "done": False}
    assert not (root / name).exists()
    seen = _run("probe", root, _SHA256)
    assert (seen["received"], seen["whole"], seen["agent"]) == (300_000, False, None)
    rest = _run("receive", root, name, _SHA256, 300_000, len(_DATA), stdin=_DATA[300_000:])
    assert rest == {"received": len(_DATA), "done": True}
    assert (root / name).read_bytes() == _DATA
    assert os.listdir(root / "incoming") == [f"{_SHA256}.rxb"]  # noqa: PTH208
    assert _run("probe", root, _SHA256)["whole"] is True
    assert _run("discard", root, f"{_SHA256}.rxb", "never-there") == {"done": True}
    assert not (root / name).exists()


def test_other_bytes_are_not_kept(tmp_path: Path) -> None:
    (tmp_path / "agent").write_text("before")
    wrong = _DATA[:-1] + b"x"
    assert _run("receive", tmp_path, "agent", _SHA256, 0, len(_DATA), stdin=wrong) == {"received": 0, "done": False}
    assert (tmp_path / "agent").read_text() == "before"
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_sender_that_believes_more_to_be_there_is_told(tmp_path: Path) -> None:
    answer = _run("receive", tmp_path, "x", _SHA256, 500, len(_DATA), stdin=_DATA[500:])
    assert answer == {"received": 0, "done": False}


def test_a_link_in_the_place_of_a_part_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "incoming" / f"{_SHA256}.part").symlink_to(tmp_path / "victim")
    assert _run("receive", tmp_path, "x", _SHA256, 0, 4, stdin=b"harm")["errno"] == "ELOOP"
    assert (tmp_path / "victim").read_text() == "precious"


def test_parts_that_were_given_up_go(tmp_path: Path) -> None:
    old, new = tmp_path / "incoming" / "old.part", tmp_path / "incoming" / "new.part"
    old.parent.mkdir()
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    _run("receive", tmp_path, "x", _SHA256, 0, len(_DATA), stdin=_DATA)
    assert (old.exists(), new.exists()) == (False, True)


def test_the_probe_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / AGENT_NAME).write_bytes(_DATA)
    before = sorted(tmp_path.rglob("*"))
    assert _run("probe", tmp_path, "none")["agent"] == _SHA256
    absent = _run("probe", tmp_path / "a" / "b", "none")
    assert (absent["agent"], absent["writable"]) == (None, True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_root_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert _run("receive", tmp_path / "file", "x", _SHA256, 0, 1, stdin=b"x")["errno"] in ("ENOTDIR", "EEXIST")


@pytest.mark.parametrize("name", ["_receiver.py", "_mender_module.py"])
def test_what_runs_on_devices_is_python_3_8(name: str) -> None:
    tree = ast.parse((Path(receiver.__file__).parent / name).read_text(), feature_version=(3, 8))
    imported = {
        alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    } | {node.module.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert imported <= sys.stdlib_module_names
