"""The share of each integer layer in the scores' error: each is quantized alone, all others in float.

    SQNRᵢ = 10 log₁₀ (Σ r² / Σ (r − yᵢ)²)

over the float model's scores r and those yᵢ with layer i on integers alone. Alone, a layer shows its own error (of its
weights, and of the tensors it reads and writes), and small errors add up: Σᵢ 10^(−SQNRᵢ/10) estimates the whole. The
other way round, leaving one layer of an integer model in float, would hide a tensor whose integers are bad for more
than one reader: it stays stored as integers as long as one of them is, and every single gain would be zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rexport._errors import DataError
from rexport._progress import Progress, silent
from rexport.evaluation.result import sqnr_db
from rexport.feeds import by_name
from rexport.model_file import to_bytes
from rexport.runtimes._onnx_files import run_in_batches
from rexport.runtimes.onnxruntime import fixed_batch, input_names, open_session
from rexport.tuning.layer_cost import float_costs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

    from rexport.calibration import Dataset
    from rexport.feeds import Feed
    from rexport.quantization import QuantizedModel

__all__ = ["LayerSensitivity", "Probe", "integer_layers", "layer_sensitivities"]


@dataclass(frozen=True, kw_only=True)
class LayerSensitivity:
    """The effect of one layer on integers on the scores.

    Attributes:
        name: The layer's name.
        op_type: Its operator.
        sqnr_db: The SQNR of the scores with this layer alone on integers; infinite where it changes nothing by itself,
            as an addition whose terms are computed in float, which stays in float too.
        cost: The cost of leaving it in float (see ``layer_cost``).
    """

    name: str
    op_type: str
    sqnr_db: float
    cost: float

    @property
    def noise(self) -> float:
        """The power of its error, as a share of the scores' own."""
        return 10 ** (-self.sqnr_db / 10)

    @property
    def worth(self) -> float:
        """The noise that leaving it in float takes away, by what that costs."""
        return self.noise / self.cost


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Some images, kept in memory, and the float model's scores for them.

    Attributes:
        batches: Inputs of the model.
        scores: Its first output for each batch, ``(N, classes)``.
        threads: The threads of a model's session; one per usable core if ``None``.
    """

    batches: tuple[Feed, ...]
    scores: tuple[np.ndarray, ...]
    threads: int | None = None

    @classmethod
    def of(
        cls, model: ir.Model, dataset: Dataset, *, images: int, batch: int, skip_bad: bool, threads: int | None
    ) -> Probe:
        """Run ``images`` of a data set, evenly spread, through the float ``model``.

        Raises:
            DataError: There are none, or they can't be read.
        """
        read = dataset.batches(batch, samples=images, skip_bad=skip_bad)
        batches = tuple(group.feed for group in read if len(group))
        if not batches:
            raise DataError("There are no images to measure the layers' sensitivity with.")
        return cls(batches=batches, scores=_scores(model, batches, threads), threads=threads)

    def sqnr_db(self, model: ir.Model) -> float:
        """Return the SQNR of another model's scores; infinite where they are the same to the last bit."""
        signal = noise = 0.0
        for expected, actual in zip(self.scores, _scores(model, self.batches, self.threads), strict=True):
            signal += float(np.square(expected, dtype=np.float64).sum())
            noise += float(np.square(expected.astype(np.float64) - actual).sum())
        return sqnr_db(signal, noise)


def integer_layers(result: QuantizedModel) -> dict[str, str]:
    """Return the operators of a model's layers on integers, by their names."""
    return {layer.name: layer.op_type for layer in result.layers if layer.precision == "int8"}


def layer_sensitivities(
    model: ir.Model,
    quantize_with: Callable[[frozenset[str]], QuantizedModel],
    probe: Probe,
    *,
    progress: Progress = silent,
) -> tuple[LayerSensitivity, ...]:
    """Measure every integer layer alone, and return them by gain for their cost, the largest first.

    Args:
        model: The float model.
        quantize_with: Quantizes it except for the layers of these names.
        probe: The images to measure with; memory does not grow with the number of layers.
        progress: Reports every layer.
    """
    layers = integer_layers(quantize_with(frozenset()))
    costs = float_costs(model, layers)
    sensitivities = []
    with progress("measuring the sensitivity of layers", len(layers)) as advance:
        for name, op_type in layers.items():
            alone = quantize_with(frozenset(layers) - {name})
            sqnr = probe.sqnr_db(alone.model) if name in integer_layers(alone) else math.inf
            sensitivities.append(LayerSensitivity(name=name, op_type=op_type, sqnr_db=sqnr, cost=costs[name]))
            advance(1)
    return tuple(sorted(sensitivities, key=lambda layer: (-layer.worth, layer.cost)))


def _scores(model: ir.Model, batches: Sequence[Feed], threads: int | None) -> tuple[np.ndarray, ...]:
    session = open_session(to_bytes(model), threads=threads)
    names, size = input_names(session), fixed_batch(session)
    return tuple(
        run_in_batches(lambda part: session.run(None, by_name(part, names)), batch, size)[0] for batch in batches
    )
