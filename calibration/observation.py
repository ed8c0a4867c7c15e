"""A session of a model whose tensors are watched, and the table of the images that it has run.

One batch is added up while the next one runs.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir
import onnxruntime

from rexport._errors import DataError, ModelFileError
from rexport._version import __version__
from rexport.calibration.accumulator import Accumulator
from rexport.calibration.probes import OUTPUTS, add_probes
from rexport.calibration.rectified_sums import with_visible_terms
from rexport.calibration.table import CalibrationTable
from rexport.feeds import by_name, examples_in, in_batches
from rexport.model_file import default_opset, model_hash, to_bytes
from rexport.model_inputs import inputs_of
from rexport.passes._graph import is_op, is_rectifier, only_consumer
from rexport.runtimes.onnxruntime import fixed_batch, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rexport.feeds import Feed

__all__ = ["Observation", "Observer", "observed_tensors"]

_OLDEST_OPSET = 13  # ReduceSum has had its axes as an input since


def observed_tensors(model: ir.Model) -> tuple[str, ...]:
    """Return the names of the tensors worth watching, in the order they are computed.

    These are the model's input and every float result, except one that only a ReLU reads: the runtimes compute the two
    together, and only the ReLU's result is ever stored as integers. Of a term of a sum that only a ReLU reads, the part
    that passes the ReLU is watched (see ``rectified_sums``). Tensors that are integers already, such as raw images,
    need no range.
    """
    initializers = model.graph.initializers
    inputs = [value for value in model.graph.inputs if value.name not in initializers]
    results = [v for node in model.graph for v in node.outputs if not is_op(node, "DequantizeLinear")]
    return tuple(
        str(v.name) for v in [*inputs, *results] if v.dtype == ir.DataType.FLOAT and not is_rectifier(only_consumer(v))
    )


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The model and its watched tensors, as data that can go to another process.

    Attributes:
        model_sha256: The model's hash.
        probed: The model with probes, serialized.
        inputs: The names of its inputs.
        watched: The tensors.
        threads: The runtime's threads; ``None`` is one per usable core.
    """

    model_sha256: str
    probed: bytes
    inputs: tuple[str, ...]
    watched: tuple[str, ...]
    threads: int | None

    @classmethod
    def of(cls, model: ir.Model, *, threads: int | None = None) -> Observation:
        """Watch every tensor of ``model`` that is worth it.

        Raises:
            ModelFileError: The model is of an older opset than 13.
        """
        if default_opset(model) < _OLDEST_OPSET:
            raise ModelFileError(
                f"The model is of opset {default_opset(model)}, and calibration needs {_OLDEST_OPSET} or later; "
                "convert it with rexport.passes.raise_opset first."
            )
        watched = observed_tensors(model)
        computed, visible = with_visible_terms(model)
        return cls(
            model_sha256=model_hash(model),
            probed=to_bytes(add_probes(computed, [visible.get(name, name) for name in watched])),
            inputs=tuple(str(value.name) for value in inputs_of(model)),
            watched=watched,
            threads=threads,
        )


class Observer:
    """A session of the watched model."""

    def __init__(self, observation: Observation) -> None:
        self._model_sha256, self._inputs = observation.model_sha256, observation.inputs
        self._watched = observation.watched
        self._session = open_session(observation.probed, threads=observation.threads, plan_memory=False)
        outputs = [output.name for output in self._session.get_outputs()]
        self._outputs = outputs[len(outputs) - OUTPUTS * len(self._watched) :]
        self._batch = fixed_batch(self._session)

    def observe(
        self, batches: Iterable[Feed], *, before: int = 0, advance: Callable[[int], None] = lambda _: None
    ) -> CalibrationTable:
        """Run ``batches`` and return the table of their images, the first of which is number ``before`` of all.

        Raises:
            DataError: There are no batches, or a tensor takes values that are not finite.
        """
        accumulator = Accumulator(self._watched)
        largest = 0
        adding: deque[Future[None]] = deque()
        with ThreadPoolExecutor(1) as beside:
            for batch in batches:
                for part, images in self._parts(batch):
                    arrays = by_name(part, self._inputs)
                    outputs = self._session.run(self._outputs, arrays)
                    if adding:
                        adding.popleft().result()
                    adding.append(beside.submit(accumulator.add, arrays, outputs, images=images, before=before))
                    before += images
                    largest = max(largest, examples_in(part))
                    del outputs
                advance(examples_in(batch))
            while adding:
                adding.popleft().result()
        if not accumulator.images:
            raise DataError("There are no images to calibrate with.")
        return CalibrationTable(
            model_sha256=self._model_sha256,
            images=accumulator.images,
            tensors=accumulator.statistics(),
            data_sha256=accumulator.data_sha256,
            batch=largest,
            versions=(f"onnxruntime {onnxruntime.__version__}", f"rexport {__version__}"),
        )

    def _parts(self, batch: Feed) -> Iterator[tuple[Feed, int]]:
        """Yield the examples that run at a time, and how many of them are no copies."""
        remaining = examples_in(batch)
        if remaining:
            for part in in_batches(batch, self._batch):
                yield part, min(remaining, examples_in(part))
                remaining -= examples_in(part)
