from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from rexport._errors import ModelFileError, RexportError
from rexport.model_file import Head, Metadata, default_opset, load, model_hash, save, to_bytes
from rexport.model_inputs import image_input
from rexport.passes import fuse
from rexport.preprocessing import Preprocessing, Takes
from tests._graphs import graph

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXT = """
    <ir_version: 9, opset_import: ["": 18]>
    graph (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) <float[4, 3, 1, 1] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}>
    { y = Conv(x, w) }"""
METADATA = Metadata(
    network="resnext[depth=29,cardinality=8]",
    preprocessing=Preprocessing(size=8, resize=10, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0), takes=Takes.PIXELS),
    classes=("cat", "Hündchen", 'a "quoted" name'),
    head=Head.SOFTMAX,
    features=("layer1", "layer3.5"),
    weights_sha256="ab" * 32,
    quantization='{"target": "x86"}',
    versions='{"rexport": "0.1.0"}',
)


def proto() -> onnx.ModelProto:
    return onnx.parser.parse_model(TEXT)


def model() -> ir.Model:
    return ir.from_proto(proto())


def write(path: Path, proto: onnx.ModelProto) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


# reading and writing


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    original = model()
    METADATA.write_to(original)
    original.graph[0].name = "y"
    save(original, tmp_path / "m.onnx")
    loaded = load(tmp_path / "m.onnx")
    assert to_bytes(loaded) == to_bytes(original)
    assert model_hash(loaded) == model_hash(original)
    assert Metadata.of(loaded) == METADATA
    assert default_opset(loaded) == 18


def test_the_hash_is_of_every_weight() -> None:
    other = model()
    other.graph.initializers["w"].const_value = ir.tensor(np.zeros((4, 3, 1, 1), np.float32), name="w")
    assert model_hash(other) != model_hash(model())


def test_the_long_name_of_the_standard_operators_is_understood(tmp_path: Path) -> None:
    changed = proto()
    changed.opset_import[0].domain = "ai.onnx"
    assert default_opset(load(write(tmp_path / "m.onnx", changed))) == 18


def test_a_model_without_the_standard_operators_has_no_opset_of_them(tmp_path: Path) -> None:
    changed = proto()
    changed.graph.node[0].domain = changed.opset_import[0].domain = "com.example"
    with pytest.raises(ModelFileError, match=r"has no operators of ONNX itself, only of com\.example; take a network"):
        default_opset(load(write(tmp_path / "m.onnx", changed)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not an ONNX model: it has no nodes or names no opset"),
        (b"Not a model at all, but a text.", "is not an ONNX file"),
        (proto().SerializeToString()[:-20], "is not an ONNX file"),
        (b"PK\x03\x04" + bytes(100), "is not an ONNX"),
    ],
    ids=["empty", "text", "truncated", "a checkpoint"],
)
def test_a_file_that_is_no_model(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=reason) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("m.rxb", "m.rxb is a bundle for devices; name the ONNX"),
        ("p.toml", "p.toml is a file of settings; `rexport bench"),
    ],
)
def test_files_of_other_commands_are_named(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("[model]")
    with pytest.raises(ModelFileError, match=says):
        load(tmp_path / name)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"is a folder; name an ONNX file"):
        load(tmp_path)
    with pytest.raises(ModelFileError, match=r"nothing\.onnx does not exist; name an ONNX file"):
        load(tmp_path / "nothing.onnx")


def bad_type(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(TensorProto(name="v", data_type=99, dims=[1], raw_data=b"1234"))


def short_weight(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(TensorProto(name="v", data_type=TensorProto.FLOAT, dims=[4], raw_data=b"123"))


def missing_tensor(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "nowhere"


def unsorted_nodes(proto: onnx.ModelProto) -> None:
    proto.graph.node.insert(0, helper.make_node("Relu", ["y"], ["z"]))


def unknown_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].op_type = "Convolve"


def future(proto: onnx.ModelProto) -> None:
    proto.ir_version = 99


@pytest.mark.parametrize("break_it", [bad_type, short_weight, missing_tensor, unsorted_nodes, unknown_operator, future])
def test_an_invalid_graph(break_it: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
    changed = proto()
    break_it(changed)
    with pytest.raises(ModelFileError, match="is not a valid ONNX model"):
        load(write(tmp_path / "m.onnx", changed))


@given(data=st.data())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_holds_it_is_loaded_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(proto().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with suppress(RexportError):
        image_input(load(path))


# external data


def external(location: str, **more: object) -> onnx.ModelProto:
    changed = proto()
    weight = changed.graph.initializer[0]
    weight.ClearField("float_data")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        weight.external_data.add(key=key, value=str(value))
    return changed


@pytest.fixture
def data() -> bytes:
    return np.arange(12, dtype=np.float32).tobytes()


@pytest.mark.parametrize("location", ["w.bin", "./w.bin", "weights/w.bin"])
def test_external_data_of_the_folder_comes_along(location: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / location).write_bytes(data)
    loaded = load(write(tmp_path / "m.onnx", external(location)))
    (tmp_path / location).unlink()
    save(loaded, tmp_path / "copy.onnx")  # one file, and no longer in need of the other
    weight = load(tmp_path / "copy.onnx").graph.initializers["w"].const_value
    assert weight is not None
    assert weight.numpy().tobytes() == data


@pytest.mark.parametrize("location", ["../w.bin", "weights/../../w.bin", "ABSOLUTE", "link.bin", "linked/w.bin", ""])
def test_external_data_of_elsewhere_is_refused(location: str, data: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    (folder / "weights").mkdir(parents=True)
    outside = tmp_path / "w.bin"
    outside.write_bytes(data)
    (folder / "link.bin").symlink_to(outside)
    (folder / "linked").symlink_to(tmp_path)
    changed = external(str(outside) if location == "ABSOLUTE" else location)
    with pytest.raises(ModelFileError, match="is not a valid ONNX model"):
        load(write(folder / "m.onnx", changed))


@pytest.mark.parametrize("more", [{"offset": 40}, {"length": 40}, {"offset": -48, "length": 48}, {"length": "x"}, {}])
def test_external_data_that_is_not_there_is_refused(more: dict[str, object], data: bytes, tmp_path: Path) -> None:
    if more:
        (tmp_path / "w.bin").write_bytes(data)
    with pytest.raises(ModelFileError, match="is not a valid ONNX model"):
        load(write(tmp_path / "m.onnx", external("w.bin", **more)))


# engines in disguise


def as_node(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("EPContext", ["y"], ["z"], domain="com.microsoft"))


def in_function(proto: onnx.ModelProto) -> None:
    engine = helper.make_node("EPContext", ["a"], ["b"], domain="com.microsoft")
    imports = [helper.make_opsetid("com.microsoft", 1)]
    proto.functions.append(helper.make_function("own", "Hidden", ["a"], ["b"], [engine], imports))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.graph.node.append(helper.make_node("Hidden", ["y"], ["z"], domain="own"))


def in_branch(proto: onnx.ModelProto) -> None:
    def branch(name: str) -> onnx.GraphProto:
        engine = helper.make_node("EPContext", ["y"], [name], domain="com.microsoft")
        return helper.make_graph([engine], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "flag"))
    proto.graph.node.append(helper.make_node("If", ["flag"], ["z"], then_branch=branch("p"), else_branch=branch("q")))


@pytest.mark.parametrize("hide", [as_node, in_function, in_branch])
def test_a_compiled_engine_is_no_model(hide: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
    changed = proto()
    changed.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    hide(changed)
    with pytest.raises(ModelFileError, match=r"holds a compiled engine \(an EPContext node\)"):
        load(write(tmp_path / "m.onnx", changed))


@pytest.mark.parametrize("shape", ["0, 3, 8, 8", "N, 3, 0, 8", "N, 0, 8, 8"])
def test_an_input_without_a_number_is_refused(shape: str, tmp_path: Path) -> None:
    changed = onnx.parser.parse_model(TEXT)
    for size, text in zip(changed.graph.input[0].type.tensor_type.shape.dim, shape.split(", "), strict=True):
        if text == "0":
            size.dim_value = 0
    with pytest.raises(ModelFileError, match=r"the input 'x' has a size of 0, so it holds no number"):
        load(write(tmp_path / "m.onnx", changed))


# metadata


def test_a_model_of_others_says_nothing() -> None:
    other = model()
    other.metadata_props["author"] = "someone"
    assert Metadata.of(other) == Metadata()


def test_other_metadata_stays_and_old_metadata_goes() -> None:
    changed = model()
    changed.metadata_props["author"] = "someone"
    METADATA.write_to(changed)
    less = dataclasses.replace(METADATA, quantization=None, classes=())
    less.write_to(changed)
    assert Metadata.of(changed) == less
    assert changed.metadata_props["author"] == "someone"


@given(
    classes=st.lists(st.text(st.characters(codec="utf-8"))),
    network=st.none() | st.text(st.characters(codec="utf-8"), min_size=1),
)
def test_any_names_survive(classes: list[str], network: str | None) -> None:
    changed = model()
    metadata = Metadata(network=network, classes=tuple(classes))
    metadata.write_to(changed)
    assert Metadata.of(ir.from_proto(onnx.load_from_string(to_bytes(changed)))) == metadata


GOOD = json.loads(Preprocessing(size=8).to_json())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", "cat, dog"),
        ("classes", '{"cat": 1}'),
        ("classes", '"cat"'),
        ("classes", "null"),
        ("features", "layer1"),
        ("head", "sigmoid"),
        ("preprocessing", ""),
        ("preprocessing", "[]"),
        ("preprocessing", "8"),
        ("preprocessing", "{}"),
        *[
            ("preprocessing", json.dumps(GOOD | change))
            for change in (
                {"size": None},
                {"size": 0},
                {"size": -8},
                {"size": float("inf")},
                {"size": float("nan")},
                {"resize": 4},
                {"resize": "big"},
                {"mean": [0.5, 0.5]},
                {"mean": 0.5},
                {"mean": ["a", "b", "c"]},
                {"mean": [float("nan")] * 3},
                {"std": [1, 0, 1]},
                {"std": [1, -1, 1]},
                {"std": [1, 1, float("inf")]},
            )
        ],
    ],
)
def test_metadata_that_can_t_be_read(key: str, value: str) -> None:
    changed = model()
    changed.metadata_props[f"rexport.{key}"] = value
    with pytest.raises(ModelFileError, match=r"metadata can't be read.*export the model again"):
        Metadata.of(changed)


def test_every_node_gets_a_name_of_its_own(tmp_path: Path) -> None:
    model = graph("a = Relu (x) b = Relu (a) c = Relu (b) b_1 = Relu (c) y = Relu (b_1)")
    for node, name in zip(model.graph, ["same", "", "b", "same", "y"], strict=True):
        node.name = name
    save(model, tmp_path / "m.onnx")
    names = [node.name for node in load(tmp_path / "m.onnx").graph]
    assert names == ["same", "b_1", "b", "same_1", "y"]
    assert [node.name for node in fuse(model, passes=[]).model.graph] == names
    assert model_hash(load(tmp_path / "m.onnx")) == model_hash(load(tmp_path / "m.onnx"))
