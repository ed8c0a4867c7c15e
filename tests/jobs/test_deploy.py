"""Deploying from Python: what another tool gets, and which devices count as failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rexport._errors import DeviceError, UsageError
from rexport.deploy.inventory import Device, DeviceSelection
from rexport.deploy.remote import Cargo
from rexport.deploy.rollout import Outcome, Result, Step
from rexport.jobs.deploy import DeployRequest, DeployResult, run
from tests.deploy._cargo import new_keys, write_bundle

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    private, _ = new_keys(folder)
    return write_bundle(folder / "tiny-1.rxb", key=private, version=1)


@pytest.mark.parametrize("tool", ["ansible", "mender"])
def test_files_for_other_tools(bundle: Path, tmp_path: Path, tool: str) -> None:
    folder = tmp_path / "out"
    request = DeployRequest(bundle=bundle, devices=DeviceSelection(root="/opt/rexport"), **{tool: folder})
    result = run(request)
    document = result.to_json()
    assert document["schema"] == "rexport.deploy-files/1"
    assert sorted(document["files"]) == sorted(str(path) for path in folder.rglob("*") if path.is_file())
    assert any("/opt/rexport" in path.read_text(errors="replace") for path in folder.rglob("*.*"))
    result.require_success()


def test_a_folder_for_another_tool_is_checked_like_a_device(bundle: Path, tmp_path: Path) -> None:
    for name in ("ansible", "mender"):
        request = DeployRequest(bundle=bundle, devices=DeviceSelection(root="here"), **{name: tmp_path / "out"})
        with pytest.raises(UsageError, match="--root is 'here'"):
            run(request)
    with pytest.raises(UsageError, match="pass one of them"):
        DeployRequest(bundle=bundle, ansible=tmp_path, mender=tmp_path)
    assert not (tmp_path / "out").exists()


def test_failures_are_counted_and_the_first_is_explained(bundle: Path) -> None:
    one, two, three = (Device(host=name) for name in ("one", "two", "three"))
    installed = Result(device=one, outcome=Outcome.INSTALLED)
    failed = Result(device=two, outcome=Outcome.FAILED, step=Step.INSTALL, reason="The disk is full.")
    left = Result(device=three, outcome=Outcome.NOT_STARTED)
    cargo = Cargo.load(bundle)

    def result(*results: Result, dry_run: bool = False) -> DeployResult:
        request = DeployRequest(bundle=bundle, dry_run=dry_run)
        return DeployResult(request=request, bundle=cargo, devices=results)

    result(installed).require_success()
    with pytest.raises(DeviceError) as caught:
        result(installed, failed, left).require_success()
    assert str(caught.value) == (
        "Installing failed on 1 of 3 devices; 1 not started. two, installing: The disk is full."
    )
    with pytest.raises(DeviceError, match=r"^Checking failed on 0 of 2 devices; 1 not started\.$"):
        result(installed, left, dry_run=True).require_success()
    assert result(installed, failed).to_json()["counts"] == {"installed": 1, "failed": 1}
