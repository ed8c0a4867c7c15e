"""Bundles from Python: what is made, what it is called, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rexport._errors import OutputError, UsageError
from rexport.deploy import container
from rexport.deploy.signing import load_public_key, new_key_pair
from rexport.jobs.bundle import BundleRequest, run
from rexport.model_file import Metadata, save
from rexport.preprocessing import PictureOptions
from tests.deploy._bundles import classifier, saved


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model and a key pair."""
    monkeypatch.chdir(tmp_path)
    saved(tmp_path)
    new_key_pair(Path("k.pem"))
    return tmp_path


def test_keys_a_bundle_and_a_repository_in_one_go(folder: Path) -> None:
    request = BundleRequest(model=Path("m.onnx"), new_key=Path("n.pem"), version=3, output=Path("b"), triton=Path("t"))
    result = run(request)
    assert (result.keys, result.file, result.triton) == ((Path("n.pem"), Path("n.pub.pem")), Path("b"), Path("t/m"))
    contents = container.read(Path("b"))
    load_public_key(Path("n.pub.pem")).verify(contents.manifest, contents.signature)
    assert result.bundle is not None
    document = result.to_json()
    assert document["manifest"]["version"] == 3
    assert document["manifest_sha256"] == result.bundle.manifest.sha256
    assert json.loads(json.dumps(document))["keys"] == {"private": "n.pem", "public": "n.pub.pem"}


@pytest.mark.parametrize(("file", "name"), [("Größeres Netz (v2).onnx", "gr-eres-netz-v2"), ("m" * 70, "m" * 64)])
def test_a_bundle_is_called_as_its_model_as_far_as_that_goes(file: str, name: str) -> None:
    assert BundleRequest(model=Path(file), key=Path("k.pem"), version=1).bundle_name == name
    with pytest.raises(UsageError, match="pass one with --name"):
        BundleRequest(model=Path("模型.onnx"), key=Path("k.pem"), version=1)


def test_a_model_that_does_not_say_what_it_takes() -> None:
    model, said = classifier(), list[str]()
    Metadata().write_to(model)
    save(model, Path("other.onnx"))
    request = BundleRequest(model=Path("other.onnx"), key=Path("k.pem"), version=1)
    result = run(request, note=said.append)
    assert result.file == Path("other-1.rxb")
    assert "does not say how pictures become its input" in said[0]
    pictures = PictureOptions(mean=(0, 0, 0), std=(1, 1, 1), size=8)
    run(BundleRequest(model=Path("other.onnx"), key=Path("k.pem"), version=2, pictures=pictures), note=said.append)
    assert len(said) == 1


def test_a_repository_of_others_is_left_alone_and_no_key_made(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "t" / "m").mkdir(parents=True)
    (folder / "t" / "m" / "mine").touch()
    with pytest.raises(OutputError, match="is not empty; name another folder"):
        run(BundleRequest(model=Path("m.onnx"), new_key=Path("n.pem"), version=1, triton=Path("t")))
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
