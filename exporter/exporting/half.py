"""A float32 model becomes one that computes in float16, and the proof that it still computes the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from rexport._errors import VerificationError
from rexport.model_file import to_bytes
from rexport.passes import Reference
from rexport.passes.float16 import Float16Result, with_float16

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import onnx_ir as ir

__all__ = ["FLOAT16_TOLERANCE", "HalfResult", "to_half"]

# float16 rounds by 5e-4, and the result of each layer is rounded again at the next: 3e-4 to 7e-4 of the outputs' scale
# was measured over 21 networks of 18 to 121 layers.
FLOAT16_TOLERANCE = 1e-2


@dataclass(frozen=True, kw_only=True)
class HalfResult:
    """A conversion, and the largest ``difference`` from float32 of any output, as a fraction of its largest value."""

    conversion: Float16Result
    difference: float

    def to_json(self) -> dict[str, Any]:
        """Return the result for a JSON document."""
        return {
            "difference": self.difference,
            "float32_layers": [vars(layer) for layer in self.conversion.kept],
            "vanished": dict(self.conversion.vanished),
        }


def to_half(
    model: ir.Model,
    *,
    largest: Mapping[str, float] | None = None,
    feeds: dict[str, np.ndarray] | None = None,
    tolerance: float = FLOAT16_TOLERANCE,
) -> HalfResult:
    """Let a copy of ``model`` compute in float16, and compare both on random inputs.

    ONNX Runtime has few float16 kernels on x86, and computes in float32 elsewhere: the comparison shows the rounding of
    weights. Only ``largest`` tells whether tensors are too large.

    Args:
        model: A float32 model.
        largest: The largest absolute values observed in its tensors (see
            :func:`rexport.passes.float16.with_float16`).
        feeds: Inputs in the place of random ones, by name.
        tolerance: The largest difference of an output that is allowed, as a fraction of its largest value.

    Raises:
        ModelFileError: It has control flow, or is in float16 already.
        VerificationError: The results differ by more, or the result is not valid ONNX (a defect of rexport).
    """
    conversion = with_float16(model, largest=largest)
    try:
        onnx.checker.check_model(to_bytes(conversion.model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise VerificationError(f"The float16 model is not valid ONNX: {error}") from error
    try:
        difference = Reference(model, feeds=feeds).difference(conversion.model, tolerance=tolerance)
    except VerificationError as error:
        raise VerificationError(
            f"The max relative difference of float16 from float32 is above {tolerance:.0e}: weights or "
            "tensors are too large or too small. Pass --data DIR, so that layers that overflow stay in "
            "float32, or export in float32."
        ) from error
    return HalfResult(conversion=conversion, difference=difference)
