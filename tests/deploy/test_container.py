"""The same files are the same bytes, any zip tool reads them, and nothing but them is read."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexport._errors import BundleError, DamagedBundleError, OutputError, RexportError, UsageError, VerificationError
from rexport.deploy import container
from rexport.deploy.bundle import sign_files
from rexport.deploy.container import Contents
from rexport.deploy.manifest import from_bytes
from tests.deploy._bundles import FILES, fixed_key, manifest
from tests.faults._tampering_worker import changed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    return sign_files(manifest(), FILES, fixed_key(tmp_path))


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(files=st.dictionaries(st.from_regex(r"[a-z]{1,3}(/[a-z]{4,6})?", fullmatch=True), st.binary(max_size=64)))
def test_any_files_are_read_back(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    names = set(files)
    files = {name: data for name, data in files.items() if not any(n.startswith(f"{name}/") for n in names)}
    folder = tmp_path_factory.mktemp("bundle")
    written = Contents(manifest=b"{}", signature=b"s", files=files)
    (folder / "b.rxb").write_bytes(container.to_rxb(written))
    assert container.read(folder / "b.rxb") == written
    container.write(written, folder / "b")
    assert container.read(folder / "b") == written


def test_zip_tools_read_it(contents: Contents, tmp_path: Path) -> None:
    container.write(contents, tmp_path / "b.rxb")
    with zipfile.ZipFile(tmp_path / "b.rxb") as archive:
        assert archive.testzip() is None
        names = [info.filename for info in archive.infolist()]
        assert {name: archive.read(name) for name in names} == dict(contents.members())
        assert names == ["manifest.json", "manifest.sig", "golden/input.npy", "golden/logits.npy", "model.onnx"]
        for info in archive.infolist():
            assert (info.compress_type, info.date_time) == (0, (1980, 1, 1, 0, 0, 0))
            assert info.extra == info.comment == b""
            assert (info.external_attr >> 16, info.flag_bits, info.create_system) == (0o100644, 0, 3)


def test_pythons_own_zip_is_the_same_to_the_byte(contents: Contents, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_STORED) as archive:
        for name, data in contents.members():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, data)
    assert (tmp_path / "p.zip").read_bytes() == container.to_rxb(contents)


def _why_refused(path: Path) -> str | None:
    """Return why a reader turns a bundle down, by its form, its signature or its hashes; ``None`` if it does not."""
    try:
        found = container.read(path)
        fixed_key(path.parent).public().verify(found.manifest, found.signature)
        found.require_files(from_bytes(found.manifest))
    except RexportError as error:
        return type(error).__name__
    return None


def test_flipped_bytes_and_cuts_are_found(contents: Contents, tmp_path: Path) -> None:
    path = tmp_path / "b.rxb"
    data = container.to_rxb(contents)
    path.write_bytes(data)
    assert _why_refused(path) is None
    for case in range(0, 2 * len(data), 3):
        path.write_bytes(changed(data, case))
        # the sums in the container, before any key is asked
        refusals = ["DamagedBundleError"]
        if not container.is_rxb(path.read_bytes()):  # it may be another file
            refusals.append("BundleError")
        assert _why_refused(path) in refusals, case
    path.write_bytes(data + b"\0")
    assert _why_refused(path) == "DamagedBundleError"
    assert DamagedBundleError.exit_code == 3


@pytest.mark.parametrize("name", ["model.onnx", "golden/input.npy", "manifest.json", "manifest.sig"])
def test_a_changed_file_in_a_folder_is_found(contents: Contents, tmp_path: Path, name: str) -> None:
    container.write(contents, tmp_path / "b")
    assert _why_refused(tmp_path / "b") is None
    file = tmp_path / "b" / name
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert _why_refused(tmp_path / "b") == "VerificationError"
    file.unlink()
    assert _why_refused(tmp_path / "b") is not None


def test_a_file_too_many(contents: Contents, tmp_path: Path) -> None:
    container.write(contents, tmp_path / "b")
    (tmp_path / "b" / "more").write_bytes(b"")
    with pytest.raises(VerificationError, match="has the unstated file more"):
        container.read(tmp_path / "b").require_files(from_bytes(contents.manifest))


def test_what_is_no_bundle(contents: Contents, tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none", "No such file"), (tmp_path, "has no manifest.json")):
        with pytest.raises(BundleError, match=words):
            container.read(path)
    (tmp_path / "text.rxb").write_text("text")
    with pytest.raises(BundleError, match="make one with `rexport bundle`"):
        container.read(tmp_path / "text.rxb")
    container.write(contents, tmp_path / "b")
    (tmp_path / "b" / "link").symlink_to("model.onnx")
    with pytest.raises(BundleError, match="link in it is a link or a device"):
        container.read(tmp_path / "b")
    (tmp_path / "b" / "link").unlink()
    (tmp_path / "b" / "manifest.sig").write_bytes(b"\0" * 1025)
    with pytest.raises(BundleError, match=r"manifest\.sig is larger than a device takes"):
        container.read(tmp_path / "b")


def test_what_is_there_stays(contents: Contents, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "mine").write_text("mine")
    with pytest.raises(OutputError, match="is not empty; name another folder"):
        container.write(contents, folder)
    assert [path.name for path in folder.iterdir()] == ["mine"]
    with pytest.raises(OutputError, match="is a file; name a folder"):
        container.write(contents, folder / "mine")
    with pytest.raises(OutputError, match="does not exist"):
        container.write(contents, tmp_path / "none" / "b")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is a link"):
        container.write(contents, tmp_path / "link")
    (folder / "mine").unlink()
    container.write(contents, folder)  # empty now
    assert container.read(folder) == contents
    assert not list(tmp_path.glob(".*"))


def test_files_for_other_tools_are_never_written_over_what_they_were_made_of(tmp_path: Path) -> None:
    bundle = tmp_path / "out" / "files" / "m-1.rxb"
    bundle.parent.mkdir(parents=True)
    bundle.write_bytes(b"bundle")
    files = {"first": (b"", 0o644), "files/m-1.rxb": (b"another form", 0o644)}
    with pytest.raises(UsageError, match=r"m-1\.rxb is both to be read and to be written"):
        container.write_files(tmp_path / "out", files, inputs=[bundle])
    assert bundle.read_bytes() == b"bundle"
    assert not (tmp_path / "out" / "first").exists()
    written = container.write_files(tmp_path / "new", files, inputs=[bundle])
    assert [path.relative_to(tmp_path / "new").as_posix() for path in written] == list(files)
