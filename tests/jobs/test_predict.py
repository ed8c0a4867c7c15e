"""Predictions: a model that sees a picture's average colour names it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from rexport._errors import DataError, MissingFileError, OutputError, UsageError
from rexport.jobs.predict import PredictRequest, run
from rexport.model_file import save
from rexport.preprocessing import PictureOptions
from tests._classifiers import COLOURS, write_colours
from tests._graphs import graph

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model of three colours, and a picture of each, larger than what the model takes."""
    write_colours(tmp_path / "m.onnx", resize=8)
    (tmp_path / "pictures").mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (20, 12), colour).save(tmp_path / "pictures" / f"{name}.png")
    return tmp_path


def _request(folder: Path, *names: str, **changes: Any) -> PredictRequest:
    pictures = tuple(folder / "pictures" / name for name in names)
    return PredictRequest(model=str(folder / "m.onnx"), pictures=pictures, **changes)


def test_each_picture_has_its_class_with_its_probability(folder: Path) -> None:
    result = run(_request(folder, "blue.png", "red.png", top=2))
    assert [prediction.picture.name for prediction in result.predictions] == ["blue.png", "red.png"]
    best, second = result.predictions[0].guesses
    assert (best.name, best.index, second.index) == ("blue", 2, 0)  # of two equal ones, the first
    assert best.probability == pytest.approx(math.e / (math.e + 2))  # softmax of logits 0, 0, 1
    document = result.to_json()
    assert (document["schema"], document["runtime"]) == ("rexport.predict/1", "cpu")
    assert document["predictions"][1]["top"][0] == {
        "class": "red",
        "index": 0,
        "probability": pytest.approx(math.e / (math.e + 2)),
    }


def test_a_folder_stands_for_its_pictures_and_classes_without_names_for_themselves(folder: Path) -> None:
    request = _request(folder, "", options=PictureOptions(resize=8))
    assert [best.guesses[0].label for best in run(request).predictions] == ["blue", "green", "red"]  # by file name
    bare = graph("p = GlobalAveragePool(x) y = Flatten(p)", {}, inputs="float[N, 3, 8, 8] x", outputs="float[N, 3] y")
    save(bare, folder / "m.onnx")
    assert [best.guesses[0].label for best in run(request).predictions] == ["2", "1", "0"]


def test_what_can_not_be_read_is_named_or_skipped(folder: Path) -> None:
    (folder / "pictures" / "odd.png").write_text("no picture")
    with pytest.raises(DataError, match=r"1 of 2 images can't be used:\n.*odd\.png"):
        run(_request(folder, "odd.png", "red.png"))
    notes: list[str] = []
    result = run(_request(folder, "odd.png", "red.png", skip_bad=True), note=notes.append)
    assert [prediction.guesses[0].name for prediction in result.predictions] == ["red"]
    assert "odd.png" in notes[-1]
    with pytest.raises(MissingFileError, match=r"gone\.png does not exist"):
        run(_request(folder, "gone.png"))
    with pytest.raises(UsageError, match="no pictures"):
        _request(folder)


def test_the_sheet_shows_the_pictures(folder: Path) -> None:
    sheet = folder / "sheet.png"
    run(_request(folder, "red.png", "green.png", sheet=sheet))
    with Image.open(sheet) as image:
        assert [image.getpixel((x, 100)) for x in (100, 304)] == [COLOURS["red"], COLOURS["green"]]
        below = image.crop((0, 206, *image.size)).convert("L")
        assert below.getextrema()[0] < 100  # there is text
    with pytest.raises(OutputError, match=r"must end in \.png or \.jpg"):
        run(_request(folder, "red.png", sheet=folder / "sheet.txt"))
    with pytest.raises(UsageError, match="both to be read and to be written"):
        run(_request(folder, "red.png", sheet=folder / "pictures" / "red.png"))
