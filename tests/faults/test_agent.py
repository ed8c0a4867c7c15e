"""What the harness takes for a whole version, on roots that are made by hand and then broken."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from tests.faults.agent import Done, active_version, complaint, fault_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root whose version 2 is active."""
    content = b"0123456789"
    files = {"model.onnx": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
    manifest = json.dumps({"name": "small", "version": 2, "files": files}).encode()
    version = tmp_path / "versions" / f"small-2-{hashlib.sha256(manifest).hexdigest()[:12]}"
    version.mkdir(parents=True)
    (version / "manifest.json").write_bytes(manifest)
    (version / "model.onnx").write_bytes(content)
    (tmp_path / "active").symlink_to(version.relative_to(tmp_path))
    return tmp_path


def test_a_whole_version(root: Path) -> None:
    assert active_version(root) == 2
    assert fault_in(root, allowed=(1, 2)) is None
    assert fault_in(root, allowed=(1, 3)) == "version 2 is active instead of 1 or 3"


def test_no_version(tmp_path: Path) -> None:
    assert active_version(tmp_path) is None
    assert fault_in(tmp_path, allowed=(None,)) is None


@pytest.mark.parametrize(
    "break_it",
    [
        lambda version: (version / "model.onnx").write_bytes(b""),
        lambda version: (version / "model.onnx").write_bytes(b"0123456780"),
        lambda version: (version / "model.onnx").unlink(),
        lambda version: (version / "manifest.json").unlink(),
        lambda version: (version / "manifest.json").write_bytes((version / "manifest.json").read_bytes() + b"\n"),
        lambda version: version.rename(version.with_name("gone")),
    ],
    ids=["empty", "another byte", "a file gone", "manifest gone", "another manifest", "dangling"],
)
def test_a_broken_version_is_seen(root: Path, break_it: Callable[[Path], object]) -> None:
    break_it((root / "active").resolve())
    found = fault_in(root, allowed=(2,))
    assert found is not None
    assert found.startswith("active points to versions/small-2-")


def test_what_an_agent_may_not_end_with() -> None:
    assert complaint(Done(code=6, stdout="{}", stderr="rexport-agent: no room.")) is None
    assert complaint(Done(code=-11, stdout="", stderr="")) == "it ended with -11"
    traceback = "Traceback (most recent call last):\n  ...\nKeyError: 'x'\n"
    assert complaint(Done(code=1, stdout="", stderr=traceback)) == "it ended in a traceback: KeyError: 'x'"
    assert complaint(Done(code=0, stdout="", stderr="")) == "it printed no JSON document but ''"
