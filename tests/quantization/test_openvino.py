"""What OpenVINO's CPU plugin really executes of files for it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rexport._cpu import this_cpu
from rexport.calibration import calibrate
from rexport.model_file import to_bytes
from rexport.quantization import OPENVINO, quantize
from rexport.quantization.targets import target_for
from tests._graphs import convolution, graph, run
from tests.quantization._tables import exported, pictures, sqnr_db, table_of

if TYPE_CHECKING:
    import onnx_ir as ir

openvino = pytest.importorskip("openvino", reason="pip install 'rexport[openvino]' to try its files")

# and how many integer sums they have
_NETWORKS = {
    "cifar_resnet8": 3,
    "cifar_preact_resnet8": 3,
    "resnext[depth=11,stages=3,cardinality=4,base_width=4,stem_width=16]": 3,
    "resnet[depth=11,stages=3,block=bottleneck,stem=deep,downsample=pool,stem_width=16,input_size=32]": 3,
}
_MULTIPLIES = {"Convolution", "Deconvolution", "FullyConnected"}


def _compiled(model: ir.Model, *, batch: int) -> Any:
    """Compile a model for a number of images, as the runtime does: with an open one other operators run as one."""
    core = openvino.Core()
    read = core.read_model(to_bytes(model))
    read.reshape([batch, *list(read.inputs[0].partial_shape)[1:]])
    # Processors with AMX or bfloat16 compute the rest in that, which is not what is tested here
    return core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def _executed(compiled: Any) -> Counter[tuple[str, str]]:
    """Count what is executed, by its kind and the type that it computes with."""
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    return Counter((info["layerType"].value, info["runtimePrecision"].value) for info in infos)


def _runs_alone(compiled: Any, name: str) -> bool:
    """Say whether a node of the file is executed by itself, not as the end of a convolution."""
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if name in info["originalLayersNames"].value.split(","):
            return str(info["layerType"].value) not in _MULTIPLIES
    raise AssertionError(f"{name} is not executed")


@pytest.mark.parametrize("name", _NETWORKS)
def test_every_convolution_runs_on_integers_and_the_sum_after_it_as_one_with_it(name: str) -> None:
    model, x = exported(name), pictures(8)
    result = quantize(model, calibrate(model, [pictures(16)]), target=OPENVINO)
    compiled = _compiled(result.model, batch=8)
    products = {key: count for key, count in _executed(compiled).items() if key[0] in _MULTIPLIES}
    assert {precision for _, precision in products} == {"u8"}
    sums = [layer.name for layer in result.layers if layer.op_type == "Add" and layer.precision == "int8"]
    assert len(sums) == _NETWORKS[name]
    assert not [one for one in sums if _runs_alone(compiled, one)]
    wanted = sum(layer.op_type in ("Conv", "Gemm") for layer in result.layers if layer.precision == "int8")
    assert sum(products.values()) == wanted
    (exact,) = run(model, x)
    assert sqnr_db(exact, compiled([x])[0]) > 25  # 33 dB and more were measured; a wrong scale anywhere leaves none


def test_biases_are_floats_and_nothing_is_lost_by_it() -> None:
    model = exported("cifar_resnet8")
    target = target_for("openvino", this_cpu())  # without VNNI sums of eight bits saturate
    file = quantize(model, calibrate(model, [pictures(8)]), target=target).model
    stored = [value.const_value for value in file.graph.initializers.values()]
    assert not [tensor for tensor in stored if tensor is not None and tensor.numpy().dtype == np.int32]
    x = pictures(4)
    # 3 dB and more from what ONNX Runtime computes
    assert sqnr_db(run(file, x)[0], _compiled(file, batch=4)([x])[0]) > 40


@pytest.mark.skipif(not this_cpu().has_vnni, reason="without VNNI OpenVINO runs transposed convolutions in float")
def test_a_transposed_convolution_runs_on_integers() -> None:
    body = (
        "a = Conv <pads=[1,1,1,1]> (x, u) p = Relu (a) b = ConvTranspose <strides=[2,2]> (p, w) r = Relu (b) "
        "c = Conv <pads=[1,1,1,1]> (r, v) y = Tanh (c)"
    )
    weights = {"u": convolution(8, 3), "w": convolution(8, 8, 2), "v": convolution(3, 8)}
    model = graph(body, weights)
    table = table_of(model, x=(-3.0, 3.0), p=(0.0, 3.0), r=(0.0, 3.0), c=(-3.0, 3.0))
    executed = _executed(_compiled(quantize(model, table, target=OPENVINO).model, batch=1))
    assert (executed["Deconvolution", "u8"], executed["Convolution", "u8"]) == (1, 2)


def test_what_is_kept_in_float_runs_in_float() -> None:
    """So that the tests above can fail."""
    model = exported("cifar_resnet8")
    result = quantize(model, calibrate(model, [pictures(8)]), target=OPENVINO, keep_float={"layer2.0.conv1"})
    executed = _executed(_compiled(result.model, batch=1))
    assert executed["Convolution", "u8"] == 8
    assert executed["Convolution", "f32"] == 1
