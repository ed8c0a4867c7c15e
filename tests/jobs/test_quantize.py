"""The whole way from a float file to a proven INT8 file, and what does not get there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import rexport.jobs.quantize as job
from rexport._errors import GateError, ModelFileError, UsageError, VerificationError
from rexport.choices import Recovery
from rexport.evaluation.proof import Pictures, Verdict
from rexport.jobs.quantize import QuantizeRequest, check_gate, run
from rexport.model_file import Metadata, load, save
from rexport.preprocessing import PictureOptions
from rexport.quantization import OPENVINO, TENSORRT, X86, QuantizedModel, Target
from tests._graphs import convolution, graph

if TYPE_CHECKING:
    from collections.abc import Callable

_BODY = """
    a = Conv<pads = [1, 1, 1, 1]>(x, w1) r = Relu(a) b = Conv<pads = [1, 1, 1, 1]>(r, w2) s = Add(b, r) c = Relu(s)
    p = GlobalAveragePool(c) f = Flatten(p) y = Gemm<transB = 1>(f, wf)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a network and pictures, each of a colour of its own."""
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "cache"))
    weights = {"w1": convolution(8, 3), "w2": convolution(8, 8), "wf": convolution(5, 8, 1)[:, :, 0, 0]}
    save(graph(_BODY, weights, outputs="float[N, 5] y"), tmp_path / "m.onnx")
    random = np.random.default_rng(0)
    pictures = random.uniform(-2, 2, (80, 3, 1, 1)) + 0.3 * random.uniform(-1, 1, (80, 3, 16, 16))
    np.save(tmp_path / "pictures.npy", pictures.astype(np.float32))
    return tmp_path


def _request(folder: Path, **changes: Any) -> QuantizeRequest:
    """Ask for a file without what takes longest, the rounding of weights, unless ``recovery`` is given."""
    given = {"model": folder / "m.onnx", "output": folder / "q.onnx", "target": X86, "data": folder / "pictures.npy"}
    return QuantizeRequest(**(given | {"samples": 32, "recovery": Recovery.EQUALIZE} | changes))


@pytest.mark.slow
@pytest.mark.parametrize("target", [X86, OPENVINO, TENSORRT], ids=lambda target: target.name)
def test_a_file_is_proven_and_says_so(folder: Path, target: Target) -> None:
    result = run(_request(folder, target=target, recovery=None))
    assert result.proof is not None
    assert (result.proof.verdict, result.proof.pictures, result.proof.images) == (Verdict.GOOD, Pictures.HELD_OUT, 32)
    assert result.repaired == ()
    document = result.to_json()
    assert document["proof"]["verdict"] == "good"
    assert document["bytes"] == (folder / "q.onnx").stat().st_size
    described = json.loads(Metadata.of(load(folder / "q.onnx")).quantization or "")
    assert described["proof"] == document["proof"]
    json.dumps(document, allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "pictures", "images"),
    [
        ({"samples": 80}, Pictures.SEEN, 32),  # all were calibrated on
        ({"samples": 60}, Pictures.SEEN, 32),  # 20 are left, too few
        ({"samples": 80, "recovery": Recovery.EQUALIZE}, Pictures.SEEN, 32),
        ({"samples": 48}, Pictures.HELD_OUT, 32),
    ],
)
def test_pictures_that_were_not_calibrated_on_come_first(
    folder: Path, changes: dict[str, Any], pictures: Pictures, images: int
) -> None:
    proof = run(_request(folder, **{"recovery": None, **changes})).proof
    assert proof is not None
    assert (proof.pictures, proof.images) == (pictures, images)


def test_a_table_alone_shows_that_a_file_runs(folder: Path) -> None:
    run(_request(folder, save_table=folder / "t.json"))
    proof = run(_request(folder, data=None, tables=(folder / "t.json",), output=folder / "t.onnx")).proof
    assert proof is not None
    assert (proof.verdict, proof.pictures) == (Verdict.UNJUDGED, Pictures.DRAWN)
    beside = run(_request(folder, tables=(folder / "t.json",), recovery=Recovery.NONE, output=folder / "u.onnx")).proof
    assert beside is not None
    assert beside.pictures is Pictures.HELD_OUT


def _mostly_float(folder: Path, channels: int) -> Path:
    """Write a network of a convolution and of operators without integer kernels."""
    rest = " ".join(f"e{i + 1} = Elu(e{i})" for i in range(6))
    body = f"a = Conv<pads = [1, 1, 1, 1]>(x, w) e0 = Elu(a) {rest} y = GlobalAveragePool(e6)"
    save(graph(body, {"w": convolution(channels, 3)}, outputs="float[N, C, 1, 1] y"), folder / "float.onnx")
    return folder / "float.onnx"


def test_a_file_that_would_be_mostly_float_and_no_smaller_is_refused(folder: Path) -> None:
    said: list[str] = []
    request = _request(folder, model=_mostly_float(folder, 4))
    with pytest.raises(GateError, match=r"no smaller than .*float\.onnx .* 1 of 9 layers in INT8, because: Elu has no"):
        run(request, note=said.append)
    assert said[-1].startswith("1 of 9 layers in INT8, because: Elu has no integer kernel (7); ")
    assert not request.output.exists()


def test_a_file_that_is_smaller_only_because_it_is_fused_is_refused(folder: Path) -> None:
    model = load(_mostly_float(folder, 4))
    first = model.graph.node(0)
    repeated = ir.node("Identity", [first.outputs[0]], metadata_props={"trace": "network.py, line 1 " * 1000})
    first.outputs[0].replace_all_uses_with(repeated.outputs[0])
    repeated.replace_input_with(0, first.outputs[0])
    model.graph.insert_after(first, repeated)
    save(model, folder / "noted.onnx")
    with pytest.raises(GateError, match=r"KiB, fused \d KiB\), with 1 of 9 layers in INT8"):
        run(_request(folder, model=folder / "noted.onnx"))


def test_a_file_that_is_mostly_float_and_smaller_is_written_with_a_note(folder: Path) -> None:
    said: list[str] = []
    run(_request(folder, model=_mostly_float(folder, 400)), note=said.append)
    assert said[-1].startswith("1 of 9 layers in INT8, because: Elu has no integer kernel (7); ")
    assert (folder / "q.onnx").stat().st_size < (folder / "float.onnx").stat().st_size


def _negate(model: ir.Model, index: int) -> None:
    """Give a layer weights of the other sign."""
    node = [node for node in model.graph if node.op_type == "Conv"][index]
    value = node.inputs[1].producer().inputs[0]
    value.const_value = ir.tensor(-value.const_value.numpy(), name=value.name)


def _scale(model: ir.Model, factor: float) -> None:
    """Let what reads the pictures take their integers for others."""
    dequantize = next(node for node in model.graph if node.op_type == "DequantizeLinear")
    scale = dequantize.inputs[1]
    wrong = ir.Value(name="wrong", shape=scale.shape, type=scale.type)
    wrong.const_value = ir.tensor(scale.const_value.numpy() * np.float32(factor), name="wrong")
    model.graph.register_initializer(wrong)
    dequantize.replace_input_with(1, wrong)


@pytest.mark.parametrize("plant", [lambda m: _negate(m, 1), lambda m: _scale(m, 3)], ids=["weight", "scale"])
@pytest.mark.parametrize("audited", [True, False])
def test_no_wrong_file_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[ir.Model], None], audited: bool
) -> None:
    """What a file stores is held against what it was made from, and what it gives against what came in: each alone."""
    make = job.quantize

    def wrongly(*args: Any, **options: Any) -> QuantizedModel:
        quantized = make(*args, **options)
        plant(quantized.model)
        return quantized

    monkeypatch.setattr(job, "quantize", wrongly)
    if not audited:
        monkeypatch.setattr(job, "audit", lambda source, quantized: None)
    message = "please report it" if audited else r"not usable: SQNR .* It goes wrong at the tensor \w+, "
    with pytest.raises(VerificationError, match=message):
        run(_request(folder))
    assert not (folder / "q.onnx").exists()
    assert run(_request(folder, verify=False)).proof is None
    assert (folder / "q.onnx").exists()


def test_a_wrong_fusion_is_taken_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = job.fuse

    def wrongly(model: ir.Model, **options: Any) -> Any:
        result = make(model, **options)
        if "reference" not in options:
            weight = result.model.graph.initializers["w2"]
            weight.const_value = ir.tensor(-weight.const_value.numpy(), name="w2")
        return result

    monkeypatch.setattr(job, "fuse", wrongly)
    proof = run(_request(folder)).proof
    assert proof is not None
    assert proof.verdict is Verdict.GOOD


def test_a_wrong_conversion_of_the_opset_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert = onnx.version_converter.convert_version

    def wrongly(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
        converted = convert(proto, version)
        next(node for node in converted.graph.node if node.op_type == "Relu").op_type = "Abs"
        return converted

    monkeypatch.setattr(onnx.version_converter, "convert_version", wrongly)
    weights = {"w1": convolution(8, 3), "w2": convolution(8, 8), "wf": convolution(5, 8, 1)[:, :, 0, 0]}
    body = _BODY.replace("Gemm<transB = 1>(f, wf)", "Gemm<transB = 1>(f, wf, bf)")
    save(graph(body, weights | {"bf": np.ones(5, np.float32)}, outputs="float[N, 5] y", opset=11), folder / "m.onnx")
    with pytest.raises(VerificationError, match="converter from opset 11 to 13 changes this model's results"):
        run(_request(folder))
    assert not (folder / "q.onnx").exists()


def test_a_layer_that_the_runtime_computes_otherwise_is_left_in_float(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two runs of the same file the first pretends to be a runtime that has one layer wrong."""
    prove, calls = job.prove, []

    def differs_at_first(original: ir.Model, quantized: ir.Model, *args: Any, **options: Any) -> Any:
        calls.append(quantized)
        proof = prove(original, quantized, *args, **options)
        if len(calls) > 1:
            return proof
        (output,) = proof.outputs
        return job.replace(proof, outputs=(job.replace(output, as_run_db=output.node_by_node_db - 20),))

    monkeypatch.setattr(job, "prove", differs_at_first)
    result = run(_request(folder))
    assert len(calls) == 2
    (name,) = result.repaired
    assert {layer.name: layer.precision for layer in result.layers}[name] == "float32"
    assert result.to_json()["repaired"] == [name]


def test_of_a_weak_file_the_weakest_layer_is_named(folder: Path) -> None:
    """Calibrated on paler pictures than those that it is proven on, so that these are clipped."""
    pictures = np.load(folder / "pictures.npy")
    pictures[::2] /= 1.6
    np.save(folder / "pictures.npy", pictures)
    said: list[str] = []
    proof = run(_request(folder, samples=40), note=said.append).proof
    assert proof is not None
    assert proof.verdict is Verdict.WEAK
    assert "the INT8 file is weak: SQNR" in said[-1]
    assert "It goes wrong at the tensor" in said[-1]


def test_a_file_that_is_too_weak_is_not_written(folder: Path) -> None:
    pictures = np.load(folder / "pictures.npy")
    pictures[::2] /= 30
    np.save(folder / "pictures.npy", pictures)
    with pytest.raises(VerificationError, match=r"not usable: SQNR .* It goes wrong at the tensor \w+, "):
        run(_request(folder, samples=40))
    assert not (folder / "q.onnx").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"data": None}, "pass --data IMAGES, or --table"),
        ({"data": None, "tables": (Path("t"),), "recovery": Recovery.ADAROUND}, "pass --data IMAGES too"),
        ({"max_drop": 0.5}, "pass --eval-data DIR too"),
    ],
)
def test_what_does_not_go_together_is_refused(folder: Path, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        _request(folder, **changes)


@pytest.mark.parametrize(
    ("eval_data", "max_drop", "min_speedup", "match"),
    [
        (Path("d"), -1.0, None, "--max-drop -1"),
        (Path("d"), math.nan, None, "--max-drop nan"),
        (Path("d"), math.inf, None, "--max-drop inf"),
        (None, None, 0.0, "--min-speedup 0"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused(
    eval_data: Path | None, max_drop: float | None, min_speedup: float | None, match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        check_gate(eval_data, max_drop, min_speedup)


def test_what_is_stated_of_pictures_is_stored(folder: Path) -> None:
    options = PictureOptions.parse(mean="0.5,0.5,0.5", std="0.2,0.2,0.2")
    run(_request(folder, options=options))
    stored = Metadata.of(load(folder / "q.onnx")).preprocessing
    assert stored is not None
    assert (stored.mean, stored.std) == ((0.5,) * 3, (0.2,) * 3)


def test_a_quantized_file_is_not_quantized_again(folder: Path) -> None:
    run(_request(folder))
    with pytest.raises(ModelFileError, match="is quantized already"):
        run(_request(folder, model=folder / "q.onnx", output=folder / "r.onnx"))
