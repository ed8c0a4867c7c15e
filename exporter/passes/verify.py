"""Checking that passes did not change a model's results."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from rexport._errors import ModelFileError, VerificationError
from rexport.model_file import to_bytes
from rexport.model_inputs import image_input
from rexport.passes._graph import computes_in, constant, shape_in_words
from rexport.passes._quantized import integer_operators
from rexport.preprocessing import CHANNELS
from rexport.runtimes.onnxruntime import open_session, said

if TYPE_CHECKING:
    from rexport.preprocessing import Preprocessing

__all__ = ["Reference", "random_feeds", "verify_equal"]

# Folding a BatchNormalization rounds each weight once more, and a hundred layers add up. float32 rounds by 6e-8, and
# 2e-7 to 5e-7 was measured over a dozen networks of 18 to 121 layers; float16 by 5e-4, measured 6e-4 to 1e-3.
_TOLERANCE = 1e-4
_TOLERANCE_HALF = 1e-2
_BATCH, _COLORS, _PIXELS = 2, 3, 224
_MOST = 2**28  # numbers of an input: 2 GiB, as they are drawn
_PIXEL_VALUES = 256


class Reference:
    """A model's results on random inputs, with which those of changed models are compared.

    Inputs are standard normal if float, pixels if uint8, 0 and 1 otherwise; a dimension that the model leaves open is
    2 at the front (the batch), 3 for the channels of a picture, and 224 elsewhere (pixels).

    Args:
        original: The model.
        seed: The seed of the inputs.
        preprocessing: How pictures become its one input. With it, a changed model may take the pictures themselves (see
            :func:`rexport.passes.raw_image.with_raw_images`), and gets the same ones.
        feeds: Inputs in the place of random ones, by name.

    Raises:
        ModelFileError: It does not run, or one of its results is empty; or it has a ``preprocessing`` and no image
            input.
    """

    def __init__(
        self,
        original: ir.Model,
        *,
        seed: int = 0,
        preprocessing: Preprocessing | None = None,
        feeds: dict[str, np.ndarray] | None = None,
    ) -> None:
        is_half = computes_in(original, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
        self.tolerance = _TOLERANCE_HALF if is_half else _TOLERANCE
        self._outputs = [str(value.name) for value in original.graph.outputs]
        self._raw_feeds: dict[str, np.ndarray] | None = None
        if preprocessing is None:
            self._feeds = random_feeds(original, seed) if feeds is None else feeds
        else:
            self._feeds, self._raw_feeds = _random_pictures(original, preprocessing, seed)
        # else ONNX Runtime rounds what a MatMul with such a weight reads (MatMulNBits)
        self._expected = _run(original, self._feeds, optimize=not _dequantizes_weights(original))
        for name, result in zip(self._outputs, self._expected, strict=True):
            if np.size(result) == 0:
                raise ModelFileError(
                    f"The model's output {name!r} is empty for random inputs, so nothing can be compared."
                )

    def difference(self, changed: ir.Model, *, tolerance: float | None = None) -> float:
        """Return the largest difference of any output, as a fraction of the largest value of that output.

        By default 1e-4 is allowed, and 1e-2 for models that compute in float16 or bfloat16.

        Raises:
            VerificationError: The changed model is not valid ONNX, or its results differ by more than ``tolerance``.
        """
        if tolerance is None:
            tolerance = self.tolerance
        differences = self.differences(changed)
        for name, difference in differences.items():
            if not difference <= tolerance:
                raise VerificationError(
                    f"Fusion changed the output {name!r}: max relative difference {difference:.1e} (limit "
                    f"{tolerance:.0e}); this is a bug in rexport, please report it."
                )
        return max(differences.values(), default=0.0)

    def differences(self, changed: ir.Model) -> dict[str, float]:
        """Return the largest difference of each output, by its name, as a fraction of its largest value.

        Raises:
            VerificationError: The changed model is not valid ONNX, or does not run.
        """
        try:
            onnx.checker.check_model(to_bytes(changed))
        except onnx.checker.ValidationError as error:
            raise VerificationError(f"The fused model is not valid ONNX: {error}") from error
        feeds = self._feeds
        if self._raw_feeds is not None and image_input(changed).raw:
            feeds = self._raw_feeds
        try:
            actual = _run(changed, feeds)
        except ModelFileError as error:
            raise VerificationError(f"The fused model does not run, although the original does: {error}") from error
        results = zip(self._outputs, self._expected, actual, strict=True)
        return {name: _difference(expected, result) for name, expected, result in results}


def verify_equal(original: ir.Model, changed: ir.Model, *, tolerance: float | None = None, seed: int = 0) -> float:
    """Run both models on the same random inputs and return the largest difference of any output.

    See :class:`Reference`, which runs the original once for several changed models.
    """
    return Reference(original, seed=seed).difference(changed, tolerance=tolerance)


def random_feeds(model: ir.Model, seed: int = 0) -> dict[str, np.ndarray]:
    """Return random inputs for any model, open sizes as of two pictures; floats are standard-normal.

    Raises:
        ModelFileError: An input is of no known shape or type.
    """
    random = np.random.default_rng(seed)
    feeds: dict[str, np.ndarray] = {}
    for value in model.graph.inputs:
        if value.name in model.graph.initializers:
            continue
        _require_feedable(value)
        assert value.dtype is not None
        shape, dtype = _shape_of(value), value.dtype.numpy()
        array: np.ndarray
        if value.dtype.is_floating_point():
            array = random.standard_normal(shape)
        else:
            array = random.integers(0, _PIXEL_VALUES if dtype == np.uint8 else 2, shape)
        if value.dtype == ir.DataType.STRING:
            array = array.astype(str)
        feeds[str(value.name)] = array.astype(dtype)
    return feeds


def _require_feedable(value: ir.Value) -> None:
    if refusal := _why_not_fed(value):
        raise ModelFileError(f"The input {value.name!r} {refusal}, so the model can't be run on random inputs.")


def _why_not_fed(value: ir.Value) -> str | None:
    if not isinstance(value.type, ir.TensorType) or value.dtype in (None, ir.DataType.UNDEFINED):
        return "is no tensor of a known type"
    if value.shape is None:
        return "has no shape"
    if prod(_shape_of(value)) > _MOST:
        return f"has the shape {shape_in_words(_shape_of(value))}"
    return None


def _shape_of(value: ir.Value) -> list[int]:
    """Return the shape of an input, its open dimensions filled in: a few pictures in colour."""
    assert value.shape is not None
    usual = {0: _BATCH}
    if len(value.shape) == 4:
        is_last = value.dtype == ir.DataType.UINT8 or value.shape[3] in CHANNELS
        usual[3 if is_last else 1] = _COLORS
    return [size if isinstance(size, int) else usual.get(axis, _PIXELS) for axis, size in enumerate(value.shape)]


def _random_pictures(
    model: ir.Model, preprocessing: Preprocessing, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the inputs of ``model`` for random pictures, and the pictures, uint8 of shape ``(N, H, W, C)``."""
    image = image_input(model)
    _require_feedable(next(value for value in model.graph.inputs if value.name == image.name))
    shape = replace(preprocessing, size=image.sized(preprocessing.size)).shape
    pixels = np.random.default_rng(seed).integers(0, _PIXEL_VALUES, (image.batch or _BATCH, *shape), np.uint8)
    return {image.name: preprocessing.to_input(pixels)}, {image.name: pixels}


def _dequantizes_weights(model: ir.Model) -> bool:
    """Say whether a model that computes with floats stores weights as integers."""
    nodes = (node for node in model.graph if node.op_type == "DequantizeLinear")
    return any(constant(node.inputs[0]) is not None for node in nodes) and not integer_operators(model)


def _run(model: ir.Model, feeds: dict[str, np.ndarray], *, optimize: bool = True) -> list[np.ndarray]:
    session = open_session(to_bytes(model), optimize=optimize)
    try:
        results: list[np.ndarray] = session.run(None, feeds)
    except Exception as error:  # ONNX Runtime's errors share no public base class
        raise ModelFileError(f"The model does not run on random inputs: {said(error)}.") from error
    return results


def _difference(expected: Any, actual: Any) -> float:
    """Return the difference of two results as a fraction of the first's largest value; others than numbers must equal.

    Equal NaN and infinities differ by 0, all that can't be subtracted by infinity.
    """
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        return max(map(_difference, expected, actual), default=0.0)
    is_numeric = _is_numeric(expected) and _is_numeric(actual)
    if is_numeric and actual.shape == expected.shape and np.isfinite(actual).all():
        scale = float(np.abs(expected).max(initial=0.0)) or 1.0
        return float(np.abs(actual.astype(np.float64) - expected).max(initial=0.0)) / scale
    return 0.0 if np.array_equal(expected, actual, equal_nan=is_numeric) else float("inf")


def _is_numeric(result: Any) -> bool:
    return isinstance(result, np.ndarray) and result.dtype.kind in "biufc"
