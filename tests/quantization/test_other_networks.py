"""Networks of torchvision and timm: what stays in float for each target, and why.

It is kept in ``float_layers.json``, so that a rule that finds more, or less, shows in the diff. After such a change:

    REXPORT_WRITE_EXPECTED=1 pytest -m "deep or not deep" tests/quantization/test_other_networks.py
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rexport.calibration import observed_tensors
from rexport.model_file import to_bytes
from rexport.passes import fuse
from rexport.passes._graph import is_rectifier
from rexport.quantization import OPENVINO, TENSORRT, X86, quantize
from rexport.runtimes.onnxruntime import executed_ops
from tests._deep import deep
from tests.passes.test_other_exporters import File, exported
from tests.quantization._tables import table_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.calibration import CalibrationTable
    from rexport.quantization import QuantizedModel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

_EXPECTED = Path(__file__).with_name("float_layers.json")
_WRITE = bool(os.environ.get("REXPORT_WRITE_EXPECTED"))
# of every reason that is in the file one network at least
_EVERY_KIND = [
    "timm.test_resnet",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("timm.resnetv2_18", "timm.seresnet18", "timm.skresnet18", "torchvision.mobilenet_v3_small")
    ),
]
_OTHERS = deep(
    "timm.resnet10t",
    "timm.resnet18d",
    "timm.resnext26ts",
    "torchvision.densenet121",
    "torchvision.googlenet",
    "torchvision.mobilenet_v2",
    "torchvision.regnet_y_400mf",
    "torchvision.resnet18",
    "torchvision.shufflenet_v2_x0_5",
    "vgg11_bn",
)
# ARM's kernels are those of x86
_TARGETS = {target.name: target for target in (X86, OPENVINO, TENSORRT)}


def _table(model: ir.Model) -> CalibrationTable:
    """Return a table of made-up ranges: what becomes integer depends on them only in that a ReLU gives nothing below 0.

    Else it is no end of the range, and has to run by itself.
    """
    rectified = {node.outputs[0].name for node in model.graph if is_rectifier(node)}
    ends = {name: (0.0 if name in rectified else -4.0, 4.0) for name in observed_tensors(model)}
    return table_of(model, **ends)


def _summary(result: QuantizedModel) -> dict[str, Any]:
    in_float = Counter(f"{layer.op_type}: {layer.why}" for layer in result.layers if layer.precision != "int8")
    return {"layers": len(result.layers), "float": dict(sorted(in_float.items()))}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*_EVERY_KIND, *_OTHERS])
def test_what_stays_in_float_and_why(name: str, torchvision: Any) -> None:
    model = fuse(exported(File(network=name, opset=17), torchvision)).model
    results = {key: quantize(model, _table(model), target=target) for key, target in _TARGETS.items()}
    summary = {key: _summary(result) for key, result in results.items()}
    expected = json.loads(_EXPECTED.read_text()) if _EXPECTED.exists() else {}
    if _WRITE:
        expected[name] = summary
        _EXPECTED.write_text(json.dumps(dict(sorted(expected.items())), indent=2, ensure_ascii=False) + "\n")
    assert summary == expected[name]
    # what is said to be integer is computed by integer kernels
    executed = executed_ops(to_bytes(results["x86"].model))
    products = [layer for layer in results["x86"].layers if layer.op_type == "Conv"]
    assert executed["QLinearConv"] == sum(layer.precision == "int8" for layer in products)
    assert executed["Conv"] + executed["FusedConv"] == sum(layer.precision != "int8" for layer in products)
