"""Evaluations: the same numbers whoever runs the images, what they are compared with, and where they differ."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rexport._errors import DataError, OutputError, UnavailableError, UsageError
from rexport.calibration import WholePictures
from rexport.calibration.workers import choose_workers
from rexport.imagenet import imagenet_classes
from rexport.jobs.evaluate import EvaluateRequest, run
from rexport.model_file import Metadata, load, save
from rexport.models import WeightsFacts, build, save_weights
from rexport.preprocessing import PictureOptions, Preprocessing
from tests._classifiers import COLOURS, write_classifiers, write_colours
from tests._graphs import convolution, graph


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifiers")
    write_classifiers(folder)
    return folder


def _request(folder: Path, model: str = "right.onnx", **changes: Any) -> EvaluateRequest:
    return EvaluateRequest(**({"model": str(folder / model), "data": folder / "test.npz"} | changes))


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "3", "ray,2"])
def test_workers_make_no_difference(folder: Path, workers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "ray" in workers:
        pytest.importorskip("ray", reason="needs Ray: pip install 'rexport[ray]'")
    monkeypatch.chdir(folder)  # workers understand relative paths
    request = EvaluateRequest(
        model="right.onnx", data=Path("test.npz"), reference=Path("wrong.onnx"), batch=8, threads=1
    )
    local = run(request).to_json()
    assert (local["images"], local["top1"] is None, local["sqnr_db"] is None) == (150, False, False)
    assert run(replace(request, workers=choose_workers(workers, threads=1))).to_json() == local


def test_a_file_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []

    def counting(path: Path) -> Any:
        reads.append(path)
        return load(path)

    for module in ("jobs.evaluate", "evaluation.described"):
        monkeypatch.setattr(f"rexport.{module}.load", counting)
    run(_request(folder, workers=choose_workers("1", threads=1)))
    assert reads == [folder / "right.onnx"]


def test_the_first_layer_that_differs_is_in_the_document(folder: Path) -> None:
    request = _request(folder, "wrong.onnx", reference=folder / "right.onnx", find_divergence=True)
    found = run(request).to_json()["divergence"]
    assert (found["first"]["node"], found["first"]["inputs"], found["arithmetic"]) == ("c", ["b"], "float32")
    assert [row["tensor"] for row in found["rows"] if not row["diverges"]]
    assert found["first"]["largest"] > found["first"]["peak"] > 1


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="pip install 'rexport[openvino]'")
def test_another_runtime_is_compared_with_the_file_itself(folder: Path) -> None:
    result = run(_request(folder, runtime="openvino", find_divergence=True))
    assert result.divergence is not None
    assert result.divergence.first is None
    assert (result.reference, result.to_json()["agreement"]) == (folder / "right.onnx", 1)
    alone = run(_request(folder, runtime="openvino")).to_json()
    assert (alone["top1"], "agreement" in alone) == (run(_request(folder)).evaluation.top1, False)


def test_a_file_for_another_runtime_is_run_as_it_says(folder: Path, tmp_path: Path) -> None:
    model = load(folder / "right.onnx")
    Metadata(quantization='{"target": "tensorrt"}').write_to(model)
    save(model, tmp_path / "m.onnx")
    notes: list[str] = []
    result = run(_request(tmp_path, "m.onnx", data=folder / "test.npz"), note=notes.append)
    assert result.runtime == "cpu-node-by-node"
    assert notes[-1].endswith("it runs on cpu-node-by-node here (choose with --on).")


def test_a_network_of_grey_pictures_is_evaluated_by_name(tmp_path: Path) -> None:
    for index in range(4):
        (tmp_path / f"data/{index}").mkdir(parents=True)
        Image.new("L", (16, 16), 60 * index).save(tmp_path / f"data/{index}/0.png")
    name = "tests.cli._own:grey"
    save_weights(build(name), tmp_path / "grey.safetensors", WeightsFacts(preprocessing=Preprocessing(size=16)))
    notes: list[str] = []
    request = EvaluateRequest(model=name, data=tmp_path / "data", weights=tmp_path / "grey.safetensors")
    assert run(request, note=notes.append).evaluation.images == 4
    assert "taking grey pictures of 16×16 as they are, mean 0 and std 1" in notes[0]


def test_with_scales_only_what_can_not_be_read_is_bad(tmp_path: Path) -> None:
    weights = {"w": convolution(6, 3)}
    body = "a = Conv<pads = [1, 1, 1, 1]>(x, w) p = GlobalAveragePool(a) y = Flatten(p)"
    model = graph(body, weights, inputs="float[N, 3, H, W] x", outputs="float[N, 6] y")
    save(model, tmp_path / "any.onnx")
    for index in range(12):
        (tmp_path / f"images/{index % 6}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 30), (index, 0, 0)).save(tmp_path / f"images/{index % 6}/{index}.png")
    (tmp_path / "images/1/1.png").write_text("no picture")
    request = _request(tmp_path, "any.onnx", data=tmp_path / "images", views=WholePictures((16,)))
    with pytest.raises(DataError, match="1 of 12 images can't be used"):
        run(request)
    notes: list[str] = []
    assert run(replace(request, skip_bad=True), note=notes.append).evaluation.images == 11
    assert "1.png: is not an image" in notes[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": Path("cifar_resnet8")}, "cifar_resnet8 does not exist"),
        ({"model": "cifar_resnet8"}, "pass --weights FILE"),
        ({"runtime": "abacus"}, "There is no runtime 'abacus'"),
        ({"runtime": "openvino", "workers": choose_workers("2")}, "leave it or --on openvino out"),
        ({"views": WholePictures((16,)), "options": PictureOptions(resize=9)}, "--resize means nothing with it"),
    ],
)
def test_what_makes_no_sense_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(replace(_request(folder), **changes))


@pytest.fixture
def colours(tmp_path: Path) -> EvaluateRequest:
    """A request on pictures of colours, one of which lies in the wrong folder, and one can't be read."""
    write_colours(tmp_path / "m.onnx")
    for name, colour in COLOURS.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (8, 8), colour).save(tmp_path / f"data/{name}/{index}.png")
    Image.new("RGB", (8, 8), COLOURS["red"]).save(tmp_path / "data/blue/wrong & <b>.png")
    (tmp_path / "data/blue/bad.png").write_text("no picture")
    return _request(tmp_path, "m.onnx", data=tmp_path / "data", skip_bad=True)


def test_a_report_shows_the_mistakes_and_changes_nothing_else(colours: EvaluateRequest, tmp_path: Path) -> None:
    pytest.importorskip("jinja2", reason="needs pip install 'rexport[report]'")
    for changes in ({}, {"worst": 1, "per_class": True, "reference": tmp_path / "m.onnx", "find_divergence": True}):
        request = replace(colours, **changes)
        result = run(replace(request, html=tmp_path / "r.html", command="rexport eval m.onnx"))
        assert result.to_json() == run(request).to_json()
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "m.onnx gets 12 of 13 images right" in text
    assert text.count("<img") == 1
    assert 'alt="blue, predicted as red"' in text
    assert "blue/wrong &amp; &lt;b&gt;.png</span>" in text
    assert "bad.png: is not an image" in text  # what was noted
    assert "pictures of 8×8 as they are" in text
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", text)
    assert "<code>rexport eval m.onnx</code>" in text
    assert "It agrees with the same file on cpu on 100.00 % of the images" in text


def test_a_reference_is_shown_pictures_as_it_states(colours: EvaluateRequest, tmp_path: Path) -> None:
    model = load(tmp_path / "m.onnx")
    stated = Metadata.of(model).preprocessing
    assert stated is not None
    # what it subtracts from red and adds to blue makes every picture blue
    Metadata(preprocessing=replace(stated, resize=10, mean=(2.0, 0.0, -2.0))).write_to(model)
    save(model, tmp_path / "blue.onnx")
    notes: list[str] = []
    request = replace(colours, reference=tmp_path / "blue.onnx")
    shown = run(request, note=notes.append).to_json()
    assert notes[0].endswith("state different preprocessing, so each is shown pictures as it states.")
    asked = run(replace(request, options=PictureOptions(mean=(0.0, 0.0, 0.0)))).to_json()
    assert shown["agreement"] < asked["agreement"] == 1


def test_a_report_that_can_not_be_written_is_refused_before_the_work(
    colours: EvaluateRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    with pytest.raises(OutputError, match="does not exist"):
        run(replace(colours, html=tmp_path / "no/r.html"), note=notes.append)
    with pytest.raises(UsageError, match="both to be read and to be written"):
        run(replace(colours, html=tmp_path / "m.onnx"), note=notes.append)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UnavailableError, match=r"pip install 'rexport\[report\]'"):
        run(replace(colours, html=tmp_path / "r.html"), note=notes.append)
    assert notes == []  # of the picture that can't be read
    assert not (tmp_path / "r.html").exists()


def _write_thousand(path: Path, classes: tuple[str, ...]) -> None:
    """Write a model of 1,000 outputs, of which red pictures get 0, green ones 217, and blue ones 491."""
    weights = np.zeros((3, 1000), np.float32)
    weights[[0, 1, 2], [0, 217, 491]] = 1
    body = "p = GlobalAveragePool(x) f = Flatten(p) y = Gemm(f, h)"
    model = graph(body, {"h": weights}, inputs="float[N, 3, 8, 8] x", outputs="float[N, 1000] y")
    preprocessing = Preprocessing(size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    Metadata(preprocessing=preprocessing, classes=classes).write_to(model)
    save(model, path)


def _write_pictures(folder: Path, names: dict[str, str]) -> None:
    for colour, name in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), COLOURS[colour]).save(path)


@pytest.mark.parametrize("classes", [(), imagenet_classes()])
def test_folders_named_by_wordnet_ids(classes: tuple[str, ...], tmp_path: Path) -> None:
    _write_thousand(tmp_path / "m.onnx", classes)
    _write_pictures(tmp_path / "val", {"red": "n01440764/1.png", "green": "n02102040/2.png", "blue": "n03000684/3.png"})
    notes: list[str] = []
    request = EvaluateRequest(model=str(tmp_path / "m.onnx"), data=tmp_path / "val", per_class=True)
    result = run(request, note=notes.append)
    assert result.evaluation.top1 == 1
    assert [note for note in notes if "are WordNet ids; ImageNet's 1,000 outputs" in note]
    rows = result.to_json()["classes"]
    assert [row["name"] for row in rows if row["images"]] == ["tench", "English springer", "chain saw"]


def test_wordnet_ids_and_other_classes(tmp_path: Path) -> None:
    _write_pictures(tmp_path / "val", {"red": "n01440764/1.png", "green": "n02102040/2.png"})
    _write_thousand(tmp_path / "m.onnx", tuple(f"class {i}" for i in range(1000)))
    with pytest.raises(DataError, match="so they can't be matched: the model knows no class 'n01440764'"):
        run(EvaluateRequest(model=str(tmp_path / "m.onnx"), data=tmp_path / "val"))
    _write_pictures(tmp_path / "val", {"blue": "n00000001/3.png"})
    _write_thousand(tmp_path / "m.onnx", imagenet_classes())
    with pytest.raises(DataError, match="so they can't be matched"):
        run(EvaluateRequest(model=str(tmp_path / "m.onnx"), data=tmp_path / "val"))


def test_a_flat_folder_with_labels(tmp_path: Path) -> None:
    _write_thousand(tmp_path / "m.onnx", ())
    _write_pictures(tmp_path / "val", {"red": "1.png", "green": "2.png", "blue": "3.png"})
    request = EvaluateRequest(model=str(tmp_path / "m.onnx"), data=tmp_path / "val")
    with pytest.raises(UsageError, match=r"have no labels .* no image_labels.csv beside them"):
        run(request)
    (tmp_path / "val" / "image_labels.csv").write_text("image,index\n1,0\n2,217\n3,492\n")
    assert run(request).evaluation.top1 == pytest.approx(2 / 3)
    (tmp_path / "val" / "image_labels.csv").write_text("image,label\n1,n01440764\n2,n02102040\n3,n03000684\n")
    assert run(request).evaluation.top1 == 1
