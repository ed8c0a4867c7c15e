"""Recovering accuracy: tensors centred and scaled, projections joined, weights rounded for outputs, biases fitted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from rexport._errors import ModelFileError
from rexport._progress import Progress, silent
from rexport.calibration import Calibrator
from rexport.passes._graph import constant, contents_of, input_at, name_of
from rexport.passes.whole_pixels import are_whole_pixels, with_whole_pixels
from rexport.preprocessing import Layout
from rexport.quantization.centring import centre_channels
from rexport.quantization.equalization import Equalized, equalize
from rexport.quantization.inputs import layers_with_patches, observe_inputs
from rexport.quantization.joining import join_projections
from rexport.quantization.plan import Plan, plan
from rexport.quantization.rounding import RoundedWeight, best_scales, round_to_nearest_plane
from rexport.quantization.schemes import rounded_up, smallest_weight_scale
from rexport.quantization.targets import ONNX_RUNTIME, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    import onnx_ir as ir

    from rexport.calibration import CalibrationTable
    from rexport.feeds import Feed
    from rexport.preprocessing import Preprocessing
    from rexport.quantization.rounding import Inputs
    from rexport.quantization.targets import Target

__all__ = ["Recovered", "recover"]


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What :func:`rexport.quantization.quantize` needs for more accuracy.

    Attributes:
        equalized: The model with scaled tensors.
        weights: The integers of each layer's weight, by its name.
    """

    equalized: Equalized
    weights: Mapping[str, RoundedWeight]

    def __str__(self) -> str:
        parts = [f"{len(self.equalized.factors)} tensors equalized"]
        if self.equalized.joined:
            parts.append(f"{len(self.equalized.joined)} projections joined")
        if self.weights:
            parts.append(f"AdaRound on {len(self.weights)} layers")
        return ", ".join(parts)


def recover(
    model: ir.Model,
    table: CalibrationTable,
    *,
    target: Target,
    calibrator: Calibrator = Calibrator.MINMAX,
    keep_float: Collection[str] = frozenset(),
    images: Callable[[], Iterable[Feed]] | None = None,
    total: int = 1,
    preprocessing: Preprocessing | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Recovered:
    """Return scaled tensors and rounded weights that bring an INT8 file of ``model`` closer to it.

    Args:
        model: The fused float model.
        table: The statistics of its tensors.
        target: The runtime and processor that will run the file.
        calibrator: How ranges follow from the statistics.
        keep_float: The names of layers that stay in float, and so are not joined with others.
        images: Starts batches of images anew, to observe the layers' inputs; without them, no weights are rounded.
        total: The number of images.
        preprocessing: How they were normalised; if they are whole pixels, the file computes with those.
        threads: By default one per usable core.
        progress: Told of every batch and of every layer.
    """
    model = _reading_pixels(model, preprocessing, images, target)
    plan_for = partial(plan, model, table, target=target, calibrator=calibrator, keep_float=keep_float)
    centred, shifts = centre_channels(model, table)
    equalized = equalize(centred, table, shifts)
    if target.stored is Stored.RESULTS:  # else the addition runs as one with its convolution, and costs nothing
        equalized = join_projections(equalized, plan_for(equalized=equalized), table)
    if images is None:
        return Recovered(equalized=equalized, weights={})
    planned = plan_for(equalized=equalized)
    integer = {name_of(layer.node) for layer in planned.placement.layers if layer.integer}
    layers = [node for node in layers_with_patches(equalized.model) if name_of(node) in integer]
    observed = observe_inputs(equalized.model, layers, images, total=total, threads=threads, progress=progress)
    weights = {name_of(node): _round(node, inputs, planned, target) for node, inputs in observed}
    return Recovered(equalized=equalized, weights=weights)


def _reading_pixels(
    model: ir.Model,
    preprocessing: Preprocessing | None,
    images: Callable[[], Iterable[Feed]] | None,
    target: Target,
) -> ir.Model:
    """Return a model that turns its images back into pixels, if they are that and its first layer allows it."""
    if images is None or preprocessing is None or target.runtime != ONNX_RUNTIME or preprocessing.takes.raw:
        return model
    if preprocessing.axes is Layout.NHWC:  # a Transpose reads the images
        return model
    first = next(iter(images()), None)
    if not isinstance(first, np.ndarray) or not are_whole_pixels(first, preprocessing):
        return model
    try:
        return with_whole_pixels(model, preprocessing)
    except ModelFileError:  # not only convolutions read the images
        return model


def _round(node: ir.Node, inputs: Inputs, planned: Plan, target: Target) -> RoundedWeight:
    weight, bias, input_scale = (
        contents_of(node.inputs[1]),
        constant(input_at(node, 2)),
        planned.map_of(node.inputs[0]).scale,
    )
    scale = best_scales(weight, inputs, target.weights)
    if bias is not None:
        scale = np.maximum(scale, smallest_weight_scale(bias, input_scale)).astype(np.float32)
    scale = rounded_up(scale, target.rest)
    noise = float(input_scale) ** 2 / 12  # of rounding to the nearest of evenly spaced numbers
    return round_to_nearest_plane(weight, scale, inputs, target.weights, noise=noise)
