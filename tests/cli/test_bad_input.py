"""What a user can get wrong: one clear sentence, the documented exit code, no traceback, and no file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from rexport.preprocessing import Preprocessing, Takes
from tests.cli._run import invoke

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests._products import Products


def _network(inputs: list[onnx.ValueInfoProto], front: Sequence[onnx.NodeProto] = ()) -> onnx.ModelProto:
    """Return a network of one convolution, of ``picture`` if something in ``front`` makes one of the input."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 3, 1, 1], np.ones(12, np.float32))
    nodes = [
        *front,
        helper.make_node("Conv", ["picture" if front else inputs[0].name, "w"], ["conv"]),
        helper.make_node("GlobalAveragePool", ["conv"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["logits"]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4])]
    graph = helper.make_graph(nodes, "small", inputs, outputs, [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def workshop(products: Products, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a good model, and things that are not what they should be."""
    shutil.copytree(products.folder("bad input", make=_write_workshop), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write_workshop(folder: Path) -> None:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    onnx.save(_network([image]), folder / "good.onnx")
    onnx.save(
        _network([helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 8, 16])]), folder / "two_channels.onnx"
    )
    onnx.save(
        _network([helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])]), folder / "any.onnx"
    )
    features = _network([image])
    helper.set_model_props(features, {"rexport.features": '["layer1", "layer2"]'})
    onnx.save(features, folder / "features.onnx")
    to_planes = [
        helper.make_node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["picture"], to=TensorProto.FLOAT),
    ]
    for name, side, takes in (("raw", 8, None), ("mixed", 8, Takes.NORMALISED), ("whole", "s", Takes.PICTURES)):
        pixels = helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", side, side, 3])
        model = _network([pixels], front=to_planes)
        if takes is not None:
            stated = Preprocessing(size=8, resize=8, takes=takes)
            helper.set_model_props(model, {"rexport.preprocessing": stated.to_json()})
        onnx.save(model, folder / f"{name}.onnx")
    pad = _network([image], front=[helper.make_node("Pad", ["x", "pads"], ["picture"], name="padded")])
    pad.graph.initializer.append(helper.make_tensor("pads", TensorProto.INT64, [8], [0, 0, 1, 1, 0, 0, 1, 1]))
    onnx.save(pad, folder / "pad.onnx")
    (folder / "text.onnx").write_text("this is no model\n" * 20)
    (folder / "weights.onnx").write_text("no weights")
    (folder / "cut.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
    (folder / "names.txt").write_text("one\ntwo\n")
    (folder / "nothing").mkdir()
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (10, 20, 30)).save(folder / "images" / name)
    for part in ("train", "test"):
        shutil.copytree(folder / "images", folder / "split" / part)
    (folder / "broken/a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "broken/a/good.png")
    (folder / "broken/a/text.png").write_text("not a picture")
    (folder / "broken/a/void.jpg").touch()
    (folder / "flat").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "flat/1.png")
    np.save(folder / "ready.npy", np.zeros((2, 224, 224, 3), np.uint8))
    np.save(folder / "ready8.npy", np.zeros((2, 3, 8, 8), np.float32))
    torch.save({"fc.weight": torch.zeros(2, 2)}, folder / "best.pt")
    np.save(folder / "wrong.npy", np.zeros((2, 1, 8, 8), np.float32))


_TABLE = [
    # network names
    ("onnx resnet51 -o out.onnx", 2, "Did you mean resnet50"),
    ("onnx cifar_resnet21 -o out.onnx", 2, "6n + 2"),
    ("models resnet51", 2, "Did you mean resnet50"),
    ("bench no_such_network", 2, "There is no network 'no_such_network'"),
    # weights where a model or a network is expected
    ("onnx best.pt -o out.onnx", 2, "best.pt holds only weights; name their network"),
    ("models best.pt", 2, "best.pt holds only weights; name their network"),
    ("inspect best.pt", 2, "best.pt holds only weights; name their network"),
    ("fuse best.pt -o out.onnx", 2, "best.pt holds only weights; name their network"),
    ("quantize best.pt --data images -o out.onnx", 2, "best.pt holds only weights; name their network"),
    ("eval best.pt --data images", 2, "best.pt holds only weights; name their network"),
    ("eval good.onnx --reference best.pt --data images", 2, "best.pt holds only weights; name their network"),
    ("predict best.pt images", 2, "best.pt holds only weights; name their network"),
    ("bench best.pt", 2, "best.pt holds only weights; name their network"),
    ("bench absent.pt", 2, "absent.pt holds only weights; name their network"),
    ("onnx good.onnx -o out.onnx", 2, "good.onnx is an ONNX file, and not a network"),
    # weights
    ("onnx cifar_resnet8 --weights a.pt --weights b.pt -o out.onnx", 2, "--weights is given twice"),
    ("onnx cifar_resnet8 --weights missing.pth -o out.onnx", 2, "missing.pth does not exist"),
    ("onnx cifar_resnet8 --weights weights.onnx -o out.onnx", 1, ".safetensors"),
    ("onnx cifar_resnet8 --weights cut.safetensors -o out.onnx", 1, "cut.safetensors"),
    ("eval good.onnx --weights cut.safetensors --data images", 2, "has its weights inside"),
    # files that are not models
    ("fuse missing.onnx -o out.onnx", 2, "does not exist"),
    ("fuse nothing -o out.onnx", 1, "is a folder"),
    ("quantize text.onnx --data images -o out.onnx", 1, "is not an ONNX"),
    ("eval text.onnx --data images", 1, "is not an ONNX"),
    ("bench good.onnx text.onnx", 1, "is not an ONNX"),
    # models without an image input
    ("quantize two_channels.onnx --data images -o out.onnx", 1, "images has no arrays, and the model takes x float32"),
    ("eval two_channels.onnx --data images", 1, "images has no arrays, and the model takes x float32"),
    # images
    ("quantize good.onnx --data missing -o out.onnx", 2, "missing does not exist"),
    ("quantize good.onnx --data nothing -o out.onnx", 1, "No images in nothing"),
    ("quantize good.onnx --data names.txt -o out.onnx", 1, "is not a folder"),
    ("quantize good.onnx --data wrong.npy -o out.onnx", 1, "float32 of shape (2, 1, 8, 8)"),
    ("quantize good.onnx --data broken -o out.onnx", 1, "2 of 3 images can't be used"),
    ("eval good.onnx --reference good.onnx --data broken/a", 1, "2 of 3 images can't be used"),
    ("eval good.onnx --data flat", 2, "no labels"),
    ("eval good.onnx --data images", 1, "2 class folders and the model has 4 outputs"),
    (
        "quantize good.onnx --data split -o out.onnx",
        1,
        "split has test and train in it, and no folders of classes; pass s",
    ),
    ("eval good.onnx --data split", 1, "pass split/train or split/test."),
    # places to write to
    ("onnx cifar_resnet8 -o m.engine", 2, "`rexport engine m.onnx -o m.engine`"),
    ("onnx cifar_resnet8 -o nowhere/out.onnx", 1, "mkdir -p nowhere"),
    ("onnx cifar_resnet8 -o nothing", 1, "nothing is a folder"),
    ("fuse good.onnx -o nowhere/out.onnx", 1, "mkdir -p nowhere"),
    ("quantize good.onnx --data images -o nowhere/out.onnx", 1, "mkdir -p nowhere"),
    # options
    ("onnx cifar_resnet8 -o out.onnx --opset 7", 2, "Opset 7 is not supported"),
    ("onnx cifar_resnet8 -o out.onnx --batch many", 2, "--batch many"),
    ("onnx cifar_resnet8 -o out.onnx --mean 1,2", 2, "--mean 1,2"),
    ("onnx cifar_resnet8 -o out.onnx --std 1,0,1", 2, "larger than zero"),
    ("onnx cifar_resnet8 -o out.onnx --mean 123,117,104", 2, "divide by 255: --mean 0.482,0.459,0.408"),
    ("fuse good.onnx -o out.onnx --raw-image --mean 123,117,104", 2, "divide by 255: --mean 0.482,0.459,0.408"),
    ("quantize good.onnx --data images -o out.onnx --std 58,57,57", 2, "divide by 255: --std 0.227,0.224,0.224"),
    ("eval good.onnx --data images --mean 123,117,104", 2, "divide by 255: --mean 0.482,0.459,0.408"),
    ("onnx cifar_resnet8 -o out.onnx --resize 16", 2, "smaller than the 32×32 pixels"),
    ("onnx cifar_resnet8 -o out.onnx --class-names names.txt", 2, "2 names, and the network 10 outputs"),
    ("onnx cifar_resnet8 -o out.onnx --head sigmoid", 2, "choose logits or softmax"),
    ("onnx cifar_resnet8 -o out.onnx --head log-softmax", 2, "choose logits or softmax"),
    ("onnx cifar_resnet8 -o out.onnx --features fc --result 0", 2, "--result means nothing with it"),
    ("onnx cifar_resnet8 -o out.onnx --result aux", 2, "--result aux: cifar_resnet8 returns 0."),
    ("onnx tests.cli._own:Several --input-size 8 -o out.onnx --result more", 2, "Several returns out, aux."),
    ("onnx tests.cli._own:seven --input-size 8 -o out.onnx --num-classes 5", 2, "outputs than 5, and takes no num_cla"),
    ("onnx tests.cli._own:wide_inside --input-size 8 -o out.onnx --num-classes 5", 2, "no effect: tests.cli._own:wide"),
    ("onnx tests.cli._own:seven --input-size 8 -o out.onnx --class-names names.txt", 2, "names, and the network 7 out"),
    ("onnx cifar_resnet8 -o out.onnx --features layer9", 2, "Did you mean layer3 or layer2 or layer1? At its top are"),
    ("onnx cifar_resnet8 -o out.onnx --features layer1,", 2, "such as layer1,layer4"),
    ("onnx cifar_resnet8 -o out.onnx --features layer1,layer1", 2, "is named 2 times"),
    ("onnx cifar_resnet8 -o out.onnx --features layer1 --head softmax", 2, "--head softmax means nothing with it"),
    ("onnx cifar_resnet8 -o out.onnx --features fc --class-names names.txt", 2, "--class-names means nothing with it"),
    ("eval good.onnx --data images --crops 5", 2, "choose 1 (the center) or 10"),
    ("eval good.onnx --data images --crops 10", 2, "pass --resize 10, for example"),
    ("eval good.onnx --data wrong.npy --crops 10 --resize 10", 1, "float32 of shape (2, 1, 8, 8)"),
    ("eval good.onnx --data images --scales 8,16", 1, "export the network with --any-size"),
    ("eval any.onnx --data images --scales 8,x", 2, "lengths in pixels"),
    ("eval any.onnx --data images --scales 8,8", 2, "must be different lengths"),
    ("eval any.onnx --data images --scales 4", 2, "8 pixels or more"),
    ("eval any.onnx --data images --scales 8 --crops 10", 2, "leave --crops 10 out"),
    ("eval any.onnx --data images --scales 8 --reference good.onnx", 1, "good.onnx takes pictures of 8×8 only"),
    ("eval any.onnx --data ready.npy --scales 8 --reference any.onnx", 1, "pass a folder of images"),
    ("eval features.onnx --data images", 1, "is no classifier: it gives the features layer1, layer2"),
    ("eval good.onnx --data images --reference features.onnx", 1, "features.onnx is no classifier"),
    # raw images
    ("fuse pad.onnx -o out.onnx --raw-image --skip FusePadConv", 1, "padded can't do it: it is a Pad node"),
    ("fuse raw.onnx -o out.onnx --raw-image", 1, "takes raw images already"),
    ("fuse two_channels.onnx -o out.onnx --raw-image", 1, "has no image input"),
    ("fuse good.onnx -o out.onnx --mean 0,0,0", 2, "pass --raw-image with them"),
    ("fuse good.onnx -o out.onnx --raw-image --std 0,1,1", 2, "larger than zero"),
    ("eval raw.onnx --data images --mean 0,0,0", 2, "raw.onnx normalises its images itself, so --mean and --std mean"),
    ("quantize raw.onnx --data images -o out.onnx --std 1,1,1", 2, "raw.onnx normalises its images itself"),
    ("quantize raw.onnx --data ready8.npy -o out.onnx", 1, "the model needs uint8 pictures of shape (N, 8, 8, 3)"),
    ("quantize whole.onnx --data images -o out.onnx --resize 9", 2, "whole.onnx resizes its images itself"),
    ("eval whole.onnx --data images --crops 10", 2, "export it without --resize-in-graph"),
    ("eval whole.onnx --data images --scales 8,16", 2, "export it without --resize-in-graph"),
    ("eval mixed.onnx --data images", 1, "mixed.onnx says that it takes normalised images"),
    (
        "onnx cifar_resnet8 -o out.onnx --resize-in-graph",
        2,
        "pass --resize 32, say, for it to resize their shorter side itself",
    ),
    ("onnx cifar_resnet8 -o out.onnx --resize-in-graph --resize 40 --any-size", 2, "leave --any-size out"),
    ("quantize good.onnx --data images -o out.onnx --target toaster", 2, "There is no target 'toaster'"),
    ("quantize good.onnx --data images -o out.onnx --samples 0", 2, "--samples"),
    ("quantize good.onnx --data images -o out.onnx --target tensort", 2, "Did you mean tensorrt?"),
    ("quantize good.onnx --data images -o out.onnx --calibrator entrpy", 2, "Did you mean entropy?"),
    ("quantize good.onnx --table text.onnx -o out.onnx --mean 0,0,0", 2, "--table alone reads none"),
    ("bench good.onnx --batch 0", 2, "batch"),
    ("onnx cifar_resnet8", 2, "Missing option"),
    ("melt good.onnx", 2, "No such command 'melt'"),
]


@pytest.mark.parametrize(("command", "exit_code", "message"), _TABLE, ids=[row[0] for row in _TABLE])
def test_one_sentence_and_no_file(workshop: Path, command: str, exit_code: int, message: str) -> None:
    before = sorted(workshop.rglob("*"))
    result = invoke(*command.split())
    assert message in " ".join(result.stderr.split())
    assert result.exit_code == exit_code
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert sorted(workshop.rglob("*")) == before


def test_bad_images_are_named_and_counted_and_skipped_only_when_asked(workshop: Path) -> None:
    refused = invoke("quantize", "good.onnx", "--data", "broken", "-o", "out.onnx")
    assert "broken/a/text.png" in refused.stderr
    assert "broken/a/void.jpg" in refused.stderr
    assert "--skip-bad" in refused.stderr
    assert not Path("out.onnx").exists()

    # one picture is too little to quantize well with
    command = "quantize good.onnx --data broken -o out.onnx --skip-bad --no-verify"
    done = invoke(*command.split())
    assert done.exit_code == 0
    assert "skipped broken/a/text.png" in done.stderr
    assert "calibrated on 1 image" in done.stdout
    assert Path("out.onnx").exists()


@pytest.mark.slow
def test_a_failed_proof_is_exit_3_and_writes_nothing(workshop: Path) -> None:
    # no two ways of adding up float32 numbers agree to 1e-12
    result = invoke("onnx", "cifar_resnet8", "-o", "out.onnx", "--tolerance", "1e-12")
    assert result.exit_code == 3
    assert "The first tensor that differs is 'conv1'" in result.stderr or "'bn1'" in result.stderr
    assert not Path("out.onnx").exists()
