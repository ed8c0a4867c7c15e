"""What is said of a bundle, and what is not believed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from rexport._errors import BundleError, DamagedBundleError, InputError, UsageError, VerificationError
from rexport.deploy import container
from rexport.deploy.signing import load_public_key, new_key_pair
from rexport.inspection import inspect_file
from rexport.preprocessing import Preprocessing
from tests.deploy._bundles import fixed_key, made, maps, saved

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.deploy.bundle import MadeBundle


@pytest.fixture
def bundle(tmp_path: Path) -> MadeBundle:
    bundle = made(tmp_path, openssf=True, expires=datetime(2999, 1, 1, tzinfo=UTC))
    container.write(bundle.contents, tmp_path / "b.rxb")
    container.write(bundle.contents, tmp_path / "b")
    (tmp_path / "k.pub.pem").write_bytes(fixed_key(tmp_path).public_pem())
    return bundle


@pytest.mark.parametrize(("name", "form"), [("b.rxb", "rxb"), ("b", "folder")])
def test_both_forms(bundle: MadeBundle, tmp_path: Path, name: str, form: str) -> None:
    report = inspect_file(tmp_path / name, public_key=tmp_path / "k.pub.pem")
    assert report.kind == "bundle"
    facts = dict(report.facts)
    fingerprint = load_public_key(tmp_path / "k.pub.pem").fingerprint()
    assert facts["signature"] == f"verified, by the key {fingerprint}"
    assert facts["expires"] == "2999-01-01 00:00 UTC"
    assert facts["for"] == "linux on aarch64, x86_64"
    assert facts["runs on"] == "onnxruntime >=1.17"
    assert facts["takes"] == "normalised images, 8×8"
    assert facts["gives"] == "logits"
    assert facts["check"] == "scores within 30 dB, the same largest score"
    document = json.loads(json.dumps(dict(report.document)))
    assert document["form"] == form
    assert document["manifest"] == json.loads(bundle.contents.manifest)
    assert (document["signed_by"], document["model_signature"], document["expired"]) == (fingerprint, True, False)
    assert [row[0] for row in report.tables[0].rows] == sorted(bundle.manifest.files)


def test_maps_of_pictures_that_are_not_square(tmp_path: Path) -> None:
    preprocessing = Preprocessing(size=(8, 8), resize=(8, 16))
    bundle = made(tmp_path, saved(tmp_path, maps()), preprocessing=preprocessing)
    container.write(bundle.contents, tmp_path / "b.rxb")
    facts = dict(inspect_file(tmp_path / "b.rxb").facts)
    assert facts["takes"] == "normalised images, 8×8 of pictures resized to 8×16"
    assert facts["gives"] == "outputs that are no scores of classes"
    assert facts["check"] == "each output within 30 dB"


def test_without_a_key_it_says_so(bundle: MadeBundle, tmp_path: Path) -> None:
    report = inspect_file(tmp_path / "b.rxb")
    assert dict(report.facts)["signature"] == "not verified: name the key with --public-key"
    assert report.document["signed_by"] is None


def test_an_rxb_of_another_name_is_recognised(bundle: MadeBundle, tmp_path: Path) -> None:
    assert inspect_file((tmp_path / "b.rxb").rename(tmp_path / "b.zip")).kind == "bundle"


def test_another_key_and_changed_files(bundle: MadeBundle, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="not by the key"):
        inspect_file(tmp_path / "b.rxb", public_key=new_key_pair(tmp_path / "other.pem"))
    (tmp_path / "b" / "classes.json").write_text("[]")
    with pytest.raises(VerificationError, match=r"classes\.json is not the file|of other files"):
        inspect_file(tmp_path / "b")
    (tmp_path / "b" / "manifest.json").write_text("{}")
    with pytest.raises(VerificationError, match="or what it signed was changed"):
        inspect_file(tmp_path / "b", public_key=tmp_path / "k.pub.pem")
    with pytest.raises(BundleError, match="is not of schema"):
        inspect_file(tmp_path / "b")


def test_what_is_no_bundle(bundle: MadeBundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only bundles are signed"):
        inspect_file(tmp_path / "m.onnx", public_key=tmp_path / "k.pub.pem")
    with pytest.raises(InputError, match="is a folder, and not that of a bundle"):
        inspect_file(tmp_path)
    with pytest.raises(InputError, match=r"none of what can be inspected: deployment settings, .*, a bundle"):
        inspect_file(tmp_path / "k.pub.pem")
    (tmp_path / "cut.rxb").write_bytes((tmp_path / "b.rxb").read_bytes()[:-1])
    with pytest.raises(DamagedBundleError, match="is damaged, or not a bundle"):
        inspect_file(tmp_path / "cut.rxb")
