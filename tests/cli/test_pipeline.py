"""The commands one after the other, as an engineer with a ResNet runs them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import onnx
import pytest
import torch

from rexport.models import build
from tests._deep import deep
from tests.cli._run import run_json

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_shared_resnet20_on_its_images(data_dir: Path) -> None:
    weights, test = data_dir / "weights" / "cifar_resnet20.th", data_dir / "cifar10" / "test"

    exported = run_json(f"onnx cifar_resnet20 --weights {weights} --no-fuse -o a.onnx")
    assert exported["parity"]["batches"] == [1, 2, 5]
    assert 0 < exported["parity"]["difference"] <= exported["parity"]["tolerance"]

    fused = run_json("fuse a.onnx -o b.onnx")
    changed = {report["name"]: report["changed"] for report in fused["passes"]}
    assert changed["FuseConvBatchNorm"] == 19
    assert changed["SubsampleToConv"] == 2
    assert fused["nodes"] < fused["nodes_before"]

    quantized = run_json(f"quantize b.onnx --data {data_dir}/cifar10/calibration --samples 64 -o c.onnx")
    assert quantized["images"] == 64
    assert quantized["executed"]["QLinearConv"] == 21
    assert {layer["precision"] for layer in quantized["layers"]} == {"int8"}

    in_torch = run_json(f"eval cifar_resnet20 --weights {weights} --data {test}")
    in_float = run_json(f"eval b.onnx --data {test}")
    assert (in_torch["images"], round(846 * in_torch["top1"])) == (846, 776)  # as published with the weights
    assert round(846 * in_float["top1"]) == 776
    in_int8 = run_json(f"eval c.onnx --data {test} --reference b.onnx")
    assert in_int8["top1"] >= in_float["top1"] - 0.005
    assert in_int8["agreement"] >= 0.98
    assert in_int8["sqnr_db"] > 20

    measured = run_json("bench b.onnx c.onnx --batch 1,8 --min-seconds 0.1 --launches 1")
    assert [(row["model"], row["batch"], row["status"]) for row in measured["rows"]] == [
        ("b.onnx", 1, "ok"),
        ("c.onnx", 1, "ok"),
        ("b.onnx", 8, "ok"),
        ("c.onnx", 8, "ok"),
    ]
    assert Path("c.onnx").stat().st_size < 0.4 * Path("b.onnx").stat().st_size


@pytest.mark.parametrize(
    ("network", "convolutions", "recovery", "joined"),
    [
        ("resnet[depth=14,block=bottleneck,stem_width=8,input_size=64] --resize 73", 17, "adaround", 4),
        ("resnext[depth=14,cardinality=4,base_width=4,stem_width=8,input_size=64] --resize 73", 17, "none", 0),
        *deep(("resnet50", 53, "adaround", 4), ("resnext50_32x4d", 53, "none", 0)),
    ],
)
def test_imagenet_networks_on_pictures(
    data_dir: Path, network: str, convolutions: int, recovery: str, joined: int
) -> None:
    pictures = f"--data {data_dir}/imagenet-pictures --samples 16"
    exported = run_json(f"onnx {network} -o fp32.onnx")
    assert {report["name"]: report["changed"] for report in exported["passes"]}["FuseConvBatchNorm"] == convolutions
    run_json("fuse fp32.onnx -o fused.onnx")
    quantized = run_json(f"quantize fused.onnx {pictures} --recover {recovery} -o int8.onnx")
    assert len(quantized["recovery"]["projections_joined"]) == joined
    assert quantized["executed"]["QLinearConv"] == convolutions - joined
    compared = run_json(f"eval int8.onnx {pictures} --reference fp32.onnx")
    assert compared["top1"] is None
    assert compared["sqnr_db"] > 15  # random weights: the logits agree, whatever they mean
    measured = run_json("bench fp32.onnx int8.onnx --batch 1 --min-seconds 0.1 --launches 1")
    assert {row["status"] for row in measured["rows"]} == {"ok"}


def test_one_file_that_says_where_it_comes_from(folder: Path, data_dir: Path) -> None:
    weights = data_dir / "weights" / "cifar_resnet20.th"
    exported = run_json(f"onnx cifar_resnet20 --weights {weights} -o a.onnx")
    assert [path.name for path in folder.iterdir()] == ["a.onnx"]
    model = onnx.load("a.onnx")
    props = {prop.key: prop.value for prop in model.metadata_props}
    assert props["rexport.network"] == "cifar_resnet20"
    assert "rexport.classes" not in props  # the weights name none
    assert json.loads(props["rexport.preprocessing"])["mean"] == [0.485, 0.456, 0.406]
    assert props["rexport.weights_sha256"] == exported["weights_sha256"]
    assert set(json.loads(props["rexport.versions"])) >= {"rexport", "torch", "onnx"}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_file_of_an_old_opset_from_another_exporter(data_dir: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the old one is the point
        torch.onnx.export(
            build("cifar_resnet8", weights=None),
            (torch.zeros(1, 3, 32, 32),),
            "old.onnx",
            dynamo=False,
            opset_version=11,
            dynamic_axes={"input": {0: "n"}},
            input_names=["input"],
        )
    run_json("fuse old.onnx -o fused.onnx")
    images = f"--data {data_dir}/cifar10/calibration --samples 64"
    quantized = run_json(f"quantize fused.onnx {images} -o int8.onnx")
    assert quantized["executed"]["QLinearConv"] == 9  # two of them shortcuts
    assert onnx.load("int8.onnx").opset_import[0].version >= 13
    compared = run_json(f"eval int8.onnx {images} --reference old.onnx")
    assert compared["sqnr_db"] > 20
