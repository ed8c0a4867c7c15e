"""Networks of torchvision and timm, in files that PyTorch's two exporters wrote, with their options and of any opset.

Each is fused with a proof: no pass is rolled back, the results are equal, and there are no more nodes than before. How
many nodes came out of how many, and which, is in ``other_exporters.json``, so that a pass that finds more, or less,
shows in the diff. After such a change, write it anew:

    REXPORT_WRITE_EXPECTED=1 pytest tests/passes/test_other_exporters.py
"""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper
from torch import nn

from rexport.calibration import calibrate
from rexport.model_file import to_bytes
from rexport.models import build
from rexport.passes import Reference, fuse
from rexport.passes.raise_opset import raise_opset
from rexport.quantization import X86, quantize
from rexport.runtimes.onnxruntime import executed_ops
from tests._deep import deep
from tests._networks import export_once, torchscript_export, trained_like
from tests.passes._models import batch_norm, batch_norm_node, make, ops

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests._products import Products

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

_EXPECTED = Path(__file__).with_name("other_exporters.json")
_WRITE = bool(os.environ.get("REXPORT_WRITE_EXPECTED"))
_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class File:
    """A network, and who wrote it how; ``left`` are the BatchNormalizations that the algebra keeps, with the reason."""

    network: str
    exporter: str = "torchscript"
    opset: int = 13
    options: dict[str, Any] = field(default_factory=dict)
    left: int = 0

    def __str__(self) -> str:
        options = "".join(f", {key}={value}" for key, value in self.options.items())
        return f"{self.network}, {self.exporter}, opset {self.opset}{options}"


# The first in each of DenseNet's layers, and of a pre-activation block, is behind an addition or a concatenation that
# others read too, and before a rectifier: it has no convolution on either side.
_DENSENET, _PREACT = 62, 9

# a small file of each kind, and what has kinds of layers of its own
FILES = [
    File(network="timm.test_resnet"),
    File(network="timm.test_resnet", opset=17, options={"do_constant_folding": False}),
    File(network="timm.test_resnet", options={"training": torch.onnx.TrainingMode.EVAL}),
    File(network="timm.test_efficientnet", opset=11),
]
SLOW_FILES = [
    File(network="timm.test_resnet", exporter="dynamo", opset=18, options={"optimize": False}),
    File(network="timm.test_resnet", exporter="dynamo", opset=23),
    File(network="torchvision.mobilenet_v2", opset=11),
    File(network="torchvision.shufflenet_v2_x0_5", opset=11),
    File(network="timm.resnetv2_18", opset=17, left=_PREACT),
    File(network="timm.convnext_atto", opset=17),
]
MORE_FILES = [
    File(network="timm.test_resnet", exporter="dynamo", opset=18),
    File(network="timm.resnet10t", opset=17),
    File(network="torchvision.resnet18", opset=11),
    File(network="torchvision.resnet18", opset=17, options={"do_constant_folding": False}),
    File(network="torchvision.resnet18", options={"training": torch.onnx.TrainingMode.EVAL}),
    File(network="torchvision.resnext50_32x4d"),
    File(network="torchvision.densenet121", left=_DENSENET),
    File(network="torchvision.regnet_y_400mf", opset=17),
    File(network="torchvision.googlenet"),
    File(network="torchvision.efficientnet_b0", opset=17),
    File(network="vgg11_bn", opset=11),
    File(network="timm.resnet18d"),
    File(network="timm.seresnet18", opset=11),
    File(network="timm.resnext26ts", opset=17),
    File(network="torchvision.resnet18", exporter="dynamo", opset=20),
    File(network="timm.seresnet18", exporter="dynamo", opset=23),
    File(network="timm.test_efficientnet", exporter="dynamo", opset=20, options={"optimize": False}),
]


def network(name: str, torchvision: Any) -> nn.Module:
    torch.manual_seed(0)
    package, _, short = name.rpartition(".")
    if package == "timm":
        module = pytest.importorskip("timm").create_model(short)
    elif name == "vgg11_bn":  # without the hundred million weights of its classifier
        features = torchvision.models.vgg11_bn(init_weights=False).features
        module = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    else:
        options = {"googlenet": {"aux_logits": False, "init_weights": False}}.get(short, {})
        module = getattr(torchvision.models, short)(**options)
    return trained_like(module)


def exported(file: File, torchvision: Any) -> ir.Model:
    module = network(file.network, torchvision)
    content = io.BytesIO()
    options: dict[str, Any] = {"opset_version": file.opset, "input_names": ["pixels"], "output_names": ["scores"]}
    if file.exporter == "dynamo":
        options |= {"optimize": True, "verbose": False, "dynamic_shapes": ({0: torch.export.Dim("n")},)}
        program = torch.onnx.export(module, (pictures(),), dynamo=True, **(options | file.options))
        program.save(content)
    else:
        options |= {"dynamic_axes": {"pixels": {0: "n"}, "scores": {0: "n"}}}
        options |= {"training": torch.onnx.TrainingMode.PRESERVE}  # else it folds BatchNormalization itself
        torch.onnx.export(module, (pictures(),), content, dynamo=False, **(options | file.options))
    return ir.from_proto(onnx.load_from_string(content.getvalue()))


def pictures() -> torch.Tensor:
    return torch.randn(2, 3, _SIZE, _SIZE, generator=torch.Generator().manual_seed(0))


def proven(original: ir.Model) -> ir.Model:
    """Return the fused model; no pass has done anything wrong."""
    before = to_bytes(original)
    reference = Reference(original)
    result = fuse(original, reference=reference)
    assert {report.name: report.rolled_back for report in result.reports if report.rolled_back} == {}
    reference.difference(result.model)
    onnx.checker.check_model(to_bytes(result.model), full_check=True)
    assert len(result.model.graph) <= len(original.graph)
    assert to_bytes(original) == before
    return result.model


def compare(name: str, original: ir.Model, fused: ir.Model) -> None:
    """Hold the numbers of nodes against the file, which has none for an exporter that writes another graph now."""
    found = {"before": len(original.graph), "after": len(fused.graph), "operators": dict(sorted(ops(fused).items()))}
    expected = json.loads(_EXPECTED.read_text()) if _EXPECTED.exists() else {}
    if _WRITE:
        _EXPECTED.write_text(json.dumps(dict(sorted((expected | {name: found}).items())), indent=2) + "\n")
        return
    if found["before"] != expected[name]["before"]:
        pytest.skip(f"the exporter writes {found['before']} nodes now, and wrote {expected[name]['before']}")
    assert found == expected[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", [*FILES, *(pytest.param(file, marks=pytest.mark.slow) for file in SLOW_FILES), *deep(*MORE_FILES)], ids=str
)
def test_a_network_of_others(file: File, torchvision: Any) -> None:
    original = exported(file, torchvision)
    fused = proven(original)
    assert [value.name for value in fused.graph.inputs] == ["pixels"]
    assert [value.name for value in fused.graph.outputs] == ["scores"]
    assert fused.opset_imports[""] == original.opset_imports[""]
    assert ops(fused)["BatchNormalization"] == file.left
    compare(str(file), original, fused)


# options of the older exporter


@pytest.mark.slow
def test_weights_that_are_inputs_too_are_constants(torchvision: Any) -> None:
    file = File(network="timm.test_resnet", opset=11, options={"keep_initializers_as_inputs": True})
    fused = proven(exported(file, torchvision))
    assert [value.name for value in fused.graph.inputs] == ["pixels"]
    assert ops(fused) == ops(proven(exported(replace(file, options={}), torchvision)))


@pytest.mark.slow
def test_a_network_in_training_stays_in_training(torchvision: Any) -> None:
    options = {"training": torch.onnx.TrainingMode.TRAINING, "do_constant_folding": False}
    original = exported(File(network="timm.test_resnet", opset=15, options=options), torchvision)
    result = fuse(original)
    assert ops(result.model)["BatchNormalization"] == ops(original)["BatchNormalization"]
    refused = [refusal.why for report in result.reports for refusal in report.refusals]
    assert any("it is in training mode" in why for why in refused)
    onnx.checker.check_model(to_bytes(result.model), full_check=True)


# files that were converted


_CONVERTED = "resnet[depth=10,stages=4,stem=deep,downsample=pool,stem_width=16]"


# ONNX's converter gets a ReduceMean of opset 18 wrong on the way down.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "to"),
    [
        *[(11, 13), (11, 18), (11, 23), pytest.param(18, 23, marks=pytest.mark.slow)],
        *deep(*((11, to) for to in range(11, 23) if to not in (13, 18)), *((18, to) for to in range(19, 23))),
    ],
)
def test_a_file_that_was_converted(start: int, to: int, products: Products) -> None:
    """One network, as the older exporter writes it for opset 11, and the newer one for opset 18."""
    if start == 11:
        original = torchscript_export(trained_like(build(_CONVERTED)), size=_SIZE, opset=11)
    else:
        original = export_once(products, _CONVERTED, size=_SIZE, fused=False, opset=18).model
    fused = proven(ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(original), to)))
    assert fused.opset_imports[""] == to
    assert ops(fused).keys() == {
        "Conv", "Relu", "Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Flatten", "Gemm"
    }  # fmt: skip
    assert ops(fused) == ops(fuse(original).model)


# what comes after


@pytest.mark.slow
def test_a_file_of_opset_11_is_quantized_throughout() -> None:
    original = torchscript_export(trained_like(build("resnet[depth=8,stages=3,shortcut=B]")), size=_SIZE, opset=11)
    model = raise_opset(proven(original), 13)
    table = calibrate(model, [pictures().numpy()])
    quantized = quantize(model, table, target=X86).model
    executed = executed_ops(to_bytes(quantized))
    assert executed["QLinearConv"] == 9
    assert not executed["Conv"]
    assert not executed["FusedConv"]


# networks of a thousand layers


def repeated(blocks: int) -> ir.Model:
    """Return a network that has something for most passes in each of its blocks."""
    random = np.random.default_rng(0)
    nodes, weights, source = [], {"low": np.zeros((), np.float32), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, "x"

    def convolution(name: str, source: str, **attributes: object) -> str:
        weights[f"{name}.weight"] = (random.standard_normal((4, 4, 3, 3)) / 6).astype(np.float32)
        nodes.append(helper.make_node("Conv", [source, f"{name}.weight"], [name], name=name, **attributes))
        return name

    def layer(op_type: str, name: str, *inputs: str) -> str:
        nodes.append(
            helper.make_node(op_type, inputs, [name], name=name, **({"axis": 1} if op_type == "Concat" else {}))
        )
        return name

    def norm(name: str, source: str) -> str:
        weights.update(batch_norm(random, 4, name))
        nodes.append(batch_norm_node(source, f"{name}.result", name))
        return f"{name}.result"

    for block in (f"block{index}" for index in range(blocks)):
        current = layer("Clip", f"{block}.clip", norm(f"{block}.norm0", source), "low")
        branches = [
            norm(f"{block}.{part}.norm", convolution(f"{block}.{part}.conv", current, pads=[1] * 4)) for part in "ab"
        ]
        joined = layer("Add", f"{block}.sum", *branches)
        padded = layer("Pad", f"{block}.pad", layer("Identity", f"{block}.same", joined), "pads")
        current = norm(f"{block}.norm1", convolution(f"{block}.conv1", padded))
        source = layer("Add", f"{block}.add", current, source)
    nodes.append(helper.make_node("ReduceMean", [source], ["mean"], axes=[2, 3]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["y"]))
    return make(nodes, weights, x=["n", 4, 6, 6], y=["n", 4], opset=17)


def calls(function: Callable[[], object]) -> int:
    """Count the calls of functions, and the steps of generators, that a function makes."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.slow
def test_the_work_grows_with_the_network_and_not_with_its_square() -> None:
    small, large = repeated(10), repeated(20)
    fewer, more = calls(lambda: fuse(small)), calls(lambda: fuse(large))
    assert more < 2.1 * fewer
    # what is done once, however large the network is, is little
    assert more > 1.9 * fewer
