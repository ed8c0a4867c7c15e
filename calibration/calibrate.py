"""Running pictures through a model and watching the range of every tensor.

The reductions are part of the graph: each watched tensor gets a ReduceMin, a ReduceMax and a ReduceSum, so that what
leaves the runtime is three numbers a tensor and batch, and no activation is kept. Memory is that of one batch, whatever
the number of images. The sum is there for NaN, which the other two pass over in silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from rexport._errors import DataError
from rexport._progress import Progress, silent
from rexport.calibration.table import CalibrationTable, TensorRange
from rexport.model_file import image_input, model_hash, to_bytes
from rexport.passes._graph import is_op, is_rectifier, only_consumer
from rexport.runtimes.onnxruntime import fixed_batch, in_batches, open_session

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["calibrate", "observed_tensors"]

_REDUCTIONS = ("ReduceMin", "ReduceMax", "ReduceSum")


def observed_tensors(model: ir.Model) -> tuple[str, ...]:
    """Return the names of the tensors worth watching, in the order they are computed.

    These are the model's input and every float result, but for one that only a ReLU reads: the runtimes
    compute the two together, and only what comes out of the ReLU is ever stored as integers. What is stored as integers
    already, as raw images are, needs no range.
    """
    initializers = model.graph.initializers
    inputs = [value for value in model.graph.inputs if value.name not in initializers]
    results = [v for node in model.graph for v in node.outputs if not is_op(node, "DequantizeLinear")]
    return tuple(
        str(v.name) for v in [*inputs, *results] if v.dtype == ir.DataType.FLOAT and not is_rectifier(only_consumer(v))
    )


def calibrate(
    model: ir.Model,
    batches: Iterable[np.ndarray],
    *,
    total: int | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> CalibrationTable:
    """Run ``batches`` through ``model`` in ONNX Runtime and return the range of every watched tensor.

    Args:
        model: A float model with one image input. Quantize the same model with the table, so fuse it first.
        batches: Its inputs, arrays of any ``N``: float32 of shape ``(N, 3, S, S)``, or uint8 of shape ``(N, S, S, 3)``
            for a model that takes raw images.
        total: The number of images, for the progress bar's ETA.
        threads: By default one per usable core.
        progress: Told of every batch.

    Raises:
        DataError: There are no batches, or a tensor takes values that are not finite.
    """
    name = image_input(model).name
    watched = observed_tensors(model)
    session = open_session(to_bytes(_with_reductions(model, watched)), threads=threads, plan_memory=False)
    outputs = [output.name for output in session.get_outputs()][-len(_REDUCTIONS) * len(watched) :]
    lows, highs = np.full(len(watched), np.inf), np.full(len(watched), -np.inf)
    images = 0
    with progress("calibrating", total) as advance:
        for batch in batches:
            for part in in_batches(batch, fixed_batch(session)):
                reduced = np.array(session.run(outputs, {name: part}), np.float64).reshape(len(watched), -1)
                _require_finite(watched, reduced, images)
                lows, highs = np.minimum(lows, reduced[:, 0]), np.maximum(highs, reduced[:, 1])
            images += len(batch)
            advance(len(batch))
    if not images:
        raise DataError("There are no images to calibrate with.")
    ranges = {t: TensorRange(float(low), float(high)) for t, low, high in zip(watched, lows, highs, strict=True)}
    return CalibrationTable(model_sha256=model_hash(model), images=images, ranges=ranges)


def _with_reductions(model: ir.Model, watched: Sequence[str]) -> ir.Model:
    """Return a copy whose last outputs are the minimum, the maximum and the sum of each watched tensor, in turn.

    Each stands right behind the tensor that it reduces, so that no tensor has to live longer than it did.
    """
    copy = model.clone()
    values = {str(v.name): v for v in [*copy.graph.inputs, *(v for node in copy.graph for v in node.outputs)]}
    for index, name in enumerate(watched):
        value = values[name]
        reductions = [ir.node(op_type, [value], {"keepdims": 0}) for op_type in _REDUCTIONS]
        for node in reductions:
            (output,) = node.outputs
            output.name = f"rexport:{node.op_type}:{index}"
            output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
            copy.graph.outputs.append(output)
        producer = value.producer()
        if producer is None:
            copy.graph.insert_before(copy.graph[0], reductions)
        else:
            copy.graph.insert_after(producer, reductions)
    return copy


def _require_finite(watched: Sequence[str], reduced: np.ndarray, images_before: int) -> None:
    broken = ~np.isfinite(reduced).all(axis=1)
    if broken.any():
        name = watched[int(np.argmax(broken))]
        raise DataError(
            f"The tensor {name!r} takes values that are not finite (NaN or infinite), in the batch that starts with "
            f"image {images_before + 1}; it is the first such tensor, so look at the weights right before it."
        )
