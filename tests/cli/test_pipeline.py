"""The commands one after the other, as an engineer with a ResNet runs them."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING

import onnx
import pytest
import torch

from rexport.models import build
from tests.cli._run import rexport

if TYPE_CHECKING:
    from pathlib import Path


def _json(*arguments: str | Path, cwd: Path) -> dict:
    done = rexport(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_shared_resnet20_on_its_images(tmp_path: Path, data_dir: Path) -> None:
    weights, test = data_dir / "weights" / "cifar_resnet20.th", data_dir / "cifar10" / "test"

    exported = _json("onnx", "cifar_resnet20", "--weights", weights, "--no-fuse", "-o", "a.onnx", cwd=tmp_path)
    assert exported["parity"]["batches"] == [1, 2, 5]
    assert 0 < exported["parity"]["difference"] <= exported["parity"]["tolerance"]

    fused = _json("fuse", "a.onnx", "-o", "b.onnx", cwd=tmp_path)
    changed = {report["name"]: report["changed"] for report in fused["passes"]}
    assert changed["FuseConvBatchNorm"] == 19
    assert changed["SubsampleToConv"] == 2
    assert fused["nodes"] < fused["nodes_before"]

    calibration = data_dir / "cifar10" / "calibration"
    quantized = _json("quantize", "b.onnx", "--data", calibration, "-o", "c.onnx", cwd=tmp_path)
    assert quantized["images"] == 512
    assert quantized["executed"]["QLinearConv"] == 21
    assert {layer["precision"] for layer in quantized["layers"]} == {"int8"}

    in_torch = _json("eval", "cifar_resnet20", "--weights", weights, "--data", test, cwd=tmp_path)
    in_float = _json("eval", "b.onnx", "--data", test, cwd=tmp_path)
    assert (in_torch["images"], round(846 * in_torch["top1"])) == (846, 776)  # as published with the weights
    assert round(846 * in_float["top1"]) == 776
    in_int8 = _json("eval", "c.onnx", "--data", test, "--reference", "b.onnx", cwd=tmp_path)
    assert in_int8["top1"] >= in_float["top1"] - 0.005
    assert in_int8["agreement"] >= 0.98
    assert in_int8["sqnr_db"] > 20

    measured = _json("bench", "b.onnx", "c.onnx", "--batch", "1,8", "--min-seconds", "0.2", cwd=tmp_path)
    assert [(row["model"], row["batch"], row["status"]) for row in measured["rows"]] == [
        ("b.onnx", 1, "ok"),
        ("c.onnx", 1, "ok"),
        ("b.onnx", 8, "ok"),
        ("c.onnx", 8, "ok"),
    ]
    assert (tmp_path / "c.onnx").stat().st_size < 0.4 * (tmp_path / "b.onnx").stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "recovery", "joined"), [("resnet50", "adaround", 4), ("resnext50_32x4d", "none", 0)]
)
def test_imagenet_networks_on_pictures(
    tmp_path: Path, data_dir: Path, network: str, recovery: str, joined: int
) -> None:
    pictures, convolutions = data_dir / "imagenet-pictures", 53
    exported = _json("onnx", network, "-o", "fp32.onnx", cwd=tmp_path)
    assert {report["name"]: report["changed"] for report in exported["passes"]}["FuseConvBatchNorm"] == convolutions
    _json("fuse", "fp32.onnx", "-o", "fused.onnx", cwd=tmp_path)
    options = ("--samples", "16", "--recover", recovery)
    quantized = _json("quantize", "fused.onnx", "--data", pictures, *options, "-o", "int8.onnx", cwd=tmp_path)
    assert len(quantized["recovery"]["projections_joined"]) == joined
    assert quantized["executed"]["QLinearConv"] == convolutions - joined
    compared = _json(
        "eval", "int8.onnx", "--data", pictures, "--samples", "16", "--reference", "fp32.onnx", cwd=tmp_path
    )
    assert compared["top1"] is None
    assert compared["sqnr_db"] > 15  # random weights: the logits agree, whatever they mean
    measured = _json("bench", "fp32.onnx", "int8.onnx", "--batch", "1", "--min-seconds", "0.2", cwd=tmp_path)
    assert {row["status"] for row in measured["rows"]} == {"ok"}


@pytest.mark.slow
def test_one_file_that_says_where_it_comes_from(tmp_path: Path, data_dir: Path) -> None:
    weights = data_dir / "weights" / "cifar_resnet20.th"
    exported = _json("onnx", "cifar_resnet20", "--weights", weights, "-o", "a.onnx", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
    model = onnx.load(tmp_path / "a.onnx")
    props = {prop.key: prop.value for prop in model.metadata_props}
    assert props["rexport.network"] == "cifar_resnet20"
    assert "rexport.classes" not in props  # the weights name none
    assert json.loads(props["rexport.preprocessing"])["mean"] == [0.485, 0.456, 0.406]
    assert props["rexport.weights_sha256"] == exported["weights_sha256"]
    assert set(json.loads(props["rexport.versions"])) >= {"rexport", "torch", "onnx"}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.slow
def test_a_file_of_an_old_opset_from_another_exporter(tmp_path: Path, data_dir: Path) -> None:
    module = build("cifar_resnet8", weights=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the old one is the point
        torch.onnx.export(
            module,
            (torch.zeros(1, 3, 32, 32),),
            tmp_path / "old.onnx",
            dynamo=False,
            opset_version=11,
            dynamic_axes={"input": {0: "n"}},
            input_names=["input"],
        )
    _json("fuse", "old.onnx", "-o", "fused.onnx", cwd=tmp_path)
    images = data_dir / "cifar10" / "calibration"
    quantized = _json("quantize", "fused.onnx", "--data", images, "--samples", "64", "-o", "int8.onnx", cwd=tmp_path)
    assert quantized["executed"]["QLinearConv"] == 9  # two of them shortcuts
    assert onnx.load(tmp_path / "int8.onnx").opset_import[0].version >= 13
    compared = _json("eval", "int8.onnx", "--data", images, "--samples", "64", "--reference", "old.onnx", cwd=tmp_path)
    assert compared["sqnr_db"] > 20
