from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from rexport._errors import UsageError
from rexport.exporting import export
from rexport.model_file import Metadata, default_opset, load, save, to_bytes
from rexport.model_inputs import image_input
from rexport.models import state_dict_hash
from rexport.passes import fuse
from rexport.preprocessing import Preprocessing
from rexport.runtimes.onnxruntime import open_session
from tests._deep import deep
from tests._networks import trained_like
from tests.exporting._networks import Small

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx_ir as ir

    from tests.exporting.conftest import Exported

RESNET18 = {"Conv": 20, "Relu": 17, "MaxPool": 1, "Add": 8, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
# two of the convolutions are shortcuts without weights: every second pixel, and zeros for the new channels
CIFAR_RESNET8 = {"Conv": 9, "Relu": 7, "Add": 3, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
CLASSES = tuple(f"class {i}" for i in range(10))
IMAGENET = pytest.param("resnet18", 64, RESNET18, id="resnet18", marks=pytest.mark.slow)
CIFAR = pytest.param("cifar_resnet8", 32, CIFAR_RESNET8, id="cifar_resnet8")


def ops(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "left"), [IMAGENET, CIFAR])
def test_what_remains_is_what_the_network_is(
    name: str, size: int, left: dict[str, int], exported: Callable[..., Exported]
) -> None:
    result = exported(name, size).result
    assert ops(result.model) == left
    assert default_opset(result.model) == 20
    changed = {report.name: report.changed for report in result.reports}
    assert changed["FuseConvBatchNorm"] == left["Conv"] - changed["SubsampleToConv"]
    assert changed["ReduceMeanToGlobalAveragePool"] == changed["ReshapeToFlatten"] == 1
    assert not [refusal for report in result.reports for refusal in report.refusals]
    assert result.parity.batches == (1, 2, 5)
    assert 0 < result.parity.difference < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize(("opset", "fused"), [(17, False), (18, False), (21, True), *deep((17, True))])
def test_the_opset_is_the_one_asked_for(opset: int, fused: bool, exported: Callable[..., Exported]) -> None:
    model = exported("cifar_resnet8", 32, opset=opset, fused=fused).result.model
    assert default_opset(model) == opset
    proto = onnx.load_from_string(to_bytes(model))
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", opset)]
    onnx.checker.check_model(proto, full_check=True)
    assert ("BatchNormalization" in ops(model)) is not fused
    assert ops(model)["Conv"] == (9 if fused else 7)  # two shortcuts become convolutions


@pytest.mark.parametrize("opset", [16, 24, 0, -1])
def test_other_opsets_are_refused_before_any_work(opset: int) -> None:
    with pytest.raises(UsageError, match="choose one from 17 to 23"):
        export(nn.Identity(), preprocessing=Preprocessing(size=32), opset=opset)


def test_any_batch_will_do(exported: Callable[..., Exported]) -> None:
    network = exported("cifar_resnet8", 32)
    assert image_input(network.result.model).batch is None
    assert str(network.result.model.graph.outputs[0].shape) == "[batch,10]"
    session = open_session(to_bytes(network.result.model))
    for batch in (1, 3, 17):
        images = np.random.default_rng(batch).standard_normal((batch, 3, 32, 32), dtype=np.float32)
        with torch.inference_mode():
            expected = network.module(torch.from_numpy(images)).numpy()
        (logits,) = session.run(None, {"images": images})
        assert logits.shape == (batch, 10)
        assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()  # see exporting/parity.py


@pytest.mark.slow
def test_a_fixed_batch_is_the_only_one(exported: Callable[..., Exported]) -> None:
    result = exported("small", 32, batch=1, classes=CLASSES).result
    assert image_input(result.model).batch == 1
    assert result.parity.batches == (1,)
    session = open_session(to_bytes(result.model))
    assert session.run(None, {"images": np.zeros((1, 3, 32, 32), np.float32)})[0].shape == (1, 10)
    with pytest.raises(Exception, match=r"(?i)dimension"):
        session.run(None, {"images": np.zeros((2, 3, 32, 32), np.float32)})


@pytest.mark.slow
def test_without_fusion_every_layer_is_there(exported: Callable[..., Exported]) -> None:
    result = exported("cifar_resnet8", 32, opset=18, fused=False).result
    assert ops(result.model)["BatchNormalization"] == ops(result.model)["Conv"] == 7
    assert result.reports == ()
    fused = fuse(result.model).model
    assert ops(fused) == ops(exported("cifar_resnet8", 32, opset=21, fused=True).result.model)


def test_the_file_says_where_it_comes_from(exported: Callable[..., Exported], tmp_path: Path) -> None:
    network = exported("small", 32, batch=1, classes=CLASSES)
    path = tmp_path / "model.onnx"
    save(network.result.model, path)
    assert list(tmp_path.iterdir()) == [path]  # weights included
    metadata = Metadata.of(load(path))
    assert metadata.network == "small"
    assert metadata.classes == CLASSES
    assert metadata.preprocessing == Preprocessing(size=32)
    assert metadata.weights_sha256 == state_dict_hash(network.module)
    assert metadata.quantization is None
    assert json.loads(metadata.versions or "")["torch"] == torch.__version__


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"opset": 18, "fused": False}, {"opset": 21, "fused": True}])
def test_the_file_says_nothing_of_the_machine(options: dict[str, object], exported: Callable[..., Exported]) -> None:
    data = to_bytes(exported("cifar_resnet8", 32, **options).result.model)
    proto = onnx.load_from_string(data)
    del proto.metadata_props[:]  # ours
    for tensor in proto.graph.initializer:
        tensor.ClearField("raw_data")
    text = proto.SerializeToString().decode("latin-1")
    assert "pkg." not in text
    assert "namespace" not in text
    assert not re.findall(r"/\w+/[\w./-]+|\.py\b|rexport\.models", text)


def test_names_are_those_of_the_modules(exported: Callable[..., Exported]) -> None:
    graph = exported("cifar_resnet8", 32).result.model.graph
    conv = graph.node("layer1.0.conv1")
    assert [value.name for value in conv.inputs] == ["relu", "layer1.0.conv1.weight", "layer1.0.conv1.bias"]
    assert [value.name for value in conv.outputs] == ["layer1.0.bn1"]
    assert [node.name for node in graph if node.name.startswith("layer1.0.")] == [
        f"layer1.0.{name}" for name in ("conv1", "relu", "conv2", "add", "relu_1")
    ]
    assert [value.name for value in [*graph.inputs, *graph.outputs]] == ["images", "logits"]
    assert graph.node("fc").outputs[0].name == "logits"
    names = [node.name for node in graph]
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_a_network_as_users_write_them(exported: Callable[..., Exported]) -> None:
    model = exported("handmade", 16).result.model
    gone = {"BatchNormalization", "ReduceMean", "Dropout", "Identity", "Shape", "Reshape"}
    assert not gone & ops(model).keys()
    assert ops(model)["Relu"] == 3
    by_name = {node.name: node for node in model.graph}
    assert {"conv1", "conv2", "conv3", "relu", "relu_1", "relu_2", "gate_1", "gate.sigmoid"} <= by_name.keys()
    assert by_name["gate_1.sigmoid"].op_type == "Sigmoid"
    assert by_name["head"].outputs[0].name == "logits"
    assert by_name["gate_1"].op_type == "Mul"  # its result, not the first of its operators
    assert "gate" not in by_name  # the factor that ended the first call went into the convolution after it
    assert len(by_name) == len(model.graph)


@pytest.mark.slow
def test_training_further_changes_nothing_that_was_proven() -> None:
    module = trained_like(Small()).train()
    result = export(module, preprocessing=Preprocessing(size=32), fused=False)
    assert not module.training
    before = to_bytes(result.model)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    assert to_bytes(result.model) == before
