from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from rexport._errors import DataError
from rexport.calibration import labels_file
from rexport.calibration.labels_file import PictureLabels, read_labels
from rexport.imagenet import ilsvrc2012_synsets

if TYPE_CHECKING:
    from pathlib import Path

_CHALLENGE = "ILSVRC2012_validation_ground_truth.txt"


def _labels(folder: Path, name: str, text: str, *pictures: str) -> PictureLabels | None:
    (folder / name).write_text(text, encoding="utf-8")
    return read_labels(folder, [folder / picture for picture in pictures])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("image_labels.csv", "image,label\na.png,dog\nb.png,cat\n"),
        ("image_labels.csv", "\ufeffimage,label\r\na, dog\r\n\r\nb.png ,cat\r\nc.png,owl\r\n"),
        ("image_labels.tsv", "image\tlabel\na.png\tdog\nb\tcat\n"),
    ],
)
def test_names_of_classes(name: str, text: str, tmp_path: Path) -> None:
    assert _labels(tmp_path, name, text, "a.png", "b.png") == PictureLabels((1, 0), ("cat", "dog"))


def test_numbers_of_outputs(tmp_path: Path) -> None:
    text = "image,index\na.png,17\nb.png,0\n"
    assert _labels(tmp_path, "image_labels.csv", text, "a.png", "b.png") == PictureLabels((17, 0), None)


def test_kaggles_file(tmp_path: Path) -> None:
    text = "ImageId,PredictionString\nb,n02 1 2 3 4 n02 5 6 7 8 \na,n01 1 2 3 4 \n"
    labels = _labels(tmp_path, "LOC_val_solution.csv", text, "a.JPEG", "b.JPEG")
    assert labels == PictureLabels((0, 1), ("n01", "n02"))


def test_the_challenges_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = ("ILSVRC2012_val_00000002.JPEG", "ILSVRC2012_val_00000001.JPEG")
    numbers = ["1", "1000"]
    with pytest.raises(DataError, match="is not the challenge's file of 50,000 numbers"):
        _labels(tmp_path, _CHALLENGE, "1\n1000\n", *pictures)
    digest = hashlib.sha256("\n".join(numbers).encode()).hexdigest()
    monkeypatch.setattr(labels_file, "_CHALLENGE_SHA256", digest)
    labels = _labels(tmp_path, _CHALLENGE, "1\n1000\n", *pictures)
    assert labels is not None
    assert labels.classes is not None
    synsets = ilsvrc2012_synsets()
    assert [labels.classes[label] for label in labels.labels] == [synsets[999], synsets[0]]
    with pytest.raises(DataError, match="is none of the 50,000 pictures"):
        _labels(tmp_path, _CHALLENGE, "1\n1000\n", "cat.JPEG")


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("image_labels.csv", "", r"The first line of .* must be image,label or image,index\."),
        ("image_labels.csv", "a.png,dog\n", "The first line"),
        ("image_labels.tsv", "image,label\na.png,dog\n", "must be image<tab>label or"),
        ("LOC_val_solution.csv", "image,label\na,dog\n", "must be ImageId,PredictionString"),
        ("image_labels.csv", "image,label\na.png\n", "Row 2 of .* is not a picture's name and its label"),
        ("image_labels.csv", "image,label\nb.png,dog\n", "has no label for a.png"),
        ("image_labels.csv", "image,label\na.png,dog\na.png,cat\n", "two labels for a.png: dog and cat"),
        ("image_labels.csv", "image,label\na.png,7\n", "numbers, and the column label is for names; call it index"),
        ("image_labels.csv", "image,index\na.png,-1\n", "has the index '-1'"),
    ],
)
def test_what_may_be_misread_is_refused(name: str, text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=why):
        _labels(tmp_path, name, text, "a.png")


def test_one_file_of_labels(tmp_path: Path) -> None:
    assert read_labels(tmp_path, [tmp_path / "a.png"]) is None
    (tmp_path / "image_labels.tsv").write_text("image\tlabel\na.png\tdog\n")
    with pytest.raises(DataError, match=r"has image_labels.csv and image_labels.tsv; keep one"):
        _labels(tmp_path, "image_labels.csv", "image,label\na.png,dog\n", "a.png")
    (tmp_path / "image_labels.csv").unlink()
    (tmp_path / "image_labels.tsv").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_labels(tmp_path, [tmp_path / "a.png"])
