"""TensorRT's rules for QuantizeLinear and DequantizeLinear in a file.

A file that breaks a rule fails to parse at best; at worst its engine silently computes in float. A broken rule is
repaired where the numbers stay the same; otherwise the file is refused.

    pixels-in-float      an input of uint8 is read by a Cast: raw images are cast where they enter
    bias-in-float        a bias is float: int32 through a DequantizeLinear does not parse
    scalar-scale         the scale of a whole tensor has no dimension: with one of shape (1,) a convolution is float
    symmetric            integers are int8 without a zero point; uint8 with 128 everywhere is the same as that
    axis-of-outputs      weights have a scale per output channel: along axis 0, of ConvTranspose 1
    nothing-in-between   between a convolution and the sum or the ReLU that runs as one with it nothing is quantized

Source: NVIDIA's documentation of explicit quantization and ``NvInfer.h`` (IQuantizeLayer), and builds with TensorRT for
RTX 1.7.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from rexport._errors import ModelFileError
from rexport.passes._graph import (
    WEIGHTED,
    bypass,
    constant,
    input_at,
    int_attribute,
    is_op,
    name_of,
    only_consumer,
    producer_of,
    replace_initializer,
)
from rexport.quantization.layers import convolutions_before, dequantizes_tensor
from rexport.quantization.pixels import compute_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["RULES", "Repair", "follow_rules"]

_MIDDLE = 128  # of uint8: as far from its ends as zero is from those of int8


@dataclass(frozen=True, kw_only=True)
class Repair:
    """A ``change``, in words, that makes a ``node`` follow a ``rule``."""

    rule: str
    node: str
    change: str

    def __str__(self) -> str:
        """Return it as a user reads it."""
        return f"{self.rule}: {self.node}: {self.change}"


def follow_rules(model: ir.Model) -> tuple[ir.Model, tuple[Repair, ...]]:
    """Return a copy of ``model`` that follows every rule, and the changes that this took.

    Raises:
        ModelFileError: A rule is broken and can't be followed without changing the numbers.
    """
    copy = model.clone()
    repairs: list[Repair] = []
    for rule, keep in RULES.items():
        before = len(repairs)
        repairs += [Repair(rule=rule, node=name, change=change) for name, change in keep(copy.graph)]
        if len(repairs) > before:
            common.RemoveUnusedNodesPass()(copy)  # leftovers of a repair follow no rule
    return copy, tuple(repairs)


def _keep_pixels_in_float(graph: ir.Graph) -> Iterator[tuple[str, str]]:
    nodes = [node for node in graph if dequantizes_tensor(node) and _is_of_pixels(node)]
    if nodes:
        names = [name_of(node) for node in nodes]
        compute_pixels(graph, nodes)
        for name in names:
            yield name, "uint8 pixels are now cast at the input"


def _keep_bias_in_float(graph: ir.Graph) -> Iterator[tuple[str, str]]:
    for node in list(graph):
        if not is_op(node, *WEIGHTED) or len(node.inputs) < 3 or node.inputs[2] is None:
            continue
        bias = _dequantized(node.inputs[2].producer())
        if bias is not None:
            replace_initializer(node, 2, bias, name=f"{name_of(node)}.bias_float")
            yield name_of(node), "its int32 bias is now float"


def _keep_scalar_scale(graph: ir.Graph) -> Iterator[tuple[str, str]]:
    for node in _quantizing(graph):
        scale = constant(node.inputs[1])
        if scale is not None and scale.shape == (1,) and not _is_of_weight(node):
            for index in range(1, len(node.inputs)):
                array = constant(node.inputs[index])
                if array is not None and node.inputs[index] is not None:
                    replace_initializer(node, index, array.reshape(()), name=f"{name_of(node)}.{index}_scalar")
            node.attributes.pop("axis", None)
            yield name_of(node), "its scale of shape (1,) is now a scalar"


def _keep_symmetric(graph: ir.Graph) -> Iterator[tuple[str, str]]:
    for node in _quantizing(graph):
        zero_point = _zero_point(node)
        if zero_point.dtype == np.int8 and not zero_point.any():
            continue
        if zero_point.dtype != np.uint8 or not (zero_point == _MIDDLE).all():
            raise _refused(
                "symmetric",
                node,
                f"it is {zero_point.dtype} with zero point {', '.join(map(str, np.unique(zero_point)))}, "
                "and TensorRT takes only int8 with zero point 0",
            )
        integers = constant(node.inputs[0])
        if is_op(node, "DequantizeLinear") and integers is not None:
            shifted = (integers.astype(np.int16) - _MIDDLE).astype(np.int8)
            replace_initializer(node, 0, shifted, name=f"{name_of(node)}.int8")
        replace_initializer(node, 2, np.zeros(zero_point.shape, np.int8), name=f"{name_of(node)}.zero")
        if is_op(node, "QuantizeLinear"):
            node.outputs[0].type = ir.TensorType(ir.DataType.INT8)
        yield name_of(node), "uint8 with zero point 128 is now int8"


def _keep_axis_of_outputs(graph: ir.Graph) -> Iterator[tuple[str, str]]:
    for node in graph:
        producer = producer_of(input_at(node, 1), "DequantizeLinear")
        if producer is None or not is_op(node, *WEIGHTED):
            continue
        scale, stored = constant(producer.inputs[1]), constant(producer.inputs[0])
        if scale is None or stored is None or scale.size == 1:
            continue
        axis = int_attribute(producer, "axis", 1) % stored.ndim
        wanted = _axis_of_outputs(node)
        if axis != wanted and not (scale == scale.flat[0]).all():
            raise _refused(
                "axis-of-outputs",
                node,
                f"its weight's scales are along axis {axis}, and TensorRT takes one per output channel, axis {wanted}",
            )
        if axis != wanted:  # one number for all: along any axis it means the same
            count = stored.shape[wanted]
            replace_initializer(producer, 1, np.full(count, scale.flat[0], scale.dtype), name=f"{name_of(node)}.scales")
            if len(producer.inputs) > 2:
                replace_initializer(producer, 2, np.zeros(count, np.int8), name=f"{name_of(node)}.zeros")
            producer.attributes.add(ir.AttrInt64("axis", wanted))
            yield name_of(node), f"its weight's scales, all equal, are now along axis {wanted}"


def _keep_nothing_in_between(graph: ir.Graph) -> Iterator[tuple[str, str]]:
    for node in list(graph):
        if not is_op(node, "Conv", "ConvTranspose", "Gemm"):
            continue
        quantize = only_consumer(node.outputs[0])
        if not is_op(quantize, "QuantizeLinear"):
            continue
        dequantize = only_consumer(quantize.outputs[0])
        if not is_op(dequantize, "DequantizeLinear"):
            continue
        reader = only_consumer(dequantize.outputs[0])
        if not is_op(reader, "Relu", "Add"):
            continue
        if is_op(reader, "Add") and not _runs_as_one(dequantize.outputs[0], reader):
            continue
        bypass(dequantize)
        bypass(quantize)
        yield name_of(node), f"its result is no longer quantized before {name_of(reader)}, which is fused with it"


RULES: dict[str, Callable[[ir.Graph], Iterator[tuple[str, str]]]] = {
    "pixels-in-float": _keep_pixels_in_float,
    "bias-in-float": _keep_bias_in_float,
    "scalar-scale": _keep_scalar_scale,
    "symmetric": _keep_symmetric,
    "axis-of-outputs": _keep_axis_of_outputs,
    "nothing-in-between": _keep_nothing_in_between,
}


def _refused(rule: str, node: ir.Node, reason: str) -> ModelFileError:
    return ModelFileError(
        f"TensorRT can't take {name_of(node)} (rule {rule}): {reason}; quantize the float model again with "
        "`rexport quantize --target tensorrt`."
    )


def _quantizing(graph: ir.Graph) -> list[ir.Node]:
    return [node for node in graph if is_op(node, "QuantizeLinear", "DequantizeLinear")]


def _is_of_pixels(node: ir.Node) -> bool:
    """Say whether a DequantizeLinear reads an input of uint8, as it is, moved, or with constants beside it."""
    value = node.inputs[0]
    while value is not None and not value.is_graph_input():
        source = value.producer()
        if source is None or is_op(source, "QuantizeLinear"):
            return False
        value = next((read for read in source.inputs if read is not None and constant(read) is None), None)
    return value is not None and value.dtype == ir.DataType.UINT8


def _zero_point(node: ir.Node) -> np.ndarray:
    """Return the zero point of a node, as a tensor of the type of its integers."""
    integers, scale, zero_point = map(constant, (*node.inputs, None)[:3])
    if zero_point is not None:
        return zero_point
    shape = () if scale is None else scale.shape
    if integers is None or is_op(node, "QuantizeLinear"):
        return np.zeros(shape, np.uint8)  # ONNX's default
    return np.zeros(shape, integers.dtype)


def _dequantized(node: ir.Node | None) -> np.ndarray | None:
    """Return the numbers that a DequantizeLinear makes of int32 constants, in the type of its scale."""
    if not is_op(node, "DequantizeLinear"):
        return None
    integers, scale = constant(node.inputs[0]), constant(node.inputs[1])
    if integers is None or scale is None or integers.dtype != np.int32:
        return None
    numbers: np.ndarray = (integers.astype(np.float64) * scale).astype(scale.dtype)
    return numbers


def _is_of_weight(node: ir.Node) -> bool:
    stored = constant(node.inputs[0])
    return stored is not None and stored.ndim > 1


def _axis_of_outputs(node: ir.Node) -> int:
    if is_op(node, "ConvTranspose"):
        return 1
    return int(not is_op(node, "Conv") and not node.attributes.get_int("transB", 0))


def _runs_as_one(value: ir.Value, total: ir.Node) -> bool:
    """Say whether what comes to a sum by ``value`` is computed with it; the other input then is the identity.

    If both are results of convolutions, it is that with more convolutions before it.
    """
    terms = [term for term in total.inputs if term is not None]
    return max(map(convolutions_before, terms)) == convolutions_before(value)
