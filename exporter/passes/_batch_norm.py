"""BatchNormalization at inference, as the affine map it is (Ioffe & Szegedy 2015, arXiv:1502.03167).

y = γ (x − μ) / √(σ² + ε) + β  =  a x + c      with a = γ / √(σ² + ε),  c = β − a μ
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rexport.model_file import opset_of
from rexport.passes._graph import contents_of, int_attribute, shape_in_words, why_not_constant

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Affine", "affine_of", "why_not_affine"]

_PARAMETERS = ("scale", "bias", "mean", "variance")


@dataclass(frozen=True)
class Affine:
    """``y = scale · x + shift`` per channel; float64 arrays of shape ``(C,)``."""

    scale: np.ndarray
    shift: np.ndarray

    @property
    def is_finite(self) -> bool:
        """Whether all of its numbers are finite."""
        return bool(np.isfinite([self.scale, self.shift]).all())


def why_not_affine(node: ir.Node) -> str | None:
    """Return why a BatchNormalization node is not a constant affine map, or ``None`` if it is."""
    # before opset 14 more than one output means training, whether or not anything reads them
    if int_attribute(node, "training_mode", 0) or any(value.name for value in node.outputs[1:]):
        return "it is in training mode: its statistics change while the model runs"
    if node.graph is not None and opset_of(node.graph) < 7 and not int_attribute(node, "is_test", 0):
        return "it is in the training mode of opsets before 7"
    if not int_attribute(node, "spatial", 1):
        return "it normalises each pixel by itself (spatial = 0)"
    if len(node.inputs) < 1 + len(_PARAMETERS):
        return "it lacks parameters"
    channels = 0
    for value, role in zip(node.inputs[1:], _PARAMETERS, strict=True):
        if refusal := why_not_constant(value, role):
            return refusal
        array = contents_of(value)
        channels = channels or array.size
        if array.ndim != 1 or not array.size or array.size != channels:
            return f"its {role} has the shape {shape_in_words(array.shape)}, which is not one number per channel"
    if not affine_of(node).is_finite:
        return "its parameters give values that are not finite"
    return None


def affine_of(node: ir.Node) -> Affine:
    """Return the map of a node for which :func:`why_not_affine` returns ``None``; computed in float64."""
    gamma, beta, mean, variance = (contents_of(value).astype(np.float64) for value in node.inputs[1:5])
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    with np.errstate(all="ignore"):  # a negative variance becomes NaN, which the check reports
        scale = gamma / np.sqrt(variance + epsilon)
        return Affine(scale, beta - scale * mean)
