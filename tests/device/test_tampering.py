"""A changed byte anywhere in a bundle, or its end anywhere: refused before a parser or runtime sees it.

Some by default; with ``-m deep`` every byte and every end of an ``.rxb``, and many of a folder's.
"""

from __future__ import annotations

import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rexport.deploy.container import to_rxb
from tests._deep import deep
from tests.device._vendor import openssl_once, write
from tests.faults._tampering_worker import Watch, changed
from tests.faults.vendor import Vendor, Victim

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.deploy.container import Contents


@pytest.fixture
def contents(vendor: Vendor) -> Contents:
    """An honest bundle, of a version that the device does not have."""
    return vendor.bundle(9)


@pytest.fixture
def watch(tmp_path: Path, vendor: Vendor, contents: Contents, monkeypatch: pytest.MonkeyPatch) -> Watch:
    openssl_once(monkeypatch)  # thousands of these bundles are right up to there
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    return Watch(Victim.new(tmp_path, vendor, installed=1).device.root, contents.manifest)


@pytest.mark.slow
def test_what_is_not_refused_would_be_seen(watch: Watch, contents: Contents, tmp_path: Path) -> None:
    assert str(watch.problem_with(write(contents, tmp_path / "good.rxb"))).startswith("it ends with 0")


def test_what_is_parsed_would_be_seen(watch: Watch, contents: Contents, tmp_path: Path) -> None:
    wrong = write(replace(contents, files={**contents.files, "model.onnx": b"another"}), tmp_path / "wrong")
    assert str(Watch(watch.root, b"another manifest").problem_with(wrong)).startswith("it parses b'{")


@pytest.mark.parametrize("step", [23, *deep(1)])
def test_changed_bytes_and_truncations_of_an_rxb(watch: Watch, contents: Contents, tmp_path: Path, step: int) -> None:
    good, wrong = to_rxb(contents), tmp_path / "wrong.rxb"
    for case in range(0, 2 * len(good), step):
        wrong.write_bytes(changed(good, case))
        assert watch.problem_with(wrong) is None, case


@pytest.mark.parametrize(("step", "openssl_step"), [(61, 397), *deep((7, 131))])
def test_changed_bytes_and_truncations_of_a_folder(
    watch: Watch, contents: Contents, tmp_path: Path, step: int, openssl_step: int
) -> None:
    """No checksum stands before the signature here, so that each change of the manifest asks openssl anew."""
    folder = write(contents, tmp_path / "bundle")
    for name, data in contents.members():
        each = {"manifest.json": openssl_step, "manifest.sig": 9}.get(name, step)
        for position in range(0, len(data), each):
            for case in (position, len(data) + position):
                (folder / name).write_bytes(changed(data, case))
                assert watch.problem_with(folder) is None, (name, case)
        (folder / name).write_bytes(data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_in_another_order_twice_or_compressed(watch: Watch, contents: Contents, tmp_path: Path) -> None:
    members = list(contents.members())
    for order, compression in (
        (members, zipfile.ZIP_DEFLATED),
        (members[::-1], zipfile.ZIP_STORED),
        ([*members[:2], *members[:1:-1]], zipfile.ZIP_STORED),
        ([*members, members[-1]], zipfile.ZIP_STORED),
        ([*members, ("extra", b"")], zipfile.ZIP_STORED),
        (members[:-1], zipfile.ZIP_STORED),
    ):
        with zipfile.ZipFile(tmp_path / "wrong.rxb", "w", compression) as file:
            for name, data in order:
                member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                member.create_system, member.external_attr, member.compress_type = 3, 0o100644 << 16, compression
                file.writestr(member, data)
        assert watch.problem_with(tmp_path / "wrong.rxb") is None, order
