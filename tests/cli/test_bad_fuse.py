"""``rexport fuse`` with files that are no models, models that are not valid, and valid ones that can't be run.

Each is refused with one sentence and the documented exit code, and nothing is written; or the result is whole.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests._deep import deep
from tests.cli._run import invoke

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

_RANDOM = np.random.default_rng(0)
_WEIGHTS = {
    "w": (_RANDOM.standard_normal((4, 3, 3, 3)) / 5).astype(np.float32),
    "scale": np.array([1, -2, 0.5, 1.5], np.float32),
    "bias": np.array([0, 0.5, -1, 2], np.float32),
    "mean": np.array([0.1, 0, -0.2, 0.3], np.float32),
    "var": np.array([0.5, 1, 2, 1], np.float32),
}


def good(**weights: np.ndarray) -> onnx.ModelProto:
    """Return the model of a convolution and a BatchNormalization, 2 KB in size."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], name="first", pads=[1] * 4),
        helper.make_node("BatchNormalization", ["conv", "scale", "bias", "mean", "var"], ["y"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 8, 8])],
        [numpy_helper.from_array(array, name) for name, array in (_WEIGHTS | weights).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def fuse(*options: str) -> Result:
    """Fuse ``model.onnx`` to ``out.onnx`` in the working folder; whatever comes of it, these hold."""
    before = {path: path.read_bytes() for path in Path().iterdir() if path.stat().st_size < 1 << 20}
    result = invoke("fuse", "model.onnx", "-o", "out.onnx", *options)
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    assert {path: path.read_bytes() for path in before} == before
    left = {path.name for path in Path().iterdir()} - {path.name for path in before}
    assert {name for name in left if name.endswith(".part")} == set()
    if result.exit_code == 0:
        onnx.checker.check_model(Path("out.onnx").read_bytes())
    else:
        assert not Path("out.onnx").exists()
        assert result.stdout == ""
        assert len(result.stderr.strip().splitlines()) == 1
        assert result.stderr.startswith("error: ")
        assert result.stderr.rstrip().endswith((".", "?"))
    return result


def refused(sentence: str, *options: str, exit_code: int = 1) -> None:
    result = fuse(*options)
    assert sentence in result.stderr
    assert result.exit_code == exit_code


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "10000")  # a sentence is one line
    return tmp_path


def write(proto: onnx.ModelProto) -> None:
    Path("model.onnx").write_bytes(proto.SerializeToString())


# no models


_NO_MODELS = {
    "empty": b"",
    "line": b"\n",
    "json": b"{}",
    "zeros": bytes(4096),
    "noise": _RANDOM.bytes(4096),
    "checkpoint": b"PK\x03\x04" + bytes(99),
    "text": "ü".encode("utf-16"),
}


@pytest.mark.parametrize("content", _NO_MODELS.values(), ids=_NO_MODELS)
def test_what_is_no_model(content: bytes) -> None:
    Path("model.onnx").write_bytes(content)
    refused("model.onnx is not an ONNX")


@pytest.mark.slow
@pytest.mark.parametrize("step", [61, *deep(23)])
@pytest.mark.parametrize("verify", ["--verify", "--no-verify"])
def test_a_model_cut_off_anywhere(verify: str, step: int) -> None:
    whole = good().SerializeToString()
    for end in range(0, len(whole) - 1, step):
        Path("model.onnx").write_bytes(whole[:end])
        assert fuse(verify).exit_code == 1


@pytest.mark.slow
@pytest.mark.parametrize("step", [29, *deep(5)])
def test_a_model_with_any_byte_wrong(step: int) -> None:
    whole = good().SerializeToString()
    for at in range(0, len(whole), step):
        Path("model.onnx").write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        fuse("--no-verify")
        Path("out.onnx").unlink(missing_ok=True)


# graphs that are not valid


def cycle(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "y"


def unsorted(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(proto.graph.node[0])
    del proto.graph.node[0]


def same_result(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Relu", ["x"], ["y"]))


def same_weight(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(proto.graph.initializer[0])


def same_input(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(proto.graph.input[0])


def no_result(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].name = "nowhere"


def no_outputs(proto: onnx.ModelProto) -> None:
    del proto.graph.output[:]


def no_nodes(proto: onnx.ModelProto) -> None:
    del proto.graph.node[:]
    proto.graph.output[0].name = "x"


def no_opset(proto: onnx.ModelProto) -> None:
    del proto.opset_import[:]


def two_opsets(proto: onnx.ModelProto) -> None:
    proto.opset_import.append(helper.make_opsetid("ai.onnx", 11))


def future_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 999


def input_without_shape(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.ClearField("shape")


def input_without_type(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].ClearField("type")


def too_few_inputs(proto: onnx.ModelProto) -> None:
    del proto.graph.node[1].input[3:]


def empty_input(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[1] = ""


def unknown_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].op_type = "Convolve"


def wrong_attribute(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute[0].CopyFrom(helper.make_attribute("pads", "same"))


def attribute_twice(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(proto.graph.node[0].attribute[0])


def short_data(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-1]


def long_data(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].raw_data += b"1234"


def negative_weight_size(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[0] = -4


def unknown_type(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].data_type = 99


def sparse_weight(proto: onnx.ModelProto) -> None:
    values, places = np.ones(3, np.float32), np.array([1, 5, 9])
    del proto.graph.initializer[0]
    proto.graph.sparse_initializer.append(
        helper.make_sparse_tensor(numpy_helper.from_array(values, "w"), numpy_helper.from_array(places), [4, 3, 3, 3])
    )


def sparse_constant(proto: onnx.ModelProto) -> None:
    sparse_weight(proto)
    constant = helper.make_node("Constant", [], ["w"], sparse_value=proto.graph.sparse_initializer[0])
    del proto.graph.sparse_initializer[:]
    proto.graph.node.insert(0, constant)


def calls_itself(proto: onnx.ModelProto) -> None:
    again = helper.make_node("Again", ["a"], ["b"], domain="own")
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    proto.functions.append(helper.make_function("own", "Again", ["a"], ["b"], [again], imports))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.graph.node.append(helper.make_node("Again", ["x"], ["z"], domain="own"))


def same_metadata(proto: onnx.ModelProto) -> None:
    for value in "12":
        proto.metadata_props.add(key="key", value=value)


@pytest.mark.parametrize("verify", ["--verify", "--no-verify"])
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (cycle, "must be topologically sorted, however input 'y' of node: name: first OpType: Conv is not output of"),
        (unsorted, "must be topologically sorted, however input 'conv' of node: name: second"),
        (same_result, "'y' has been used as output names multiple times"),
        (same_weight, "w initializer name is not unique"),
        (same_input, "'x' has been used as graph input names multiple times"),
        (no_result, "Graph output 'nowhere' is not an output of any node"),
        (no_outputs, "it has no outputs"),
        (no_nodes, "is not an ONNX model: it has no nodes"),
        (no_opset, "is not an ONNX model: it has no nodes or names no opset"),
        (two_opsets, "it names two versions of ai.onnx, 18 and 11"),
        (future_opset, "is of opset 999, and the newest that the package onnx knows is"),
        (input_without_shape, "the input 'x' has no shape, not even one of open sizes"),
        (input_without_type, "is not a valid ONNX model: Field 'type'"),
        (too_few_inputs, "input size 3 not in range"),
        (empty_input, "input 1 is marked single but has an empty string"),
        (unknown_operator, "No Op registered for Convolve"),
        (wrong_attribute, "Expected: 'INTS', actual: 'STRING'"),
        (attribute_twice, "Attribute 'pads' appeared multiple times"),
        (short_data, "raw_data size (431 bytes) is too small"),
        (long_data, "the tensor 'w' can't be read"),
        (negative_weight_size, "Negative dimension value (tensor name: w)"),
        (unknown_type, "99 is not a valid DataType"),
        (sparse_weight, "holds sparse tensors, which rexport can't read; store its weights as dense ones"),
        (sparse_constant, "holds sparse tensors, which rexport can't read; store its weights as dense ones"),
        (calls_itself, "must not be recursive"),
        (same_metadata, "duplicate keys in metadata_props"),
    ],
)
def test_a_graph_that_is_not_valid(damage: Callable[[onnx.ModelProto], None], sentence: str, verify: str) -> None:
    proto = good()
    damage(proto)
    write(proto)
    refused(sentence, verify)


def test_a_name_that_is_no_text() -> None:
    Path("model.onnx").write_bytes(good().SerializeToString().replace(b"second", b"s\xffcond"))
    refused(r"the name b's\xffcond' in it is not UTF-8")


# external data


def outside(location: str, size: int = 108) -> onnx.ModelProto:
    proto = good()
    weight = proto.graph.initializer[0]
    weight.ClearField("raw_data")
    if size != 108:
        weight.dims[:] = [size]
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    return proto


@pytest.mark.parametrize("verify", ["--verify", "--no-verify"])
@pytest.mark.parametrize(
    ("location", "sentence"),
    [
        ("missing.bin", "missing.bin, but it is not regular file"),
        ("../secret.bin", "'../secret.bin' points outside the directory"),
        ("/etc/passwd", "should be a relative path, but it is an absolute path: /etc/passwd"),
        ("a/../../secret.bin", "points outside the directory"),
        ("", "should not be empty"),
        (".", "not regular file"),
    ],
)
def test_weights_that_are_not_in_the_folder(location: str, sentence: str, verify: str) -> None:
    write(outside(location))
    refused(sentence, verify)


def test_weights_in_the_folder_come_into_the_one_file() -> None:
    Path("w.bin").write_bytes(_WEIGHTS["w"].tobytes())
    write(outside("w.bin"))
    assert fuse().exit_code == 0
    Path("w.bin").unlink()
    onnx.checker.check_model(onnx.load("out.onnx"), full_check=True)
    assert not onnx.load("out.onnx", load_external_data=False).graph.initializer[0].external_data


def test_more_weights_than_one_file_holds() -> None:
    Path("w.bin").touch()
    os.truncate("w.bin", 3 * 2**30)  # takes no room on the disk
    write(outside("w.bin", size=3 * 2**28))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for verify in ("--verify", "--no-verify"):
        refused("model.onnx has 3.0 GiB of weights, and one ONNX file, as rexport writes it, holds 2 at most", verify)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB: they were not read


# valid models that ONNX Runtime can't run: refused with the reason and a way out, which works


def of_others(proto: onnx.ModelProto) -> None:
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    proto.graph.node.append(helper.make_node("Foo", ["x"], ["z"], domain="com.example"))
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 3, 8, 8]))


def convolution_of_integers(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((4, 3, 3, 3), np.int32), "w"))


def flat_weight(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[:] = [4, 27]


def number_for_a_weight(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(2, np.float32), "w"))


def odd_groups(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(helper.make_attribute("group", 2))


def short_scale(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.ones(3, np.float32), "scale"))


def square_scale(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.ones((4, 1), np.float32), "scale"))


def bare_pads(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute[0].ints[:] = [1, 1, 1]


def doubles(proto: onnx.ModelProto) -> None:
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE


def endless_input(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 10**12


def sequence_input(proto: onnx.ModelProto) -> None:
    sequence = helper.make_tensor_sequence_value_info("many", TensorProto.FLOAT, ["n", 3, 8, 8])
    proto.graph.initializer.append(numpy_helper.from_array(np.array(0), "at"))
    proto.graph.node.insert(0, helper.make_node("SequenceAt", ["many", "at"], ["x"]))
    proto.graph.input[0].CopyFrom(sequence)


@pytest.mark.parametrize(
    "change",
    [of_others, convolution_of_integers, flat_weight, number_for_a_weight, odd_groups, short_scale, square_scale,
     bare_pads, doubles, endless_input, sequence_input],
)  # fmt: skip
def test_a_model_that_does_not_run(change: Callable[[onnx.ModelProto], None]) -> None:
    proto = good()
    change(proto)
    write(proto)
    refused("--no-verify")
    assert fuse("--no-verify").exit_code == 0


def test_operators_of_others_are_there_afterwards() -> None:
    proto = good()
    of_others(proto)
    write(proto)
    refused("com.example:Foo(-1) is not a registered function/op")
    assert fuse("--no-verify").exit_code == 0
    assert [node.op_type for node in onnx.load("out.onnx").graph.node] == ["Conv", "Foo"]


# valid models that run, and no harm is done


def text_goes_through(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("text", TensorProto.STRING, ["n"]))
    proto.graph.node.append(helper.make_node("Identity", ["text"], ["same"]))
    proto.graph.output.append(helper.make_tensor_value_info("same", TensorProto.STRING, ["n"]))


def sequence_comes_out(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("SequenceConstruct", ["conv", "y"], ["many"]))
    proto.graph.output.append(helper.make_tensor_sequence_value_info("many", TensorProto.FLOAT, ["n", 4, 8, 8]))


def input_comes_out(proto: onnx.ModelProto) -> None:
    proto.graph.output.append(proto.graph.input[0])


def weight_comes_out(proto: onnx.ModelProto) -> None:
    proto.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 3, 3]))


def output_of_any_shape(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].type.tensor_type.ClearField("shape")


def negative_sizes(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1


def wrong_output_shape(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7


def no_number(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((4, 3, 3, 3), np.nan, np.float32), "w"))


def constant_throughout(proto: onnx.ModelProto) -> None:
    del proto.graph.input[:]
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((1, 3, 8, 8), np.float32), "x"))


def many_layers(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].output[0] = "r0"
    proto.graph.node.extend(helper.make_node("Sigmoid", [f"r{i}"], [f"r{i + 1}"]) for i in range(1500))
    proto.graph.node.append(helper.make_node("Sigmoid", ["r1500"], ["y"]))


def halves(proto: onnx.ModelProto) -> None:
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16


@pytest.mark.parametrize("verify", ["--verify", "--no-verify"])
@pytest.mark.parametrize(
    "change",
    [text_goes_through, sequence_comes_out, input_comes_out, weight_comes_out, output_of_any_shape,
     negative_sizes, wrong_output_shape, no_number, constant_throughout, halves,
     pytest.param(many_layers, marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_model_that_is_odd(change: Callable[[onnx.ModelProto], None], verify: str) -> None:
    proto = good()
    change(proto)
    write(proto)
    assert fuse(verify, "--json").exit_code == 0
    out = onnx.load("out.onnx")
    assert [value.name for value in out.graph.input] == [value.name for value in proto.graph.input]
    assert [value.name for value in out.graph.output] == [value.name for value in proto.graph.output]
