"""The accuracy gate: as few layers in float as it takes for the integer model to stay within the allowed loss.

If the integer model loses more, its layers are ranked by the gain of leaving each in float for its cost (see
``sensitivity``), and the shortest beginning of that list that passes is searched: by doubling it until it passes, then
by bisection. Then every layer that turns out not to be needed goes back to integers, the most expensive first. Only the
measured accuracy counts, never the estimate; on few images it has an error of its own.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rexport._errors import GateError, UsageError
from rexport._progress import Progress, silent
from rexport._words import counted
from rexport.calibration.dataset import spread
from rexport.classifier_head import head_of
from rexport.cost import operations_of
from rexport.evaluation import Classifier, evaluate
from rexport.evaluation.judging import judging_runtime
from rexport.evaluation.outputs import metric_named, predictions
from rexport.evaluation.result import finite
from rexport.model_file import Metadata, save
from rexport.model_inputs import fixed_batch
from rexport.runtimes import open_runtime
from rexport.runtimes.source import Source
from rexport.tuning.comparison import compare
from rexport.tuning.sensitivity import Probe, integer_layers, layer_sensitivities

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import numpy as np
    import onnx_ir as ir

    from rexport.calibration import Dataset
    from rexport.feeds import Feed
    from rexport.quantization import QuantizedModel
    from rexport.tuning.comparison import Comparison
    from rexport.tuning.sensitivity import LayerSensitivity
    from rexport.tuning.timings import Conditions

__all__ = ["Exam", "GatePoint", "GateResult", "mix_precision", "require_speedup"]

_ROUNDING = 1e-9  # of percentage points that are differences of fractions


@dataclass(frozen=True, kw_only=True)
class Exam:
    """The images that accuracy is measured on.

    Attributes:
        dataset: Labelled images, as the model takes them; with a metric, any examples.
        metric: The user's metric, ``module:function`` (see :mod:`rexport.evaluation.outputs`); by default top-1.
        samples: Only so many of them, evenly spread; by default all.
        batch: Images at a time.
        probe_images: The number of images for measuring the layers' sensitivity; they are kept in memory.
        skip_bad: Go on without images that can't be read.
        threads: By default one per usable core.
    """

    dataset: Dataset
    metric: str | None = None
    samples: int | None = None
    batch: int = 32
    probe_images: int = 128
    skip_bad: bool = False
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class GatePoint:
    """An integer model with some layers in float, as measured.

    Attributes:
        float_layers: The layers left in float, of those that could be on integers.
        float_share: Their share of all operations (see ``layer_cost``).
        score: The fraction of images that is right, or the user's metric.
        sqnr_db: The SQNR of the scores on the probe's images; ``None`` where the first model passed without a probe.
        comparison: How many times as fast as the float model it is, if that was measured. It is not for models that
            another one beats, with no more of the operations in float and no fewer images right.
    """

    float_layers: tuple[str, ...]
    float_share: float
    score: float
    sqnr_db: float | None = None
    comparison: Comparison | None = None


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """The result of the gate.

    Attributes:
        quantized: The model that passes; if none does, the one with all layers on integers.
        chosen: Its point.
        points: All measured models, by their share of float operations: the curve of accuracy and speed.
        float_score: The float model's score.
        images: The number of images.
        max_drop: The percentage points of top-1 that may be lost, or how much of the metric.
        metric: The user's metric; ``None`` for top-1.
        sensitivities: Those of the layers, the first to leave in float first; empty where the first model passed.
        why_not: Why the gate does not hold, in a sentence; ``None`` if it does.
    """

    quantized: QuantizedModel
    chosen: GatePoint
    points: tuple[GatePoint, ...]
    float_score: float
    images: int
    max_drop: float
    metric: str | None = None
    sensitivities: tuple[LayerSensitivity, ...] = ()
    why_not: str | None = None

    def drop_of(self, point: GatePoint) -> float:
        """Return the loss of a model against the float one, in percentage points of top-1, or of the metric."""
        return (100 if self.metric is None else 1) * (self.float_score - point.score)

    def require(self) -> None:
        """Check that the gate holds.

        Raises:
            GateError: It does not.
        """
        if self.why_not is not None:
            raise GateError(self.why_not)

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object; infinite numbers are ``None``."""
        return {
            "holds": self.why_not is None,
            "images": self.images,
            "fp32_top1": self.float_score if self.metric is None else None,
            "top1": self.chosen.score if self.metric is None else None,
            "metric": self.metric and {"function": self.metric, "fp32": self.float_score, "int8": self.chosen.score},
            "drop_points": self.drop_of(self.chosen),
            "max_drop_points": finite(self.max_drop),
            "float_layers": list(self.chosen.float_layers),
            "curve": [
                {
                    "float_layers": list(point.float_layers),
                    "float_share": point.float_share,
                    "top1" if self.metric is None else "metric": point.score,
                    "sqnr_db": finite(point.sqnr_db),
                    "speedup": point.comparison and point.comparison.speedup,
                    "speedup_interval": point.comparison and list(point.comparison.interval),
                }
                for point in self.points
            ],
            "sensitivities": [
                {"layer": layer.name, "op_type": layer.op_type, "sqnr_db": finite(layer.sqnr_db), "cost": layer.cost}
                for layer in self.sensitivities
            ],
        }


def mix_precision(
    model: ir.Model,
    quantize_with: Callable[[frozenset[str]], QuantizedModel],
    exam: Exam,
    *,
    max_drop: float,
    most_float: float = 0.5,
    conditions: Conditions | None = None,
    progress: Progress = silent,
) -> GateResult:
    """Quantize ``model`` with as few layers in float as it takes to lose at most ``max_drop``.

    Args:
        model: The float model: a classifier of pictures, or any with a metric.
        quantize_with: Quantizes it except for the layers of these names, such as
            ``lambda names: quantize(model, table, target=X86, keep_float=names)``.
        exam: The images to measure accuracy on.
        max_drop: In percentage points of top-1, or of the metric; infinite to measure only.
        most_float: The largest share of operations that may be left in float: beyond, it would be no integer model.
        conditions: The conditions to measure speed at; by default it is not measured.
        progress: Reports every layer and every batch of images.

    Raises:
        UsageError: ``max_drop`` or ``most_float`` makes no sense, or the images have no labels.
        DataError: The images can't be used.
        ModelFileError: The model is no classifier.
    """
    _require_sense(exam, max_drop, most_float)
    return _Search(model, quantize_with, exam, max_drop, progress).decide(most_float, conditions)


def _require_sense(exam: Exam, max_drop: float, most_float: float) -> None:
    if not max_drop >= 0:
        raise UsageError(f"The largest drop must be 0 points or more, such as --max-drop 0.5, not {max_drop:g}.")
    if not 0 <= most_float <= 1:
        raise UsageError(f"The share of operations in float must be from 0 to 1, not {most_float:g}.")
    if exam.metric is None and not exam.dataset.labelled:
        raise UsageError(
            "Accuracy needs labels, and the evaluation images have none; pass a folder with one folder per class, "
            "such as --eval-data DIR with DIR/<class>/<image>."
        )


def require_speedup(
    model: ir.Model, quantized: ir.Model, *, at_least: float, conditions: Conditions, progress: Progress = silent
) -> Comparison:
    """Measure the integer model against the float one, in turns, and return the result if it is fast enough.

    Args:
        model: The float model.
        quantized: The integer model.
        at_least: How many times as fast it must be; the median of the rounds counts.
        conditions: The conditions to measure at.
        progress: Reports the measurement.

    Raises:
        GateError: It is slower.
        UnavailableError: One of them does not run.
    """
    compared = compare(model, quantized, conditions, progress=progress)
    if compared.speedup < at_least:
        raise GateError(
            f"The INT8 model is {compared} as the float one at batch {conditions.batch} (limit: "
            f"--min-speedup {at_least:g}); use the float model here, or try --regroup measure."
        )
    return compared


def _front(points: Collection[GatePoint]) -> list[GatePoint]:
    """Return the points that no other point beats; of equal ones, the first."""
    front: list[GatePoint] = []
    for point in sorted(points, key=lambda point: (point.float_share, -point.score)):
        if not front or point.score > front[-1].score:
            front.append(point)
    return front


class _Search:
    """Measures models with some layers in float, each once, and looks for the fewest that pass."""

    def __init__(
        self,
        model: ir.Model,
        quantize_with: Callable[[frozenset[str]], QuantizedModel],
        exam: Exam,
        max_drop: float,
        progress: Progress,
    ) -> None:
        self.model = model
        self.quantize_with = quantize_with
        self.exam = exam
        self.max_drop = max_drop
        self.progress = progress
        self.float_score, self.images = self._score(model)
        self._operations = operations_of(model)
        self._layers = tuple(integer_layers(quantize_with(frozenset())))
        self._points: dict[frozenset[str], GatePoint] = {}
        self._probe: Probe | None = None

    def decide(self, most_float: float, conditions: Conditions | None) -> GateResult:
        """Return the model that passes, and all that was measured on the way to it."""
        point = self.measure(())
        sensitivities: tuple[LayerSensitivity, ...] = ()
        why_not = None
        if not self.holds(point):
            self._probe = self._take_probe()
            sensitivities = layer_sensitivities(self.model, self.quantize_with, self._probe, progress=self.progress)
            passing = self.run([layer.name for layer in sensitivities], most_float)
            if passing is None:
                why_not = self.why_not(most_float)
            else:
                point = passing
        points = self.curve(point, conditions)
        point = next(measured for measured in points if set(measured.float_layers) == set(point.float_layers))
        return GateResult(
            quantized=self.quantize_with(frozenset(point.float_layers)),
            chosen=point,
            points=points,
            float_score=self.float_score,
            images=self.images,
            max_drop=self.max_drop,
            metric=self.exam.metric,
            sensitivities=sensitivities,
            why_not=why_not,
        )

    def _take_probe(self) -> Probe:
        exam = self.exam
        return Probe.of(
            self.model,
            exam.dataset,
            images=exam.probe_images,
            batch=self._batch,
            skip_bad=exam.skip_bad,
            threads=exam.threads,
        )

    def measure(self, names: Collection[str]) -> GatePoint:
        key = frozenset(names)
        if key not in self._points:
            score, _ = self._score(self.quantize_with(key).model)
            self._points[key] = GatePoint(float_layers=tuple(names), float_share=self._share(key), score=score)
        return self._points[key]

    def holds(self, point: GatePoint) -> bool:
        return self._drop(point) <= self.max_drop + _ROUNDING

    def _drop(self, point: GatePoint) -> float:
        return (100 if self.exam.metric is None else 1) * (self.float_score - point.score)

    def run(self, ranked: list[str], most_float: float) -> GatePoint | None:
        """Return the model with the fewest layers in float that passes, ``None`` if none does."""
        ranked = self._affordable(ranked, most_float)
        limit = len(ranked)
        fails, passes = 0, min(1, limit)
        while not self.holds(self.measure(ranked[:passes])):
            if passes == limit:
                return None
            fails, passes = passes, min(2 * passes, limit)
        while passes - fails > 1:
            middle = (fails + passes) // 2
            if self.holds(self.measure(ranked[:middle])):
                passes = middle
            else:
                fails = middle
        return self._without_needless(ranked[:passes])

    def why_not(self, most_float: float) -> str:
        best = max(self._points.values(), key=lambda point: point.score)
        loss = f"{self._drop(best):.2f} points of top-1"
        if self.exam.metric is not None:
            loss = f"{self._drop(best):.4g} of {self.exam.metric}"
        return (
            f"INT8 loses {loss} on {self.images} images "
            f"(limit {self.max_drop:g}) even with {counted(len(best.float_layers), 'layer')}, "
            f"{100 * best.float_share:.0f} % of the operations, in float; at most {100 * most_float:.0f} % "
            "may stay in float. Calibrate with more images or another --calibrator, use a stronger "
            "--recover, or fine-tune with `rexport train --qat`."
        )

    def curve(self, best: GatePoint, conditions: Conditions | None) -> tuple[GatePoint, ...]:
        """Return all points, with their SQNR and speed as far as these are measured."""
        if self._probe is None and conditions is None:
            return tuple(self._points.values())
        points = []
        timed = {best, *_front(self._points.values())}
        for key, point in sorted(self._points.items(), key=lambda item: (item[1].float_share, len(item[0]))):
            model = self.quantize_with(key).model
            sqnr_db = comparison = None
            if self._probe is not None:
                sqnr_db = self._probe.sqnr_db(model)
            if conditions is not None and point in timed:
                comparison = compare(self.model, model, conditions, progress=self.progress)
            points.append(replace(point, sqnr_db=sqnr_db, comparison=comparison))
        return tuple(points)

    def _affordable(self, ranked: list[str], most_float: float) -> list[str]:
        """Leave out of a list the layers that, with those before them, are too many operations to leave in float."""
        affordable: list[str] = []
        for name in ranked:
            if self._share([*affordable, name]) <= most_float + _ROUNDING:
                affordable.append(name)
        return affordable

    def _without_needless(self, names: list[str]) -> GatePoint:
        for needless in sorted(names, key=lambda name: -self._operations[name]):
            fewer = [name for name in names if name != needless]
            if fewer and self.holds(self.measure(fewer)):
                names = fewer
        return self.measure(names)

    def _share(self, names: Collection[str]) -> float:
        total = sum(self._operations[name] for name in self._layers) or 1
        return sum(self._operations[name] for name in names) / total

    @property
    def _batch(self) -> int:
        return fixed_batch(self.model) or self.exam.batch

    def _score(self, model: ir.Model) -> tuple[float, int]:
        """Return the accuracy or the metric of a model, and on how many examples."""
        metadata, exam = Metadata.of(self.model), self.exam
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            save(model, path)
            with open_runtime(judging_runtime(model), Source(path=path), threads=exam.threads) as runtime:
                if exam.metric is not None:
                    return self._metric(runtime.run_all, exam.metric)  # type: ignore[attr-defined]
                result = evaluate(
                    Classifier(runtime=runtime, head=head_of(self.model)),
                    self.exam.dataset,
                    classes=metadata.classes,
                    batch=self._batch,
                    samples=self.exam.samples,
                    skip_bad=self.exam.skip_bad,
                    progress=self.progress,
                )
        assert result.top1 is not None
        return result.top1, result.images

    def _metric(self, run: Callable[[Feed], list[np.ndarray]], metric: str) -> tuple[float, int]:
        exam, names = self.exam, [str(value.name) for value in self.model.graph.outputs]
        batches = predictions(run, names, exam.dataset, batch=self._batch, samples=exam.samples, skip_bad=exam.skip_bad)
        return metric_named(metric)(batches), len(spread(len(exam.dataset), exam.samples))
