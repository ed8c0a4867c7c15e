"""Rounding a layer's weights so that its outputs change least, not each weight.

For the rows w of a weight, x the inputs of the layer and H = E[x xᵀ], the integers q (scale s) should make

    E[((w − s q) · x)²] = eᵀ H e = ‖Lᵀ e‖²,        e = w − s q,  H = L Lᵀ

small: AdaRound's objective (Nagel et al. 2020, arXiv:2004.10568, eq. 9). It is a closest vector problem, which Babai's
nearest plane solves well: with L lower triangular, column after column from the last to the first,

    q_k = round((w_k + Σ_{j>k} e_j L_jk / L_kk) / s)

so that the remaining columns compensate each rounding error. GPTQ (Frantar et al. 2022, arXiv:2210.17323) does the same
in another order and notation. Columns of large inputs come last, and so are rounded first. For few columns (8 % of
random rows of 9), rounding each to the nearest is better by chance, and is used then.

Where K is large, H is taken as block-diagonal: each block of columns is rounded by itself, in memory linear in K. That
ignores the correlation of inputs in different blocks; the bias corrects its effect on the mean of the outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rexport.quantization.schemes import SMALLEST_SCALE, with_scales_of_zeros

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rexport.quantization.schemes import Integers

__all__ = ["Inputs", "RoundedWeight", "best_scales", "round_to_nearest_plane"]

_BLOCK = 64  # columns at a time, so that most of the work is a matrix product
_DAMPING = 1e-3  # of the mean diagonal: more than the rounding of float32, less than the differences of columns
_AT_ONCE = 2**22  # weights whose scales are chosen together, so that their copies in float64 take some 100 MB
_SHRUNK = [1.0 - 0.025 * step for step in range(13)]  # shares of the largest weight that a scale may cover


@dataclass(frozen=True)
class Inputs:
    """The inputs of a layer, as its weights see them: the patches x of each of G groups, vectors of K numbers.

    Attributes:
        gram: E[x xᵀ], float64 of shape ``(G, K, K)``; or the blocks of B columns on its diagonal, ``(G, N, B, B)``; the
            last of them may reach beyond K.
        mean: E[x], float64 of shape ``(G, K)``.
    """

    gram: np.ndarray
    mean: np.ndarray

    @property
    def power(self) -> np.ndarray:
        """E[xₖ²], float64 of shape ``(G, K)``."""
        groups, columns = self.mean.shape
        return np.diagonal(self.gram, axis1=-2, axis2=-1).reshape(groups, -1)[:, :columns]

    def blocks(self) -> Iterator[tuple[int, slice, np.ndarray]]:
        """Yield each block as its group, its columns and its Gram matrix."""
        groups, columns = self.mean.shape
        size = self.gram.shape[-1]
        for group, grams in enumerate(self.gram.reshape(groups, -1, size, size)):
            for start, gram in zip(range(0, columns, size), grams, strict=True):
                end = min(start + size, columns)
                yield group, slice(start, end), gram[: end - start, : end - start]


@dataclass(frozen=True)
class RoundedWeight:
    """A rounded weight.

    Attributes:
        integers: The integers, of the weight's shape.
        scale: Per output channel, float32 of shape ``(O,)``.
        bias: The correction of the bias that keeps the mean of the outputs, float64 of shape ``(O,)``.
    """

    integers: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


def round_to_nearest_plane(
    weight: np.ndarray, scale: np.ndarray, inputs: Inputs, integers: Integers, *, noise: float = 0.0
) -> RoundedWeight:
    """Round a weight.

    Args:
        weight: float32 of shape ``(O, ...)``; each group has O / G rows of K numbers.
        scale: Per output channel, float32 of shape ``(O,)``.
        inputs: The layer's inputs.
        integers: A symmetric range.
        noise: The variance of the rounding errors of the inputs, which the weights pass on too.
    """
    groups, columns = inputs.mean.shape
    rows = weight.reshape(groups, -1, columns)
    scales = scale.reshape(groups, -1, 1).astype(np.float64)
    quantized, bias = np.empty(rows.shape, integers.dtype), np.zeros(rows.shape[:2])
    for group, block, gram in inputs.blocks():
        part, scale_of_rows = rows[group, :, block].astype(np.float64), scales[group]
        rounded = _nearest_plane(part / scale_of_rows, gram, noise, integers)
        quantized[group, :, block] = rounded
        bias[group] += (part - scale_of_rows * rounded) @ inputs.mean[group, block]
    return RoundedWeight(integers=quantized.reshape(weight.shape), scale=scale, bias=bias.reshape(-1))


def best_scales(weight: np.ndarray, inputs: Inputs, integers: Integers) -> np.ndarray:
    """Return the scale of each output channel, float32 of shape ``(O,)``, whose rounding errors cost least.

    A scale that clips the largest weights rounds the others more finely; the cost is Σ H_kk e_k², as if the columns
    were independent.
    """
    groups, columns = inputs.mean.shape
    rows, power = weight.reshape(groups, -1, columns), inputs.power[:, None, :]
    at_once = max(1, _AT_ONCE // (groups * columns))
    parts = [rows[:, start : start + at_once] for start in range(0, rows.shape[1], at_once)]
    best = [_best_scales(part.astype(np.float64), power, integers) for part in parts]
    return with_scales_of_zeros(np.concatenate(best, axis=1).reshape(-1)).astype(np.float32)


def _best_scales(rows: np.ndarray, power: np.ndarray, integers: Integers) -> np.ndarray:
    """Return the scales of some rows of each group, of shape ``(G, rows, 1)``; 0 for a row of zeros."""
    reach: np.ndarray = np.abs(rows).max(axis=2, keepdims=True) / integers.high
    is_zero = reach < SMALLEST_SCALE
    largest = np.where(is_zero, 1.0, reach)
    best, least = largest, np.full(largest.shape, np.inf)
    for share in _SHRUNK:
        scale = largest * share
        error = rows - scale * np.clip(np.rint(rows / scale), integers.low, integers.high)
        cost = (power * error**2).sum(axis=2, keepdims=True)
        best, least = np.where(cost < least, scale, best), np.minimum(cost, least)
    return np.where(is_zero, 0.0, best)


def _damping(gram: np.ndarray, noise: float) -> float:
    """Return the number to add to the diagonal so that a Cholesky decomposition exists, also with columns of zeros."""
    return noise + _DAMPING * max(float(np.diagonal(gram).mean()), float(np.finfo(np.float32).tiny))


def _nearest_plane(rows: np.ndarray, gram: np.ndarray, noise: float, integers: Integers) -> np.ndarray:
    """Return the integers for ``rows``, weights in units of their scales, of shape ``(O, K)``."""
    low, high = integers.low, integers.high
    order = np.argsort(np.diagonal(gram), kind="stable")
    ordered = gram[np.ix_(order, order)]
    ordered.flat[:: len(gram) + 1] += _damping(gram, noise)
    lower = np.linalg.cholesky(ordered)
    del ordered  # a fifth of a gigabyte for the largest layers of a ResNet-50
    exact = rows[:, order].copy()
    quantized, errors = np.empty(exact.shape), np.zeros(exact.shape)
    for end in range(exact.shape[1], 0, -_BLOCK):
        start = max(0, end - _BLOCK)
        # the errors of the columns after this block, to be compensated by each of its columns
        later = errors[:, end:] @ lower[end:, start:end]
        for k in range(end - 1, start - 1, -1):
            carried = later[:, k - start] + errors[:, k + 1 : end] @ lower[k + 1 : end, k]
            quantized[:, k] = np.clip(np.rint(exact[:, k] + carried / lower[k, k]), low, high)
            errors[:, k] = exact[:, k] - quantized[:, k]
    nearest = np.clip(np.rint(exact), low, high)
    costs = [np.square(e @ lower).sum(axis=1, keepdims=True) for e in (errors, exact - nearest)]
    result = np.empty(quantized.shape)
    result[:, order] = np.where(costs[0] <= costs[1], quantized, nearest)
    return result
