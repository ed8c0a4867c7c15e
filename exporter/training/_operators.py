"""The operators of residual networks after fusing, in PyTorch: what a graph needs to be trained as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from rexport._errors import UsageError
from rexport.passes._graph import clip_bounds, int_attribute, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir
    from torch import Tensor

__all__ = ["compute", "require_known"]


def require_known(node: ir.Node) -> None:
    """Raise :class:`UsageError` for an operator that can't be trained here."""
    subject = f"{node.op_type} of {name_of(node)}"
    if node.op_type in _OPERATORS:
        pads_by_name = node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
        if not (node.domain or pads_by_name or int_attribute(node, "ceil_mode", 0)):
            return
        subject += " with these attributes"
    raise UsageError(
        f"Training in INT8 (--qat) does not support the operator {subject}; fine-tune the network without --qat."
    )


def compute(node: ir.Node, inputs: Sequence[Tensor | None]) -> Tensor:
    """Return the first output of a node that :func:`require_known` accepts."""
    return _OPERATORS[node.op_type](node, [value for value in inputs if value is not None])


def _convolution(node: ir.Node, inputs: list[Tensor]) -> Tensor:
    x, weight, *bias = inputs
    spatial = weight.ndim - 2
    x = _padded(x, node.attributes.get_ints("pads", [0] * 2 * spatial), 0.0)
    strides, dilations = (list(node.attributes.get_ints(name, [1] * spatial)) for name in ("strides", "dilations"))
    result: Tensor = torch.conv2d(
        x, weight, next(iter(bias), None), strides, 0, dilations, node.attributes.get_int("group", 1)
    )
    return result


def _gemm(node: ir.Node, inputs: list[Tensor]) -> Tensor:
    x, weight, *bias = inputs
    if not node.attributes.get_int("transB", 0):
        weight = weight.t()
    return F.linear(x, weight, next(iter(bias), None))


def _max_pool(node: ir.Node, inputs: list[Tensor]) -> Tensor:
    x = _padded(inputs[0], node.attributes.get_ints("pads", [0, 0, 0, 0]), -torch.inf)
    kernel, strides = _window(node)
    return F.max_pool2d(x, kernel, strides)


def _average_pool(node: ir.Node, inputs: list[Tensor]) -> Tensor:
    pads = node.attributes.get_ints("pads", [0, 0, 0, 0])
    kernel, strides = _window(node)
    summed = F.avg_pool2d(_padded(inputs[0], pads, 0.0), kernel, strides)
    if node.attributes.get_int("count_include_pad", 0):
        return summed
    ones = torch.ones_like(inputs[0][:1, :1])
    return summed / F.avg_pool2d(_padded(ones, pads, 0.0), kernel, strides)


def _window(node: ir.Node) -> tuple[list[int], list[int]]:
    return list(node.attributes.get_ints("kernel_shape", [1, 1])), list(node.attributes.get_ints("strides", [1, 1]))


def _padded(x: Tensor, pads: Sequence[int], fill: float) -> Tensor:
    if not any(pads):
        return x
    top, left, bottom, right = pads
    return F.pad(x, [left, right, top, bottom], value=fill)


def _batch_normalization(node: ir.Node, inputs: list[Tensor]) -> Tensor:
    x, weight, bias, mean, variance = inputs
    result: Tensor = F.batch_norm(
        x, mean, variance, weight, bias, training=False, eps=node.attributes.get_float("epsilon", 1e-5)
    )
    return result


def _clip(node: ir.Node, inputs: list[Tensor]) -> Tensor:
    bounds = clip_bounds(node)
    assert bounds is not None
    return inputs[0].clamp(*bounds)


_OPERATORS: dict[str, Callable[[ir.Node, list[Tensor]], Tensor]] = {
    "Add": lambda _, inputs: inputs[0] + inputs[1],
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Clip": _clip,
    "Concat": lambda node, inputs: torch.cat(inputs, node.attributes.get_int("axis", 1)),
    "Conv": _convolution,
    "Flatten": lambda _, inputs: inputs[0].flatten(1),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, inputs: inputs[0].mean((2, 3), keepdim=True),
    "MaxPool": _max_pool,
    "Relu": lambda _, inputs: inputs[0].relu(),
}
