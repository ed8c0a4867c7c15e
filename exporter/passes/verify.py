"""Checking that passes left a model's results alone."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from rexport._errors import ModelFileError, VerificationError
from rexport.model_file import image_input, to_bytes
from rexport.passes._graph import computes_in, shape_in_words
from rexport.runtimes.onnxruntime import open_session, said

if TYPE_CHECKING:
    from rexport.preprocessing import Preprocessing

__all__ = ["Reference", "verify_equal"]

# Folding a BatchNormalization rounds each weight once more, and a hundred layers add up. float32 rounds by 6e-8, and
# 2e-7 to 5e-7 was measured over a dozen networks of 18 to 121 layers; float16 by 5e-4, measured 6e-4 to 1e-3.
_TOLERANCE = 1e-4
_TOLERANCE_HALF = 1e-2
_BATCH, _COLORS, _PIXELS = 2, 3, 224
_MOST = 2**28  # numbers of an input: 2 GiB, as they are drawn
_PIXEL_VALUES = 256


class Reference:
    """A model's results on random inputs, which those of changed models are held against.

    Inputs are standard normal if float, pixels if uint8, 0 and 1 otherwise; a dimension that the model leaves open is
    2 at the front (the batch), 3 for the channels of a picture, and 224 elsewhere (pixels).

    Args:
        original: The model.
        seed: Of the inputs.
        preprocessing: How pictures become its one input. With it, a changed model may take the pictures themselves (see
            :func:`rexport.passes.raw_image.with_raw_images`), and is given the same.

    Raises:
        ModelFileError: It does not run, or a result of it is empty; or there is a ``preprocessing`` and no image input.
    """

    def __init__(self, original: ir.Model, *, seed: int = 0, preprocessing: Preprocessing | None = None) -> None:
        is_half = computes_in(original, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
        self.tolerance = _TOLERANCE_HALF if is_half else _TOLERANCE
        self._outputs = [str(value.name) for value in original.graph.outputs]
        self._raw_feeds: dict[str, np.ndarray] | None = None
        if preprocessing is None:
            self._feeds = _random_feeds(original, seed)
        else:
            self._feeds, self._raw_feeds = _random_pictures(original, preprocessing, seed)
        self._expected = _run(original, self._feeds)
        for name, result in zip(self._outputs, self._expected, strict=True):
            if np.size(result) == 0:
                raise ModelFileError(
                    f"The model's output {name!r} holds no number for random inputs, so nothing can be compared."
                )

    def difference(self, changed: ir.Model, *, tolerance: float | None = None) -> float:
        """Return the largest difference of any output, as a fraction of the largest value of that output.

        By default 1e-4 is allowed, and 1e-2 for models that compute in float16 or bfloat16.

        Raises:
            VerificationError: The changed model is not valid ONNX, or its results differ by more than ``tolerance``.
        """
        tolerance = self.tolerance if tolerance is None else tolerance
        differences = self.differences(changed)
        for name, difference in differences.items():
            if not difference <= tolerance:
                raise VerificationError(
                    f"Fusion changed the output {name!r} by {difference:.1e} of its scale ({tolerance:.0e} is "
                    "allowed); this is a defect of rexport, please report it."
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
        feeds = self._feeds if self._raw_feeds is None or not image_input(changed).raw else self._raw_feeds
        try:
            actual = _run(changed, feeds)
        except ModelFileError as error:
            raise VerificationError(f"The fused model does not run, and the original does: {error}") from error
        results = zip(self._outputs, self._expected, actual, strict=True)
        return {name: _difference(expected, result) for name, expected, result in results}


def verify_equal(original: ir.Model, changed: ir.Model, *, tolerance: float | None = None, seed: int = 0) -> float:
    """Run both models on the same random inputs and return the largest difference of any output.

    See :class:`Reference`, which runs the original once for several changed models.
    """
    return Reference(original, seed=seed).difference(changed, tolerance=tolerance)


def _random_feeds(model: ir.Model, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    feeds: dict[str, np.ndarray] = {}
    for value in model.graph.inputs:
        if value.name in model.graph.initializers:
            continue
        _require_feedable(value)
        assert value.dtype is not None
        shape, is_text = _shape_of(value), value.dtype == ir.DataType.STRING
        is_float = value.dtype.is_floating_point()
        values = _PIXEL_VALUES if value.dtype == ir.DataType.UINT8 else 2
        array = random.standard_normal(shape) if is_float else random.integers(0, values, shape)
        feeds[str(value.name)] = array.astype(str).astype(object) if is_text else array.astype(value.dtype.numpy())
    return feeds


def _require_feedable(value: ir.Value) -> None:
    why = _why_not_fed(value)
    if why is not None:
        raise ModelFileError(f"The input {value.name!r} {why}, so the model can't be tried.")


def _why_not_fed(value: ir.Value) -> str | None:
    if not isinstance(value.type, ir.TensorType) or value.dtype in (None, ir.DataType.UNDEFINED):
        return "is no tensor of a known type"
    if value.shape is None:
        return "has no shape"
    shape = _shape_of(value)
    return f"has the shape {shape_in_words(shape)}" if prod(shape) > _MOST else None


def _shape_of(value: ir.Value) -> list[int]:
    """Return the shape of an input, what it leaves open filled in: a few pictures in colour."""
    assert value.shape is not None
    colors = (3 if value.dtype == ir.DataType.UINT8 else 1) if len(value.shape) == 4 else None
    usual = {0: _BATCH} if colors is None else {0: _BATCH, colors: _COLORS}
    return [size if isinstance(size, int) else usual.get(axis, _PIXELS) for axis, size in enumerate(value.shape)]


def _random_pictures(
    model: ir.Model, preprocessing: Preprocessing, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return what ``model`` is given of random pictures, and the pictures, uint8 of shape ``(N, S, S, 3)``."""
    image = image_input(model)
    _require_feedable(next(value for value in model.graph.inputs if value.name == image.name))
    size = image.size or preprocessing.size
    pixels = np.random.default_rng(seed).integers(0, _PIXEL_VALUES, (image.batch or _BATCH, size, size, 3), np.uint8)
    return {image.name: preprocessing.to_input(pixels)}, {image.name: pixels}


def _run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = open_session(to_bytes(model))
    try:
        results: list[np.ndarray] = session.run(None, feeds)
    except Exception as error:  # ONNX Runtime's errors share no public base class
        raise ModelFileError(f"The model does not run on random inputs: {said(error)}.") from error
    return results


def _difference(expected: Any, actual: Any) -> float:
    """Return the difference of two results as a fraction of the first's largest value; what is no number must equal."""
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        return max(map(_difference, expected, actual), default=0.0)
    if not (_is_numeric(expected) and _is_numeric(actual)):
        return 0.0 if np.array_equal(expected, actual) else float("inf")
    if actual.shape != expected.shape:
        return float("inf")
    if not np.isfinite(actual).all():
        return 0.0 if np.array_equal(expected, actual, equal_nan=True) else float("inf")
    scale = float(np.abs(expected).max(initial=0.0)) or 1.0
    return float(np.abs(actual.astype(np.float64) - expected).max(initial=0.0)) / scale


def _is_numeric(result: Any) -> bool:
    return isinstance(result, np.ndarray) and result.dtype.kind in "biufc"
