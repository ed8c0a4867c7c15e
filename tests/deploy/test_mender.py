"""The update module, called as Mender calls it: a state, and the folder of the update."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rexport.deploy import _mender_module
from rexport.deploy.agent_file import AGENT_NAME
from rexport.deploy.mender import module_source, write_module
from rexport.deploy.remote import Cargo, Shipment
from rexport.deploy.signing import load_public_key
from tests.deploy._cargo import faulty_runtime

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deploy.conftest import Supplies


class _Mender:
    """A device with the module, and Mender's part in updates."""

    def __init__(self, folder: Path, supplies: Supplies) -> None:
        self.folder = folder
        self.root = folder / "rexport"
        self.module = folder / "made" / "rexport"
        cargo, key = Cargo.load(supplies.first), load_public_key(supplies.public)
        write_module(folder / "made", Shipment(cargo=cargo, key=key, root=str(self.root), python=sys.executable))
        self.root.mkdir()
        shutil.copy(folder / "made" / AGENT_NAME, self.root)
        self.agent("key", "add", str(folder / "made" / "trusted.pem"))

    def agent(self, *words: str) -> None:
        subprocess.run([sys.executable, self.root / AGENT_NAME, *words, "--root", self.root], check=True)

    def update(self, bundle: Path) -> Path:
        """Begin an update, and return its folder, whose payload has arrived."""
        tree = self.folder / f"tree-{bundle.stem}"
        (tree / "tmp").mkdir(parents=True)
        for state in ("SupportsRollback", "NeedsArtifactReboot", "Download"):
            assert self.call(state, tree).returncode == 0
        (tree / "files").mkdir()
        shutil.copy(bundle, tree / "files")
        return tree

    def call(self, state: str, tree: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.module, state, tree], cwd=tree, capture_output=True, text=True, env={**os.environ, **environment}
        )

    @property
    def active(self) -> str | None:
        link = self.root / "active"
        return link.readlink().name if link.is_symlink() else None


@pytest.mark.slow
def test_updates_in_mender_s_order(tmp_path: Path, supplies: Supplies) -> None:
    mender = _Mender(tmp_path, supplies)
    first, second = Cargo.load(supplies.first).manifest.id, Cargo.load(supplies.second).manifest.id
    assert mender.call("SupportsRollback", tmp_path).stdout == "Yes\n"
    assert mender.call("NeedsArtifactReboot", tmp_path).stdout == "No\n"

    tree = mender.update(supplies.first)
    assert mender.active is None  # nothing before ArtifactInstall
    for state in ("ArtifactInstall", "ArtifactCommit", "Cleanup"):
        done = mender.call(state, tree)
        assert done.returncode == 0, done.stderr
    assert mender.active == first

    # installing fails: the agent has gone back, and a rollback has nothing to do
    tree = mender.update(supplies.second)
    faulty = str(faulty_runtime(tmp_path))
    failed = mender.call("ArtifactInstall", tree, PYTHONPATH=faulty)
    assert failed.returncode == 1
    assert "self-check" in failed.stderr
    for state in ("ArtifactRollback", "ArtifactFailure", "Cleanup"):
        assert mender.call(state, tree).returncode == 0
        assert mender.active == first
    shutil.rmtree(tree)

    # it is installed, and another part of the artifact fails to commit
    tree = mender.update(supplies.second)
    for state in ("ArtifactInstall", "ArtifactVerifyReboot"):
        assert mender.call(state, tree).returncode == 0
    assert mender.active == second
    for _ in range(2):  # asked for twice, as after a restart, it goes back once
        assert mender.call("ArtifactRollback", tree).returncode == 0
        assert mender.active == first
    late = mender.call("ArtifactCommit", tree)
    assert late.returncode == 1
    assert f"{second} was installed, and {first} is active" in late.stderr


@pytest.mark.slow
def test_states_that_are_not_known_say_nothing(tmp_path: Path, supplies: Supplies) -> None:
    mender = _Mender(tmp_path, supplies)
    for state in ("ArtifactReboot", "ProvidePayloadFileSizes", "SupportsAugmentedArtifacts", "Tomorrow"):
        done = mender.call(state, tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_payloads_without_one_bundle_are_refused(tmp_path: Path, supplies: Supplies) -> None:
    mender = _Mender(tmp_path, supplies)
    tree = mender.update(supplies.first)
    shutil.copy(supplies.second, tree / "files")
    done = mender.call("ArtifactInstall", tree)
    assert (done.returncode, mender.active) == (1, None)
    assert "2 bundles" in done.stderr


def test_root_and_python_are_written_into_the_module() -> None:
    source = module_source(root="/opt/it's", python="python3.9")
    names: dict[str, str] = {"__name__": "module"}
    exec(compile(source, "rexport", "exec"), names)
    assert (names["ROOT"], names["PYTHON"], names["AGENT"]) == ("/opt/it's", "python3.9", AGENT_NAME)
    assert "noqa" not in source
    assert module_source(root=_mender_module.ROOT, python=_mender_module.PYTHON).startswith("#!/usr/bin/env python3\n")


def test_what_is_written(tmp_path: Path, supplies: Supplies) -> None:
    shipment = Shipment(cargo=Cargo.load(supplies.first), root="/var/lib/x", python="python3")
    written = write_module(tmp_path / "out", shipment)
    assert sorted(path.name for path in written) == [
        "README.md",
        "make-artifact.sh",
        "rexport",
        AGENT_NAME,
        "tiny-1.rxb",
    ]
    assert (tmp_path / "out" / "tiny-1.rxb").read_bytes() == supplies.first.read_bytes()
    assert os.access(tmp_path / "out" / "rexport", os.X_OK)
    script = tmp_path / "out" / "make-artifact.sh"
    without = subprocess.run(["sh", script], capture_output=True, text=True)
    assert without.returncode != 0
    assert "which device type?" in without.stderr
    (tmp_path / "mender-artifact").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "mender-artifact").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    said = subprocess.run(["sh", script, "pi 4"], capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert said.stdout.split("\n")[:9] == [
        *("write", "module-image", "--type", "rexport", "--device-type", "pi 4"),
        *("--artifact-name", "tiny-1", "--file"),
    ]
