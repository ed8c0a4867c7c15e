"""The first layer that differs is found where a fault was planted, and nowhere without one."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

from rexport._cpu import this_cpu
from rexport._errors import UsageError
from rexport.calibration import calibrate
from rexport.engine import BuildOptions
from rexport.engine_file import BackendName, read_facts
from rexport.evaluation import Arithmetic, Candidate, DivergenceReport, Reference, divergence, find_divergence
from rexport.evaluation.candidate import engine_compiler
from rexport.evaluation.likeness import difference
from rexport.evaluation.tensors import ActivationGraph
from rexport.model_file import Metadata, load
from rexport.passes.raw_image import with_raw_images
from rexport.preprocessing import Preprocessing
from rexport.quantization import OPENVINO, TENSORRT, X86, quantize
from rexport.runtimes import RUNTIMES
from rexport.runtimes.onnxruntime import OnnxRuntimeCpu
from rexport.runtimes.probes import probe
from tests._graphs import convolution, graph
from tests.quantization._tables import exported
from tests.runtimes._files import images_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rexport.evaluation.tensors import Tensor

_INT8 = {"x86": X86, "openvino": OPENVINO, "raw openvino": OPENVINO}


def _runtimes() -> list[Any]:
    missing = pytest.mark.skipif(find_spec("openvino") is None, reason="pip install 'rexport[openvino]'")
    return ["cpu", pytest.param("openvino", marks=missing), pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(autouse=True)
def _needs_its_runtime(request: pytest.FixtureRequest) -> None:
    runtime = getattr(request.node, "callspec", None) and request.node.callspec.params.get("runtime")
    if runtime == "cuda" and not probe("cuda").usable:
        pytest.skip(str(probe("cuda").reason))


@cache
def _model(kind: str, *, full_range: bool = False) -> ir.Model:
    """Return a file; weights of 7 bits, unless of ``full_range``, are right on every processor."""
    if kind not in _INT8:
        plain = exported("cifar_plain8" if kind == "plain" else "cifar_resnet8")
        return with_raw_images(plain, Preprocessing(size=32)) if kind == "raw" else plain
    before = _model("raw" if kind.startswith("raw") else "float")
    target = _INT8[kind] if full_range else _INT8[kind].with_reduced_range()
    return quantize(before, calibrate(before, [images_for(kind, 16)]), target=target).model


def _changed(model: ir.Model, name: str, change: Any) -> ir.Model:
    """Return a copy in which one tensor of numbers was changed."""
    copy = model.clone()
    value = copy.graph.initializers[name]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    value.const_value = ir.tensor(change(array).astype(array.dtype), name=name)
    return copy


def _one(array: np.ndarray) -> np.ndarray:
    """Change one channel that a layer computes; a single weight may only meet zeros."""
    array = array.copy()
    array[len(array) // 2] = -array[len(array) // 2] if array.ndim > 1 else 1.0
    return array


def _search(reference: ir.Model, candidate: ir.Model, runtime: str, *, kind: str, at_once: int = 8) -> DivergenceReport:
    images = images_for(kind, 2)
    return find_divergence(
        Reference(reference, images, threads=1),
        Candidate(model=candidate, runtime=runtime, images=images, threads=1),
        at_once=at_once,
    )


def _first(report: DivergenceReport) -> tuple[str, str] | None:
    return None if report.first is None else (report.first.row.node, report.first.row.op_type)


@pytest.mark.parametrize("runtime", _runtimes())
@pytest.mark.parametrize("kind", ["plain", "float", "x86", "raw openvino"])
def test_without_a_fault_there_is_none(kind: str, runtime: str) -> None:
    model = _model(kind)
    report = _search(model, model, runtime, kind=kind)
    assert report.first is None, str(report.first)
    assert report.rows
    assert report.arithmetic == ("int8" if kind in _INT8 else "float32")


@pytest.mark.parametrize("runtime", _runtimes())
@pytest.mark.parametrize(
    ("kind", "tensor", "node"),
    [
        ("plain", "layer2.0.conv1.weight", "layer2.0.conv1"),
        ("float", "conv1.weight", "conv1"),
        ("float", "layer2.0.conv2.weight", "layer2.0.conv2"),
        ("float", "fc.weight", "fc"),
        ("x86", "conv1.weight_quantized", "conv1"),
        ("x86", "layer2.0.conv2.weight_quantized", "layer2.0.conv2"),
        ("openvino", "layer3.0.conv1.weight_quantized", "layer3.0.conv1"),
    ],
)
def test_a_wrong_weight_is_found_in_its_layer(kind: str, tensor: str, node: str, runtime: str) -> None:
    model = _model(kind)
    wrong = _changed(model, tensor, _one)
    assert _first(_search(model, wrong, runtime, kind=kind)) == (node, "Gemm" if node == "fc" else "Conv")


@pytest.mark.slow
@pytest.mark.parametrize("runtime", _runtimes())
def test_a_wrong_scale_is_found_where_it_is_used(runtime: str) -> None:
    model = _model("x86")
    coarser = _changed(model, "layer2.0.relu_scale", lambda scale: 2 * scale)
    found = _search(model, coarser, runtime, kind="x86")
    assert _first(found) == ("layer2.0.relu_dequantized", "DequantizeLinear")
    assert "other steps" in str(found.first)
    weights = _changed(model, "layer2.0.conv1.weight_scale", lambda scale: 1.5 * scale)
    assert _first(_search(model, weights, runtime, kind="x86")) == ("layer2.0.conv1", "Conv")


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_of_two_faults_the_first_is_named_however_many_are_looked_at(at_once: int) -> None:
    model = _model("float")
    wrong = _changed(model, "layer3.0.conv1.weight", _one)
    wrong = _changed(wrong, "layer1.0.conv2.weight", _one)
    assert _first(_search(model, wrong, "cpu", kind="float", at_once=at_once)) == ("layer1.0.conv2", "Conv")


def test_tensors_that_are_too_much_at_once_come_in_several_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model("x86")
    wrong = _changed(model, "layer2.0.conv2.weight_quantized", _one)
    whole = _search(model, wrong, "cpu", kind="x86")
    monkeypatch.setattr(divergence, "_NUMBERS", 1)
    assert _search(model, wrong, "cpu", kind="x86").first == whole.first


def test_a_branch_that_differs_is_found_before_the_sum() -> None:
    """The shortcut's tensors come before the main branch's, or after: order alone does not tell where a fault is."""
    model = graph(
        "a = Conv<pads = [1, 1, 1, 1]>(x, u) b = Relu(a) c = Conv<pads = [1, 1, 1, 1]>(b, v) "
        "d = Conv<pads = [1, 1, 1, 1]>(x, w) e = Add(c, d) f = Relu(e) g = GlobalAveragePool(f) y = Flatten(g)",
        {"u": convolution(8, 3), "v": convolution(8, 8), "w": convolution(8, 3, seed=1)},
        outputs="float[N, 8] y",
    )
    images = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    for weight, tensor in (("u", "a"), ("v", "c"), ("w", "d")):
        wrong = _changed(model, weight, _one)
        for at_once in (1, 3):
            found = find_divergence(
                Reference(model, images), Candidate(model=wrong, runtime="cpu", images=images), at_once=at_once
            )
            assert found.first is not None
            assert found.first.row.tensor == tensor


@pytest.mark.skipif(this_cpu().has_vnni or this_cpu().architecture != "x86_64", reason="needs a CPU without VNNI")
def test_sums_that_saturate_are_found() -> None:
    """A fault that nobody planted: without VNNI, ONNX Runtime adds products of full-range weights in 16 bits."""
    model = _model("x86", full_range=True)
    found = _search(model, model, "cpu", kind="x86").first
    assert found is not None
    assert found.row.difference.steps is not None
    assert found.row.difference.steps > 2


class Fused(OnnxRuntimeCpu):
    """A runtime with a fault in what it fuses: two convolutions in one model are computed wrongly, one is not."""

    def __init__(self, source: Any, *, threads: int | None = None) -> None:
        super().__init__(source, threads=threads)
        self._wrong = sum(node.op_type == "Conv" for node in load(source.path).graph) > 1

    def run(self, images: np.ndarray) -> np.ndarray:
        """Run a batch."""
        logits = super().run(images)
        return np.zeros_like(logits) if self._wrong else logits


def test_what_only_goes_wrong_together_is_told_as_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "fused", f"{Fused.__module__}:Fused")
    monkeypatch.setattr("rexport.runtimes.import_module", lambda _: __import__("types").SimpleNamespace(Fused=Fused))
    report = _search(_model("plain"), _model("plain"), "fused", kind="plain", at_once=1)
    assert report.first is not None
    assert len(report.first.nodes) > 1
    assert "together" in str(report.first)


def _computed_in_parts(model: ir.Model, images: np.ndarray) -> Iterator[tuple[Tensor, np.ndarray, np.ndarray]]:
    """Yield each tensor with its values in the model, and those that ONNX Runtime computes of the tensors before it."""
    known = ActivationGraph(model)
    tensors = known.tensors(known.names)
    names = [tensor.name for tensor in tensors]
    part, given = known.cut_out(names, names, batch=len(images))
    assert set(given) <= {*names, known.input}
    values = Reference(model, images).values([*names, known.input])
    flat = np.concatenate([values[name].reshape(len(images), -1).astype(np.float32) for name in given], axis=1)
    result = Candidate(model=model, runtime="cpu", images=images).run(part, flat)
    ends = np.cumsum([tensor.numbers for tensor in tensors])[:-1]
    for tensor, actual in zip(tensors, np.split(result, ends, axis=1), strict=True):
        expected = values[tensor.name]
        yield tensor, expected, actual.reshape(expected.shape)


@pytest.mark.parametrize("kind", ["float", "x86", "raw", "openvino"])
def test_a_cut_out_part_computes_what_the_model_does(kind: str) -> None:
    """Cut at every tensor at once, ONNX Runtime gives each of them again.

    The optimized part and the reference, node by node, run other kernels. In float32, sums differ in their last bits.
    What is stored as integers is rounded after such a sum, so one that lies between two integers may become either:
    few do, and those are one step off.
    """
    for tensor, expected, actual in _computed_in_parts(_model(kind), images_for(kind, 2)):
        off = difference(expected, actual, step=tensor.step)
        assert off.explained_by(Arithmetic.FLOAT32), tensor.name
        if tensor.step is not None:
            assert np.mean(np.abs(expected - actual) > tensor.step / 2) < 0.01, tensor.name


def test_float_against_int8() -> None:
    """What 8 bits do to a layer is explained, a wrong weight is not; equalized tensors can't be compared."""
    floats, model = _model("float"), _model("x86")
    clean = _search(floats, model, "cpu", kind="x86")
    assert (clean.first, clean.arithmetic) == (None, Arithmetic.EIGHT_BITS)
    wrong = _changed(model, "layer2.0.conv2.weight_quantized", lambda array: -array)
    assert _first(_search(floats, wrong, "cpu", kind="x86")) == ("layer2.0.conv2", "Conv")
    equalized = model.clone()
    Metadata(quantization='{"recovered": "3 tensors equalized"}').write_to(equalized)
    with pytest.raises(UsageError, match="equalized"):
        _search(floats, equalized, "cpu", kind="x86")


def test_what_can_not_be_compared_is_refused() -> None:
    model = _model("float")
    stranger = graph(
        "q = Conv(x, w)", {"w": convolution(4, 3)}, inputs="float[N, 3, 32, 32] x", outputs="float[N, 4, 30, 30] q"
    )
    with pytest.raises(UsageError, match="no tensors of the same names"):
        _search(model, stranger, "cpu", kind="float")
    wider = _changed(model, "conv1.weight", lambda array: np.concatenate([array, array]))
    with pytest.raises(UsageError, match="1 tensor or more"):
        _search(model, wider, "cpu", kind="float", at_once=0)


@pytest.mark.slow
def test_parts_of_an_engine_are_built_anew(tmp_path: Path) -> None:
    """They still have their integers; loading them takes a GPU."""
    pytest.importorskip("tensorrt_rtx", reason="pip install 'rexport[rtx]' to build engines without a GPU")
    before = exported("cifar_resnet8")
    model = quantize(before, calibrate(before, [images_for("float", 4)]), target=TENSORRT).model
    known = ActivationGraph(model)
    names = [one.name for one in known.tensors(known.names)][2:5]
    part, _ = known.cut_out(names[-1:], names[:1], batch=2)
    (tmp_path / "part.onnx").write_bytes(part.SerializeToString())
    path = engine_compiler(BuildOptions(backend=BackendName.RTX, capabilities=(86,)))(tmp_path / "part.onnx")
    assert {layer["precision"] for layer in read_facts(path).layers} == {"int8"}
