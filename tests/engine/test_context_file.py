"""ONNX files that hold engines, made by hand as ONNX Runtime writes them, and with something wrong in each way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from rexport._errors import EngineFileError, GateError, UsageError, VerificationError
from rexport.engine import BatchRange, BuildOptions, build_engine
from rexport.engine.context_file import holds_engine, read_context_file, require_compiled
from rexport.engine.ort_compiler import options_of
from rexport.engine_file import BackendName
from rexport.inspection import inspect_file
from rexport.model_file import save
from rexport.runtimes.onnxruntime_tensorrt import facts_of
from rexport.runtimes.probes import probe
from tests._graphs import convolution, graph, images
from tests.cli._run import rexport

_BLOB = b"an engine" * 1000
_INPUTS = [{"name": "images", "dtype": "float", "shape": [-1, 3, 16, 16]}]
_OUTPUTS = [{"name": "logits", "dtype": "float", "shape": [-1, 10]}]


def context(name: str = "part", *, domain: str = "com.microsoft", **attributes: Any) -> onnx.NodeProto:
    given = {
        "embed_mode": 1,
        "ep_cache_context": _BLOB,
        "hardware_architecture": "86",
        "onnx_model_filename": "m.onnx",
        **attributes,
    }
    kept = {key: value for key, value in given.items() if value is not None}
    return helper.make_node("EPContext", ["images"], ["logits"], name=name, domain=domain, **kept)


def written(path: Path, *nodes: onnx.NodeProto, classes: int = 10) -> Path:
    proto = helper.make_model(
        helper.make_graph(
            list(nodes),
            "g",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 16, 16])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
    )
    path.write_bytes(proto.SerializeToString())
    return path


def test_an_embedded_engine(tmp_path: Path) -> None:
    path = written(tmp_path / "m.onnx", context(source="TensorrtExecutionProvider", ep_sdk_version="10.13"))
    found = read_context_file(path)
    (part,) = found.parts
    assert (part.name, part.inputs, part.outputs) == ("part", ("images",), ("logits",))
    assert (part.embedded, part.main, part.engine_file, part.bytes) == (True, True, None, len(_BLOB))
    assert (part.hardware, part.onnx, part.sdk_version) == ("86", "m.onnx", "10.13")
    assert (found.outside, found.inputs[0], found.outputs[0]) == ({}, _INPUTS[0], _OUTPUTS[0])
    require_compiled(found, inputs=_INPUTS, outputs=_OUTPUTS)
    assert holds_engine(path)


def test_an_engine_beside_it_and_a_part_that_shares_it(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "a.engine").write_bytes(_BLOB)
    first = context(embed_mode=0, ep_cache_context="cache/a.engine", partition_name="p0")
    second = context("other", main_context=0, ep_cache_context=None)
    found = read_context_file(written(tmp_path / "m.onnx", first, second))
    assert [(part.main, part.engine_file, part.bytes) for part in found.parts] == [
        (True, "cache/a.engine", len(_BLOB)),
        (False, None, 0),
    ]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (helper.make_node("Relu", ["images"], ["logits"]), "holds no engine: it has no node"),
        (context(domain="mine"), "holds no engine: it has no node"),
        (context(ep_cache_context=b""), "its ep_cache_context is empty"),
        (context(ep_cache_context=None), "its ep_cache_context is empty"),
        (context(main_context=0), "refers to another"),
        (context(embed_mode=0, ep_cache_context="a.engine"), "is not beside it: a.engine"),
        (context(embed_mode=0, ep_cache_context=_BLOB), "is not beside it"),
        (context(embed_mode=0, ep_cache_context="../a.engine"), "outside of its folder"),
        (context(embed_mode=0, ep_cache_context="/etc/passwd"), "outside of its folder"),
        (context(embed_mode=0, ep_cache_context="C:\\a.engine"), "outside of its folder"),
    ],
)
def test_what_holds_no_engine_is_refused(node: onnx.NodeProto, words: str, tmp_path: Path) -> None:
    with pytest.raises(EngineFileError, match=words):
        read_context_file(written(tmp_path / "m.onnx", node))


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"EPContext, in words alone")
    assert not holds_engine(tmp_path / "m.onnx")
    with pytest.raises(EngineFileError, match="is not an ONNX file"):
        read_context_file(tmp_path / "m.onnx")
    with pytest.raises(EngineFileError, match="can't be read"):
        read_context_file(tmp_path / "none.onnx")


def test_what_stayed_outside_is_listed_and_layers_that_multiply_are_refused(tmp_path: Path) -> None:
    cast = helper.make_node("Cast", ["images"], ["same"], to=TensorProto.FLOAT)
    found = read_context_file(written(tmp_path / "m.onnx", cast, context()))
    assert found.outside_in_words == "1 Cast"
    require_compiled(found, inputs=_INPUTS, outputs=_OUTPUTS)
    conv = helper.make_node("Conv", ["images", "w"], ["same"])
    found = read_context_file(written(tmp_path / "m.onnx", cast, conv, conv, context()))
    with pytest.raises(GateError, match=r"^2 Conv stayed outside of the engine"):
        require_compiled(found, inputs=_INPUTS, outputs=_OUTPUTS)


def test_a_layer_in_a_branch_is_outside_too(tmp_path: Path) -> None:
    branch = helper.make_graph([helper.make_node("Gemm", ["a", "b"], ["y"])], "then", [], [])
    choice = helper.make_node("If", ["flag"], ["z"], then_branch=branch, else_branch=branch)
    assert read_context_file(written(tmp_path / "m.onnx", context(), choice)).outside == {"Gemm": 2, "If": 1}


def test_a_part_alone_is_not_the_model(tmp_path: Path) -> None:
    found = read_context_file(written(tmp_path / "m.onnx", context(), classes=64))
    with pytest.raises(VerificationError, match=r"outputs of the file .* logits: float \[-1, 64\], .* \[-1, 10\]"):
        require_compiled(found, inputs=_INPUTS, outputs=_OUTPUTS)


def test_inspect_says_what_it_is(tmp_path: Path) -> None:
    report = inspect_file(written(tmp_path / "m_ctx.onnx", context()))
    assert report.kind == "onnx-engine"
    assert report.document["parts"][0]["hardware"] == "86"
    assert dict(report.facts)["outside"] == "nothing: all of the model is in the engine"
    assert report.tables[0].rows[0][2:4] == ("in this file", "86")


def test_a_name_in_a_model_makes_no_engine_of_it(tmp_path: Path) -> None:
    model = graph("EPContext = Conv <pads = [1, 1, 1, 1]> (x, w) y = Relu (EPContext)", {"w": convolution(4, 3)})
    save(model, tmp_path / "m.onnx")
    assert inspect_file(tmp_path / "m.onnx").kind == "onnx"


def test_what_the_provider_is_told(tmp_path: Path) -> None:
    save(graph("y = Relu (x)"), tmp_path / "m.onnx")
    asked = {"batch": [1, 8, 32], "workspace_mib": 64, "optimization_level": 2, "hardware_compatible": True}
    options = options_of(facts_of(tmp_path / "m.onnx"), asked)
    assert [options[f"trt_profile_{which}_shapes"] for which in ("min", "opt", "max")] == [
        f"x:{batch}x3x16x16" for batch in (1, 8, 32)
    ]
    assert options["trt_max_workspace_size"] == str(64 * 2**20)
    assert (options["trt_builder_optimization_level"], options["trt_engine_hw_compatible"]) == ("2", "1")
    assert not [name for name in options if "cache" in name]  # an absolute folder of it would be refused here


@pytest.mark.slow
def test_without_a_gpu_it_is_not_usable(tmp_path: Path) -> None:
    if probe("tensorrt").usable:
        pytest.skip("ONNX Runtime's TensorRT provider is usable here")
    save(graph("y = Relu (x)"), tmp_path / "m.onnx")
    done = rexport("engine", tmp_path / "m.onnx", "--backend", "onnxruntime", "-o", tmp_path / "m_ctx.onnx")
    assert done.returncode == 5
    assert "ONNX Runtime's TensorRT provider is not usable here:" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.gpu
def test_on_a_gpu_the_file_computes_what_the_model_does(tmp_path: Path) -> None:
    import onnxruntime

    if not (found := probe("tensorrt")).usable:
        pytest.skip(f"{found.what} is not usable here: {found.reason}")
    weights = {"w": convolution(4, 3), "v": np.ones((4, 10), np.float32)}
    body = "a = Conv <pads = [1, 1, 1, 1]> (x, w) b = GlobalAveragePool (a) c = Flatten (b) y = Gemm (c, v)"
    save(graph(body, weights, outputs="float[N, 10] y"), tmp_path / "m.onnx")
    batch = BatchRange(least=1, best=2, most=4)
    built = build_engine(tmp_path / "m.onnx", BuildOptions(backend=BackendName.ONNXRUNTIME, batch=batch))
    built.save(tmp_path / "m_ctx.onnx")
    assert len(read_context_file(tmp_path / "m_ctx.onnx").parts) == 1
    providers = [("TensorrtExecutionProvider", {"device_id": "0"})]
    session = onnxruntime.InferenceSession(str(tmp_path / "m_ctx.onnx"), providers=providers)
    assert session.get_providers()[0] == "TensorrtExecutionProvider"
    usual = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    x = images(3)
    assert np.allclose(session.run(None, {"x": x})[0], usual.run(None, {"x": x})[0], atol=1e-2)  # TF32


def test_what_onnxruntime_can_not_be_told_is_refused() -> None:
    with pytest.raises(UsageError, match="ONNX Runtime does not support --strip"):
        BuildOptions(backend=BackendName.ONNXRUNTIME, strip=True)
    with pytest.raises(UsageError, match="leave --sm out"):
        build_engine(Path("none.onnx"), BuildOptions(backend=BackendName.ONNXRUNTIME, capabilities=(86,)))
