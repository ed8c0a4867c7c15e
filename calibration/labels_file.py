"""The labels of pictures that lie together in one folder, from a file among them.

    image_labels.csv, image_labels.tsv           columns image,label: names of classes, or WordNet ids
                                                 columns image,index: numbers of outputs, from 0
    LOC_val_solution.csv                         Kaggle's, columns ImageId,PredictionString
    ILSVRC2012_validation_ground_truth.txt       the challenge's, an ILSVRC2012_ID for each of 50,000 pictures

The last is known by its content: other files under this name count from 0, or in the order of other classes.
"""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport._errors import DataError
from rexport.imagenet import ilsvrc2012_synsets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["PictureLabels", "read_labels"]

_OWN = ("image_labels.csv", "image_labels.tsv")
_KAGGLE, _CHALLENGE = "LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt"
_CHALLENGE_PICTURE = re.compile(r"ILSVRC2012_val_(\d{8})")
# of the challenge's numbers, with a line feed between them
_CHALLENGE_SHA256 = "323ca84ec5546dccc4dd11dbd2b3fc0094818728b5613f6089bd2f1428a04eaf"
_LARGEST = 256 * 2**20  # bytes


@dataclass(frozen=True)
class PictureLabels:
    """A label for each picture: the index of one of ``classes``, or the number of an output if these are ``None``."""

    labels: tuple[int, ...]
    classes: tuple[str, ...] | None


def read_labels(folder: Path, pictures: Sequence[Path]) -> PictureLabels | None:
    """Read the file of labels in a folder of pictures.

    Returns:
        ``None`` if there is none.

    Raises:
        DataError: There are several, it can't be read, or a picture has no label or two different ones.
    """
    files = [path for name in (*_OWN, _KAGGLE, _CHALLENGE) if (path := folder / name).is_file()]
    if not files:
        return None
    if len(files) > 1:
        raise DataError(f"{folder} has {' and '.join(path.name for path in files)}; keep one of these files of labels.")
    (path,) = files
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} is larger than the 256 MiB of labels that are read.")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text.") from error
    if path.name == _CHALLENGE:
        return _named(_of_challenge(path, text.split(), pictures))
    column, values = _column(path, text)
    stated = [_of_picture(picture, values, path) for picture in pictures]
    if column == "index":
        return PictureLabels(tuple(_number(value, path) for value in stated), None)
    if all(value.isdecimal() for value in stated):
        raise DataError(
            f"The labels in {path} are numbers, and the column {column} is for names; call it index if they "
            "are the model's outputs, counted from 0."
        )
    return _named(stated)


def _named(names: Sequence[str]) -> PictureLabels:
    classes = tuple(sorted(set(names)))
    places = {name: place for place, name in enumerate(classes)}
    return PictureLabels(tuple(places[name] for name in names), classes)


def _column(path: Path, text: str) -> tuple[str, dict[str, str]]:
    """Return the name of the second column, and its values by those of the first, names of pictures."""
    delimiter = "\t" if path.suffix == ".tsv" else ","
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
    header = tuple(rows[0]) if rows else ()
    headers = [("ImageId", "PredictionString")] if path.name == _KAGGLE else [("image", "label"), ("image", "index")]
    if header not in headers:
        expected = " or ".join(delimiter.join(names).replace("\t", "<tab>") for names in headers)
        raise DataError(f"The first line of {path} must be {expected}.")
    values: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header) or not all(row):
            raise DataError(f"Row {number} of {path} is not a picture's name and its {header[1]}.")
        image, value = row
        if path.name == _KAGGLE:
            value = value.split()[0]  # the class of the first box, and all boxes of a picture have one class
        if values.setdefault(image, value) != value:
            raise DataError(f"{path} has two labels for {image}: {values[image]} and {value}.")
    return header[1], values


def _of_picture(picture: Path, values: dict[str, str], path: Path) -> str:
    value = values.get(picture.name, values.get(picture.stem))
    if value is None:
        raise DataError(f"{path} has no label for {picture.name}; add it, or move the picture elsewhere.")
    return value


def _number(value: str, path: Path) -> int:
    if not value.isdecimal():
        raise DataError(f"{path} has the index {value!r}; an index is the number of an output, from 0.")
    return int(value)


def _of_challenge(path: Path, numbers: Sequence[str], pictures: Sequence[Path]) -> list[str]:
    """Return the WordNet ids of pictures, from the challenge's numbers of all 50,000."""
    if hashlib.sha256("\n".join(numbers).encode()).hexdigest() != _CHALLENGE_SHA256:
        raise DataError(
            f"{path} is not the challenge's file of 50,000 numbers, so its numbers can't be matched to "
            "classes; write image_labels.csv with the columns image,label, or image,index."
        )
    synsets, names = ilsvrc2012_synsets(), []
    for picture in pictures:
        match = _CHALLENGE_PICTURE.fullmatch(picture.stem)
        if match is None or not 1 <= int(match[1]) <= len(numbers):
            raise DataError(f"{picture} is none of the 50,000 pictures that {path.name} has labels for.")
        names.append(synsets[int(numbers[int(match[1]) - 1]) - 1])
    return names
