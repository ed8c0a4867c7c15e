from __future__ import annotations

import pytest

from rexport._errors import VerificationError
from rexport.engine.build_log import layers_of_log, types_of_products
from rexport.engine.inspector import types_of_inspected

# as TensorRT for RTX 1.7.1 writes it
_LINE = (
    "Name: conv1_myl0_1, LayerType: correlation, Inputs: [ { Name: q, Dimensions: [1,3,8,8], Format/Datatype: Int8, "
    "Datatype: Int8 } ], Constants: [ { Name: w, Datatype: Int8 } ], Outputs: [ { Name: y, Datatype: Float } ], "
    "TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: conv1][ONNX Layer: relu]"
)


def test_a_line_is_read() -> None:
    (layer,) = layers_of_log(["something else", f"Layers:\n{_LINE}\n"])
    assert (layer.kind, layer.sources, layer.outputs) == ("correlation", ("conv1", "relu"), ("Float",))
    assert layer.multiplies
    assert types_of_products([layer], ["conv1"]) == {"conv1": layer.inputs[0]}


@pytest.mark.parametrize(
    ("messages", "words"),
    [([], "lists no layers"), ([_LINE.replace("Constants", "Others")], "can't be parsed")],
)
def test_what_can_not_be_read_is_an_error(messages: list[str], words: str) -> None:
    with pytest.raises(VerificationError, match=words):
        layers_of_log(messages)


def test_a_layer_that_is_missing_is_an_error() -> None:
    with pytest.raises(VerificationError, match="names no layer for conv2"):
        types_of_products(layers_of_log([_LINE]), ["conv1", "conv2"])


def test_the_inspectors_json_of_both_formats() -> None:
    old = {"Name": "a", "Inputs": [{"Format/Datatype": "Row major Int8 format"}], "Metadata": "[ONNX Layer: conv1]"}
    new = {"Name": "b", "Inputs": [{"Format": "Linear", "Datatype": "FP16"}], "Metadata": "[ONNX Layer: conv2]"}
    types = types_of_inspected({"Layers": ["a name alone", old, new]}, ["conv1", "conv2"])
    assert types == {"conv1": "Int8", "conv2": "Half"}
    with pytest.raises(VerificationError, match="names no layer for fc"):
        types_of_inspected({"Layers": [old]}, ["conv1", "fc"])
    with pytest.raises(VerificationError, match="an unknown tensor type"):
        types_of_inspected({"Layers": [{**old, "Inputs": [{"Datatype": "Odd"}]}]}, ["conv1"])
