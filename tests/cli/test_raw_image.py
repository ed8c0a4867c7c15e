"""Files that take pixels or whole pictures, through every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.cli._run import invoke, run, run_json

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("images")

_ONCE = "--min-seconds 0 --min-calls 1 --launches 1"


def preprocessing_of(path: str) -> dict:
    props = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    return json.loads(props["rexport.preprocessing"])


@pytest.mark.slow
def test_pixels_go_through_every_command() -> None:
    document = run_json("onnx cifar_resnet8 -o raw.onnx --raw-image --mean 0.4,0.5,0.6 --std 0.2,0.3,0.4")
    assert document["inputs"] == [{"name": "images", "dtype": "uint8", "shape": ["batch", 32, 32, 3]}]
    assert document["outputs"] == [{"name": "logits", "dtype": "float32", "shape": ["batch", 10]}]
    assert document["parity"]["levels"] is None
    stated = preprocessing_of("raw.onnx")
    assert (stated["layout"], stated["dtype"], stated["in_graph"]) == ("NHWC", "uint8", ["normalise"])
    assert stated["mean"] == [0.4, 0.5, 0.6]
    assert run_json("fuse raw.onnx -o fused.onnx")["difference"] < 1e-6
    int8 = run_json("quantize fused.onnx --data images -o int8.onnx")
    assert {layer["precision"] for layer in int8["layers"]} == {"int8"}
    assert "QuantizeLinear" not in int8["executed"]
    assert not int8["executed"].keys() & {"Conv", "FusedConv"}
    assert preprocessing_of("int8.onnx") == stated
    compared = run_json("eval int8.onnx --data images --reference raw.onnx")
    assert compared["sqnr_db"] > 20
    rows = run_json(f"bench raw.onnx int8.onnx --on cpu,torch --batch 2 {_ONCE}")["rows"]
    assert [(row["model"], row["runtime"], row["status"]) for row in rows] == [
        ("raw.onnx", "cpu", "ok"),
        ("raw.onnx", "torch", "ok"),
        ("int8.onnx", "cpu", "ok"),
        ("int8.onnx", "torch", "unavailable"),
    ]
    np.save("pixels.npy", np.stack([np.asarray(Image.open(path)) for path in sorted(Path("images").iterdir())]))
    from_array = run_json("eval int8.onnx --data pixels.npy --reference raw.onnx")
    assert from_array == {**compared}


@pytest.mark.slow
def test_a_file_becomes_one_of_pixels_and_is_compared_with_what_it_was() -> None:
    run("onnx cifar_resnet8 -o plain.onnx --no-fuse --mean 0.4,0.5,0.6 --std 0.2,0.3,0.4")
    fused = run_json("fuse plain.onnx -o raw.onnx --raw-image")
    assert 0 < fused["difference"] < 2e-6
    assert preprocessing_of("raw.onnx") == preprocessing_of("plain.onnx") | {
        "layout": "NHWC",
        "dtype": "uint8",
        "in_graph": ["normalise"],
    }
    for model, reference in (("raw.onnx", "plain.onnx"), ("plain.onnx", "raw.onnx")):
        compared = run_json(f"eval {model} --data images --reference {reference}")
        assert compared["agreement"] == 1
        assert compared["sqnr_db"] > 100
    run("fuse plain.onnx -o other.onnx --raw-image --mean 0,0,0 --std 1,1,1 --no-verify")
    assert preprocessing_of("other.onnx")["mean"] == [0, 0, 0]
    compared = run_json("eval other.onnx --data images --reference raw.onnx")
    assert compared["sqnr_db"] < 60


@pytest.mark.slow
def test_pixels_of_any_size_are_evaluated_at_several_scales(export: Callable[..., object]) -> None:
    run("onnx cifar_resnet8 -o any.onnx --any-size --raw-image")
    export("plain.onnx", "--any-size")
    for views in ("--scales 32,48", "--crops 10 --resize 40"):
        compared = run_json(f"eval any.onnx --data images --reference plain.onnx {views}")
        assert (compared["agreement"], compared["scores"]) == (1, "probabilities")
        assert compared["sqnr_db"] > 90


@pytest.mark.slow
def test_whole_pictures_go_through_every_command() -> None:
    random = np.random.default_rng(1)
    for index, (width, height) in enumerate([(60, 44), (37, 80), (50, 50)]):
        picture = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((width, height))
        picture.save(f"images/large{index}.png")
    document = run_json("onnx cifar_resnet8 -o whole.onnx --resize-in-graph --resize 37")
    assert document["inputs"] == [{"name": "images", "dtype": "uint8", "shape": ["batch", "height", "width", 3]}]
    assert document["parity"]["levels"] in (1, 2)
    assert "pixels differ from Pillow's by at most" in run(
        "onnx tests.cli._own:seven --input-size 8 -o small.onnx --resize-in-graph --resize 9"
    )
    assert preprocessing_of("whole.onnx")["in_graph"] == ["resize", "crop", "normalise"]
    assert run_json("fuse whole.onnx -o fused.onnx")["difference"] < 1e-6
    int8 = run_json("quantize fused.onnx --data images -o int8.onnx")
    assert int8["images"] == 9
    assert "QuantizeLinear" not in int8["executed"]
    run("onnx cifar_resnet8 -o plain.onnx --resize 37")
    for model, reference in (("whole.onnx", "plain.onnx"), ("plain.onnx", "whole.onnx")):
        compared = run_json(f"eval {model} --data images --reference {reference}")
        assert (compared["images"], compared["agreement"]) == (9, 1)
        assert compared["sqnr_db"] > 40  # of pixels that differ by a level of gray here and there
    assert run_json("eval int8.onnx --data images --reference plain.onnx")["sqnr_db"] > 20
    (row,) = run_json(f"bench int8.onnx --batch 1 {_ONCE}")["rows"]
    assert row["status"] == "ok"


@pytest.mark.slow
def test_a_file_of_others_that_takes_pixels_says_what_is_assumed() -> None:
    run("onnx cifar_resnet8 -o raw.onnx --raw-image")
    model = onnx.load("raw.onnx")
    del model.metadata_props[:]
    onnx.save(model, "bare.onnx")
    result = invoke("eval", "bare.onnx", "--data", "images", "--reference", "raw.onnx", "--json")
    assert json.loads(result.stdout)["sqnr_db"] is None  # equal to the last bit
    note = " ".join(result.stderr.split())
    assert "bare.onnx does not say how pictures become its input; taking pictures of 32×32 as they are (see" in note


@pytest.fixture
def resnet20(export: Callable[..., object], images: Path, data_dir: Path) -> Path:
    """The pictures to test ResNet-20 on, whose trained weights are in the files plain.onnx and raw.onnx."""
    for name, option in (("plain", ""), ("raw", " --raw-image")):
        weights = data_dir / "weights" / "cifar_resnet20.th"
        export(f"{name}.onnx", f"--weights {weights}{option}", network="cifar_resnet20")
    return data_dir / "cifar10" / "test"


@pytest.mark.slow
def test_real_weights_predict_the_same(resnet20: Path) -> None:
    compared = run_json(f"eval raw.onnx --data {resnet20} --reference plain.onnx")
    assert (compared["images"], round(846 * compared["top1"])) == (846, 776)  # as published with the weights
    assert compared["agreement"] == 1
    assert compared["sqnr_db"] > 110  # measured: 130


@pytest.mark.deep
def test_integers_of_real_weights_predict_nearly_the_same(resnet20: Path, data_dir: Path) -> None:
    run(f"quantize raw.onnx --data {data_dir}/cifar10/calibration -o int8.onnx")
    int8 = run_json(f"eval int8.onnx --data {resnet20} --reference plain.onnx")
    assert round(846 * int8["top1"]) >= 773  # measured: 778; normalised images give 777
    assert int8["agreement"] >= 0.98
    assert int8["sqnr_db"] > 28  # measured: 30.8; normalised images give 30.4
