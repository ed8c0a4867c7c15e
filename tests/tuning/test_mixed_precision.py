from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from rexport._cpu import this_cpu
from rexport._errors import GateError, UsageError
from rexport.calibration import CalibrationTable, Dataset, calibrate, calibrate_dataset, open_dataset
from rexport.calibration.tensors import open_tensors
from rexport.cost import operations_of
from rexport.model_inputs import tensor_inputs
from rexport.models import build
from rexport.models.summary import summarize
from rexport.preprocessing import Preprocessing
from rexport.quantization import X86, QuantizedModel, quantize
from rexport.quantization.targets import target_for
from rexport.tuning import (
    Comparison,
    Conditions,
    Exam,
    GatePoint,
    GateResult,
    LayerSensitivity,
    mix_precision,
    require_speedup,
)
from rexport.tuning.layer_cost import float_costs
from rexport.tuning.sensitivity import Probe, layer_sensitivities
from tests._graphs import graph
from tests._networks import export_once
from tests.quantization._tables import exported

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from tests._products import Products

_PREPROCESSING = Preprocessing(size=32)
_BROKEN = {"layer1.0.conv1", "layer1.0.conv2"}  # the layers that write and read the channel made small, see _break
_CONDITIONS = Conditions(batch=1, threads=1, runtime="", cpu="")


@dataclass(frozen=True)
class _Case:
    """A trained network that INT8 breaks, its table, and images."""

    model: ir.Model
    table: CalibrationTable
    test: Dataset

    def quantize(self, keep_float: frozenset[str]) -> QuantizedModel:
        return quantize(
            self.model, self.table, target=target_for("x86", this_cpu()), keep_float=keep_float
        )  # without VNNI, X86 saturates


def _break(module: torch.nn.Module, factor: float = 1000.0) -> None:
    """Make one channel between two convolutions ``factor`` times smaller, and what reads it as much larger.

    A ReLU lies between, and relu(x / k) · k = relu(x): the function stays. But the weights that read the channel now
    set the scale of every filter they are part of, and the others are rounded to zero.
    """
    block = module.get_submodule("layer1.0")
    channel = int(block.conv2.weight.abs().amax((0, 2, 3)).argmax())
    with torch.no_grad():
        block.bn1.weight[channel] /= factor
        block.bn1.bias[channel] /= factor
        block.conv2.weight[:, channel] *= factor


@pytest.fixture(scope="module")
def case(data_dir: Path, products: Products) -> _Case:
    module = build("cifar_resnet20", weights=data_dir / "weights" / "cifar_resnet20-jpeg.safetensors").eval()
    _break(module)
    model = export_once(products, "broken cifar_resnet20-jpeg", module=module).model
    images = open_dataset(data_dir / "cifar10-jpeg" / "calibration", _PREPROCESSING).batches(64, samples=128)
    table = calibrate(model, (batch.images for batch in images))
    return _Case(model, table, open_dataset(data_dir / "cifar10-jpeg" / "test", _PREPROCESSING))


@pytest.mark.slow
def test_the_gate_finds_the_layers_that_break_and_leaves_only_them_in_float(
    case: _Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Comparison(speedup=2.0, interval=(1.9, 2.1))
    monkeypatch.setattr("rexport.tuning.mixed_precision.compare", lambda *_, **__: measured)
    exam = Exam(dataset=case.test, samples=400, probe_images=64)
    result = mix_precision(case.model, case.quantize, exam, max_drop=1, conditions=_CONDITIONS)
    whole, chosen = result.points[0], result.chosen
    assert result.drop_of(whole) > 5
    assert result.drop_of(chosen) <= 1
    assert set(chosen.float_layers) == _BROKEN
    assert {layer.name for layer in result.sensitivities[:2]} == _BROKEN
    assert whole.sqnr_db is not None
    assert chosen.sqnr_db is not None
    assert chosen.sqnr_db > whole.sqnr_db + 20
    assert {la.name for la in result.quantized.layers if la.precision == "float32"} == _BROKEN
    assert [point.float_share for point in result.points] == sorted(point.float_share for point in result.points)
    for point in result.points:  # speed is measured of those that no cheaper one beats
        beaten = any(
            other.float_share <= point.float_share and other.score >= point.score
            for other in result.points
            if (other.float_share, other.score) != (point.float_share, point.score)
        )
        assert point == chosen or (point.comparison is None) >= beaten
    assert {whole.comparison, chosen.comparison} == {measured}
    assert None in {point.comparison for point in result.points}
    result.require()


@pytest.mark.slow
def test_a_gate_that_would_need_too_much_in_float_does_not_hold(case: _Case) -> None:
    exam = Exam(dataset=case.test, samples=100, probe_images=8)
    result = mix_precision(case.model, case.quantize, exam, max_drop=1, most_float=0.05)  # neither of the two
    assert result.chosen.float_layers == ()
    with pytest.raises(
        GateError, match=r"INT8 loses .* points of top-1 on 100 images \(limit 1\) even with .* in float"
    ):
        result.require()


@pytest.mark.slow
def test_a_model_that_passes_is_left_alone(case: _Case) -> None:
    result = mix_precision(case.model, case.quantize, Exam(dataset=case.test, samples=100), max_drop=math.inf)
    assert (len(result.points), result.sensitivities, result.why_not) == (1, (), None)
    assert result.chosen.float_layers == ()
    assert {layer.precision for layer in result.quantized.layers} == {"int8"}


@pytest.mark.slow
def test_a_drop_of_nothing_may_be_asked_for(case: _Case) -> None:
    result = mix_precision(case.model, case.quantize, Exam(dataset=case.test, samples=20), max_drop=0)
    assert result.max_drop == 0


@pytest.mark.slow
def test_speed_can_be_measured(case: _Case, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Comparison(speedup=2.0, interval=(1.9, 2.1))
    monkeypatch.setattr("rexport.tuning.mixed_precision.compare", lambda *_, **__: measured)
    exam = Exam(dataset=case.test, samples=50)
    result = mix_precision(case.model, case.quantize, exam, max_drop=100, conditions=_CONDITIONS)
    assert [point.comparison for point in result.points] == [measured]


@pytest.mark.slow
def test_images_without_labels_are_refused(case: _Case, data_dir: Path) -> None:
    flat = open_dataset(data_dir / "imagenet-pictures", _PREPROCESSING)
    with pytest.raises(UsageError, match="--eval-data DIR with DIR/<class>/<image>"):
        mix_precision(case.model, case.quantize, Exam(dataset=flat), max_drop=1)
    with pytest.raises(UsageError, match=r"must be 0 points or more, such as --max-drop 0\.5, not -1"):
        mix_precision(case.model, case.quantize, Exam(dataset=case.test), max_drop=-1)


@pytest.mark.slow
def test_noise_of_single_layers_adds_up_to_that_of_all(case: _Case) -> None:
    """Without the two layers that break: errors of a rounding are nearly independent, so within 3 dB."""

    def others(keep_float: frozenset[str]) -> QuantizedModel:
        return case.quantize(keep_float | _BROKEN)

    probe = Probe.of(case.model, case.test, images=32, batch=32, skip_bad=False, threads=None)
    layers = layer_sensitivities(case.model, others, probe)
    together = probe.sqnr_db(others(frozenset()).model)
    assert together > 25
    assert -10 * math.log10(sum(layer.noise for layer in layers)) == pytest.approx(together, abs=3)


@pytest.mark.parametrize(("speedup", "holds"), [(1.21, True), (1.19, False)])
def test_a_slow_file_is_refused(monkeypatch: pytest.MonkeyPatch, speedup: float, holds: bool) -> None:
    measured = Comparison(speedup=speedup, interval=(1.1, 1.3))
    monkeypatch.setattr("rexport.tuning.mixed_precision.compare", lambda *_, **__: measured)
    model = graph("y = Relu (x)")
    if holds:
        assert require_speedup(model, model, at_least=1.2, conditions=_CONDITIONS) == measured
    else:
        with pytest.raises(GateError, match=r"1\.19 × as fast \(1\.10 to 1\.30\) .*--min-speedup 1\.2"):
            require_speedup(model, model, at_least=1.2, conditions=_CONDITIONS)


def test_operations_are_the_networks_multiply_accumulates() -> None:
    name = "resnext[depth=11,stages=3,cardinality=4,base_width=4,stem_width=16]"  # its groups and projections too
    module, model = build(name), exported(name)
    weighted = {node.name for node in model.graph if node.op_type in ("Conv", "Gemm")}
    operations = operations_of(model)
    assert sum(operations[str(node)] for node in weighted) == summarize(module, 32).macs
    costs = float_costs(model, [str(node) for node in weighted])
    assert sum(costs.values()) == pytest.approx(2)
    assert min(costs.values()) > 1 / len(costs)


def gate_result(max_drop: float) -> GateResult:
    """Return what a gate could give: a model that loses half a point with one layer in float."""
    first = GatePoint(float_layers=(), float_share=0.0, score=0.7, sqnr_db=12.0)
    chosen = GatePoint(
        float_layers=("conv1",),
        float_share=0.25,
        score=0.795,
        sqnr_db=math.inf,
        comparison=Comparison(speedup=1.5, interval=(1.4, 1.6)),
    )
    return GateResult(
        quantized=QuantizedModel(model=graph("y = Relu (x)"), layers=()),
        chosen=chosen,
        points=(first, chosen),
        float_score=0.8,
        images=1000,
        max_drop=max_drop,
        sensitivities=(LayerSensitivity(name="conv1", op_type="Conv", sqnr_db=12.5, cost=0.3),),
    )


def test_the_document_has_the_curve_and_no_infinite_numbers() -> None:
    document = json.loads(json.dumps(gate_result(max_drop=math.inf).to_json(), allow_nan=False))
    assert document["holds"] is True
    assert document["max_drop_points"] is None
    assert [point["top1"] for point in document["curve"]] == [0.7, 0.795]
    assert document["curve"][1]["sqnr_db"] is None
    assert document["curve"][1]["speedup_interval"] == [1.4, 1.6]
    assert document["sensitivities"] == [{"layer": "conv1", "op_type": "Conv", "sqnr_db": 12.5, "cost": 0.3}]


def test_a_metric_of_the_users_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its unit is its own, and examples need no labels."""
    (tmp_path / "metric_of_a_test.py").write_text(
        "import numpy as np\n"
        "def negative_energy(batches):\n"
        "    return -float(np.mean([np.square(batch.outputs['y']).mean() for batch in batches]))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    model = graph(
        "p = Conv(a, w) q = Conv(b, w) y = Add(p, q)",
        {"w": np.ones((2, 3, 1, 1), np.float32)},
        inputs="float[N, 3, 4, 4] a, float[N, 3, 4, 4] b",
        outputs="float[N, 2, 4, 4] y",
    )
    values = np.random.default_rng(0).standard_normal((8, 3, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "x.npz", a=values, b=values[::-1])
    dataset = open_tensors(tmp_path / "x.npz", tensor_inputs(model))
    table = calibrate_dataset(model, dataset, checkpoints=tmp_path).table
    result = mix_precision(
        model,
        lambda names: quantize(model, table, target=X86, keep_float=names),
        Exam(dataset=dataset, metric="metric_of_a_test:negative_energy"),
        max_drop=0.5,
    )
    assert (result.why_not, result.images, result.metric) == (None, 8, "metric_of_a_test:negative_energy")
    assert result.float_score < 0
    assert result.drop_of(result.chosen) == result.float_score - result.chosen.score
    document = result.to_json()
    assert (document["top1"], document["metric"]["fp32"]) == (None, result.float_score)
