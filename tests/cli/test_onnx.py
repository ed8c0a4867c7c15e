"""What `rexport onnx` writes besides a classifier of one size, and that the later commands take it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch

from rexport.model_file import Metadata, load
from rexport.models import build
from tests.cli._run import invoke, run, run_json

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("images")


@pytest.mark.slow
def test_a_backbone_goes_through_every_command() -> None:
    document = run_json("onnx cifar_resnet8 -o backbone.onnx --features layer1,layer3")
    assert document["inputs"] == [{"name": "images", "dtype": "float32", "shape": ["batch", 3, 32, 32]}]
    assert document["outputs"] == [
        {"name": "layer1", "dtype": "float32", "shape": ["batch", 16, 32, 32]},
        {"name": "layer3", "dtype": "float32", "shape": ["batch", 64, 8, 8]},
    ]
    assert document["features"] == ["layer1", "layer3"]
    assert document["head"] is None
    assert document["parity"]["outputs"].keys() == {"layer1", "layer3"}
    assert run_json("fuse backbone.onnx -o fused.onnx")["difference"] < 1e-6
    int8 = run_json("quantize fused.onnx --data images -o int8.onnx")
    assert int8["executed"]["QLinearConv"] >= 6
    assert [output.name for output in onnx.load("int8.onnx").graph.output] == ["layer1", "layer3"]
    (row,) = run_json("bench int8.onnx --batch 1 --min-seconds 0 --min-calls 1 --launches 1")["rows"]
    assert row["status"] == "ok"
    refused = invoke("eval", "int8.onnx", "--data", "images")
    assert refused.exit_code == 2
    assert "int8.onnx is no classifier of pictures: pass --reference FILE" in refused.stderr
    compared = run_json("eval int8.onnx --data images --reference backbone.onnx")
    assert {output["name"] for output in compared["outputs"]} == {"layer1", "layer3"}
    pytest.importorskip("cryptography", reason="signing takes it: pip install 'rexport[deploy]'")
    run("bundle --new-key k.pem")
    manifest = run_json("bundle int8.onnx --key k.pem --version 1")["manifest"]
    assert (manifest["head"], manifest["golden"]["others"]) == ("outputs", {"layer3": "golden/output-1.npy"})


@pytest.mark.slow
def test_a_softmax_goes_through_every_command(export: Callable[..., object]) -> None:
    document = run_json("onnx cifar_resnet8 -o m.onnx --head softmax")
    assert document["head"] == "softmax"
    assert document["outputs"] == [{"name": "probabilities", "dtype": "float32", "shape": ["batch", 10]}]
    printed = run("onnx tests.cli._own:seven --input-size 8 -o small.onnx --head softmax")
    assert "max relative difference of probabilities" in printed
    export("logits.onnx")
    int8 = run_json("quantize m.onnx --data images -o int8.onnx")
    assert [layer["name"] for layer in int8["layers"] if layer["precision"] == "float32"] == ["softmax"]
    compared = run_json("eval m.onnx --data images --reference logits.onnx")
    assert (compared["agreement"], compared["scores"]) == (1, "probabilities")
    assert compared["sqnr_db"] > 100


@pytest.mark.slow
def test_any_size_is_evaluated_at_several_scales(export: Callable[..., dict[str, Any]]) -> None:
    document = export("any.onnx", "--any-size")
    assert document["inputs"] == [{"name": "images", "dtype": "float32", "shape": ["batch", 3, "height", "width"]}]
    assert document["parity"]["sizes"] == [[32, 32], [41, 48]]
    int8 = run_json("quantize any.onnx --data images -o int8.onnx")
    assert int8["images"] == 6
    compared = run_json("eval int8.onnx --data images --reference any.onnx --scales 32,48")
    assert (compared["crops"], compared["scales"], compared["scores"]) == (None, [32, 48], "probabilities")
    assert compared["sqnr_db"] > 20
    assert "whole, with shorter sides of 32, 48 pixels" in run(
        "eval int8.onnx --data images --reference any.onnx --scales 32,48"
    )
    ten = run_json("eval any.onnx --data images --reference any.onnx --crops 10 --resize 40")
    assert (ten["images"], ten["crops"], ten["scales"]) == (6, 10, None)
    one = run_json("eval any.onnx --data images --reference any.onnx")
    assert (one["crops"], one["scales"], one["scores"]) == (1, None, "logits")


@pytest.mark.slow
def test_what_nobody_states_is_assumed_aloud() -> None:
    exported = invoke("onnx", "cifar_resnet8", "-o", "m.onnx")
    assert exported.exit_code == 0, exported.output
    random, assumed = exported.stderr.splitlines()
    assert "random weights" in random
    assert "cifar_resnet8 does not say how pictures become its input; taking pictures of 32×32 as they are" in assumed
    metadata = run_json("inspect m.onnx")["metadata"]
    assert metadata["preprocessing"]["assumed"] is True
    assert metadata["classes"] == 0  # ten outputs are not CIFAR-10's
    assert "preprocessing, assumed" in run("inspect m.onnx")


@pytest.mark.slow
def test_what_is_stated_is_no_assumption() -> None:
    command = "onnx tests.cli._own:seven --input-size 32 -o m.onnx --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5"
    (random,) = invoke(*command.split()).stderr.splitlines()
    assert "random weights" in random
    assert "assumed" not in run_json("inspect m.onnx")["metadata"]["preprocessing"]
    evaluated = invoke(*["eval", "m.onnx", "--data", "images", "--reference", "m.onnx", "--mean", "0,0,0"])
    assert "m.onnx states mean 0.5,0.5,0.5; taking --mean 0,0,0 instead." in evaluated.stderr
    evaluated = invoke(*["eval", "m.onnx", "--data", "images", "--reference", "m.onnx", "--mean", "0.5,0.5,0.5"])
    assert (evaluated.exit_code, evaluated.stderr) == (0, "")


@pytest.mark.slow
def test_names_of_a_windows_editor_are_names() -> None:
    Path("names.txt").write_bytes(b"\xef\xbb\xbf" + b"".join(f"class {i}\r\n".encode() for i in range(10)) + b"\r\n")
    run("onnx tests.cli._own:keywords --num-classes 10 --input-size 8 -o m.onnx --class-names names.txt")
    assert Metadata.of(load(Path("m.onnx"))).classes == tuple(f"class {i}" for i in range(10))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "options", "outputs"),
    [
        ("keywords", "--num-classes 7", 7),
        ("keywords", "", 4),
        ("seven", "", 7),
        ("seven", "--num-classes 7", 7),
        ("Several", "", 4),
        ("Several", "--result aux", 2),
    ],
)
def test_a_network_of_a_users_has_as_many_outputs_as_names(network: str, options: str, outputs: int) -> None:
    Path("names.txt").write_text("".join(f"class {index}\n" for index in range(outputs)))
    done = invoke(*f"onnx tests.cli._own:{network} --input-size 8 -o m.onnx --class-names names.txt {options}".split())
    assert done.exit_code == 0, done.stderr
    model = onnx.load("m.onnx")
    assert model.graph.output[0].type.tensor_type.shape.dim[1].dim_value == outputs
    assert f"class {outputs - 1}" in done.stdout
    several = "returns out, aux; this is out, and --result NAME takes another"
    assert (several in " ".join(done.stderr.split())) == (network == "Several" and not options)


@pytest.mark.slow
def test_averaged_weights_beside_the_plain_ones_are_mentioned() -> None:
    state = build("cifar_resnet8", seed=3).state_dict()
    torch.save({"model": state, "model_ema": state, "epoch": 3}, "best.pth.tar")
    done = invoke("onnx", "cifar_resnet8", "--weights", "best.pth.tar", "-o", "m.onnx")
    assert done.exit_code == 0, done.stderr
    assert "best.pth.tar has averaged (EMA) weights too, under model_ema" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_a_detectors_backbone_is_exported(torchvision: Any) -> None:
    network = "torchvision:fasterrcnn_resnet50_fpn"
    refused = invoke("onnx", network, "-o", "m.onnx")
    assert refused.exit_code == 2
    assert f"`rexport onnx {network} --features backbone.body.layer4`" in refused.stderr
    assert f"`rexport onnx {network} --result 0,1,2,3,pool`" in refused.stderr
    document = run_json(f"onnx {network} -o m.onnx --input-size 64 --result 0,pool")
    assert {output["name"]: output["shape"][1:] for output in document["outputs"]} == {
        "0": [256, 16, 16],
        "pool": [256, 1, 1],
    }
    features = ["backbone.body.layer4", "backbone.fpn.layer_blocks.0"]
    document = run_json(f"onnx {network} -o m.onnx --input-size 64 --features {','.join(features)}")
    assert {output["name"]: output["shape"][1:] for output in document["outputs"]} == {
        features[0]: [2048, 2, 2],
        features[1]: [256, 16, 16],
    }
    assert document["parity"]["difference"] <= 1e-5


@pytest.mark.slow
def test_a_checkpoint_that_names_its_network() -> None:
    weights = build("cifar_resnet8", num_classes=7).state_dict()
    torch.save({"arch": "cifar_resnet8", "state_dict": weights}, "best.pt")
    exported = invoke("onnx", "best.pt", "-o", "m.onnx")
    assert exported.exit_code == 0, exported.output
    assert "best.pt names its network: cifar_resnet8." in exported.stderr
    assert "random" not in exported.stderr
    metadata = Metadata.of(load(Path("m.onnx")))
    assert metadata.network == "cifar_resnet8"
    overwriting = invoke("onnx", "best.pt", "-o", "best.pt")
    assert overwriting.exit_code == 2
    both = invoke("onnx", "best.pt", "--weights", "best.pt", "-o", "m.onnx")
    assert both.exit_code == 2
    assert "best.pt is a file, and so is --weights" in both.stderr
