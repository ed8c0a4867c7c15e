"""Attacks on an agent that was made to let some in: they are counted, and the others still hold."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Any

import pytest

from rexport.device import _install
from rexport.device._errors import RefusedError
from rexport.device._manifest import parse_manifest
from tests.faults import attacks
from tests.faults.agent import everything_below

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.faults._part import Part

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the agent runs on Linux")


def _run(folder: Path, *only: str) -> Part:
    pytest.importorskip("cryptography", reason="signing takes it: pip install 'rexport[deploy]'")
    return attacks.run(folder, only=only, devices=("with one version",), done=lambda _: None)


def _first_key(keys: Sequence[Any], data: bytes, signature: bytes) -> Any:
    return keys[0]


def _changing(refuse: Callable[..., Any]) -> Callable[..., Any]:
    """Return what refuses as ``refuse`` does, and leaves a file behind, another one every time."""
    names = itertools.count()

    def changed(device: Any, *rest: Any) -> Any:
        (device.root / f"left{next(names)}").touch()
        return refuse(device, *rest)

    return changed


@pytest.mark.slow
def test_an_agent_that_takes_every_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_install, "verify", _first_key)
    part = _run(tmp_path, "arbitrary-software", "signed-garbage")
    assert not part.held
    assert "it ends with 0 instead of 3" in part.failures[0]
    assert part.detail["attacks"]["arbitrary-software"] != "refused: 4 of 4"
    assert part.detail["attacks"]["signed-garbage"] == "refused: 6 of 6"


@pytest.mark.slow
def test_an_agent_that_takes_any_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_install, "require_installable", lambda *given: None)
    part = _run(tmp_path, "rollback", "mix-and-match")
    assert part.detail["attacks"] == {"rollback": "refused: 0 of 2", "mix-and-match": "refused: 3 of 3"}
    assert all(
        failure.startswith("rollback, on a device with one version: it ends with 0") for failure in part.failures
    )


def test_an_agent_that_refuses_and_leaves_something_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_install, "require_installable", _changing(_install.require_installable))
    part = _run(tmp_path, "rollback")
    assert part.detail["attacks"] == {"rollback": "refused: 0 of 2"}
    assert [failure.rsplit(": ", 1)[-1] for failure in part.failures] == [
        f"it is refused, and left{number} on the device is another than before" for number in (2, 3)
    ]


def test_an_agent_that_refuses_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(data: bytes) -> Any:
        if b'"version": 4' in data:  # 3 is there
            raise RefusedError("No version 4.")
        return parse_manifest(data)

    monkeypatch.setattr(_install, "parse_manifest", parse)
    part = _run(tmp_path, "slow-retrieval")
    assert part.detail["attacks"] == {"slow-retrieval": "refused: 0 of 1"}
    assert "it is refused for another reason than 'Nothing more of the bundle'" in part.failures[0]
    assert part.failures[1].endswith("an honest bundle is refused: No version 4.")


def test_every_change_below_a_folder_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    seen = [everything_below(folder)]
    for change in (
        lambda: (folder / "a" / "b").mkdir(parents=True),
        lambda: (folder / "a" / "c").write_bytes(b"c"),
        lambda: (folder / "a" / "c").write_bytes(b"d"),
        lambda: (folder / "a" / "c").chmod(0o600),
        lambda: (folder / "link").symlink_to("a"),
        lambda: (folder / "link").rename(folder / "other"),
        lambda: (folder / "a" / "b").rmdir(),
    ):
        change()
        seen.append(everything_below(folder))
    assert all(before != after for before, after in itertools.pairwise(seen))
    assert "a/c" not in everything_below(folder, but=("a/c",))
