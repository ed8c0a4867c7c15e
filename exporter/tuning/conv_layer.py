"""Grouped convolutions of a model, described by the facts that their time depends on, and models of one such layer.

Alone it stands between two 1×1 convolutions, as in the networks that have it: a runtime then keeps its own layout of
the tensors around it, which it would otherwise change at both ends, and not for all candidates alike.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from rexport.benchmarks.layer_graph import SCALE, LayerGraph
from rexport.cost import tensor_shapes
from rexport.model_file import to_bytes
from rexport.passes._graph import constant, name_of
from rexport.passes._quantized import dequantize_of, stored
from rexport.passes.regroup import Regroup, groups_of
from rexport.passes.split_groups import SplitGroups, why_not_split
from rexport.tuning.group_form import AS_IT_IS, GroupForm

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from rexport.preprocessing import Size

__all__ = ["ENDS", "ConvLayer", "grouped_layers"]

ENDS = 16  # channels of the model around a layer: few, so that its ends cost little


@dataclass(frozen=True, kw_only=True)
class ConvLayer:
    """A convolution over pictures, without its numbers.

    Attributes:
        inputs: Channels that it reads.
        outputs: Channels that it writes.
        groups: Groups that both are in.
        kernel: Height and width.
        strides: Likewise.
        pads: Top, left, bottom, right.
        dilations: Height and width.
        height: Height of the pictures that it reads.
        width: Their width.
        weights: The NumPy dtype of the weights: a float, or the integers that they are stored as.
        activations: The dtype of the pictures, likewise.
        can_split: Whether it may become branches.
    """

    inputs: int
    outputs: int
    groups: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilations: tuple[int, int]
    height: int
    width: int
    weights: str
    activations: str
    can_split: bool

    @property
    def is_quantized(self) -> bool:
        """Whether it multiplies integers."""
        return not self.activations.startswith("float")

    def forms(self, *, widest: int, most_branches: int) -> tuple[GroupForm, ...]:
        """Return the forms to measure: as it is, in groups of up to ``widest`` channels, and a few in branches."""
        channels = self.inputs // self.groups
        counts = [1]
        for count in range(2, self.groups + 1):
            if self.groups % count == 0 and count >= 2 * counts[-1]:  # those in between tell little more
                counts.append(count)
        merged = [GroupForm(merged=count) for count in counts if count == 1 or count * channels <= widest]
        branches = [
            GroupForm(branches=True, merged=form.merged)
            for form in merged
            if self.can_split and 1 < self.groups // form.merged <= most_branches
        ]
        return (*merged, *branches)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        kernel, stride = "×".join(map(str, self.kernel)), self.strides[0]
        text = f"{kernel}, {self.inputs} → {self.outputs} of {self.height}×{self.width}"
        return f"{text}, stride {stride}" if stride > 1 else text

    def to_model(self, form: GroupForm = AS_IT_IS, *, seed: int = 0) -> bytes:
        """Return a serialized model of this layer, in a form, between two 1×1 convolutions, of any batch.

        It takes float32 of shape ``(N, 16, height, width)``.
        """
        graph = _Graph(np.random.default_rng(seed), self)
        before = replace(self, inputs=ENDS, outputs=self.inputs, **_POINTWISE)
        after = replace(self, inputs=self.outputs, outputs=ENDS, **_POINTWISE)
        result = graph.start()
        for name, layer in (("before", before), ("layer", self), ("after", after)):
            result = graph.convolve(result, layer, name)
        model = ir.from_proto(graph.end(result))
        Regroup(lambda _: form.merged)(model)
        SplitGroups(lambda _: form.branches)(model)
        return to_bytes(model)


_POINTWISE: Mapping[str, Any] = {
    "groups": 1,
    "kernel": (1, 1),
    "strides": (1, 1),
    "pads": (0, 0, 0, 0),
    "dilations": (1, 1),
}


def grouped_layers(model: ir.Model, *, size: Size | None = None) -> dict[ConvLayer, tuple[str, ...]]:
    """Return the distinct grouped convolutions over pictures of a model, each with the names of its nodes.

    Args:
        model: With one image input.
        size: Height and width of its pictures, where it takes any.
    """
    shapes = tensor_shapes(model, size)
    names: dict[ConvLayer | None, list[str]] = defaultdict(list)
    for node in model.graph:
        if groups_of(node) > 1:
            names[_layer_of(node, shapes)].append(name_of(node))
    return {layer: tuple(nodes) for layer, nodes in names.items() if layer is not None}


def _layer_of(node: ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> ConvLayer | None:
    """Return the layer of ``node``, or ``None`` if its picture's size or its weight is unknown."""
    picture, weight = node.inputs[0], constant(stored(node.inputs[1]))
    assert picture is not None
    shape = shapes.get(str(picture.name), ())
    if weight is None or weight.ndim != 4 or len(shape) != 4 or min(shape) < 1:
        return None
    if (dequantize_of(picture) is None) != (dequantize_of(node.inputs[1]) is None):  # neither floats nor integers
        return None
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    top, start, bottom, end = node.attributes.get_ints("pads", [0, 0, 0, 0])
    height, width = weight.shape[2:]
    return ConvLayer(
        inputs=shape[1],
        outputs=weight.shape[0],
        groups=groups_of(node),
        kernel=(height, width),
        strides=_pair(node, "strides"),
        pads=(top, start, bottom, end),
        dilations=_pair(node, "dilations"),
        height=shape[2],
        width=shape[3],
        weights=weight.dtype.name,
        activations=_dtype_of(picture),
        can_split=why_not_split(node) is None,
    )


def _dtype_of(picture: ir.Value) -> str:
    dtype = (stored(picture) or picture).dtype or ir.DataType.FLOAT
    return dtype.numpy().name


def _pair(node: ir.Node, name: str) -> tuple[int, int]:
    vertical, horizontal = node.attributes.get_ints(name, [1, 1])
    return vertical, horizontal


class _Graph(LayerGraph):
    """A model of convolutions in a row, each float or quantized as one layer is."""

    def __init__(self, random: np.random.Generator, like: ConvLayer) -> None:
        super().__init__()
        self._random, self._like = random, like

    def start(self) -> str:
        """Return the tensor that the first convolution reads."""
        if not self._like.is_quantized:
            return "images"
        self.set_activations(np.zeros((), self._like.activations))
        return self.requantized("images")

    def convolve(self, picture: str, layer: ConvLayer, name: str) -> str:
        """Add a convolution and return its result."""
        shape = (layer.outputs, layer.inputs // layer.groups, *layer.kernel)
        if layer.is_quantized:
            weight = self.integers(f"{name}.weight", self._random.integers(0, 127, shape), layer.weights, SCALE)
            bias = self.integers(f"{name}.bias", np.zeros(layer.outputs), "int32", float(np.float32(SCALE) ** 2))
        else:
            weight = self.constant(f"{name}.weight", self._random.standard_normal(shape).astype(layer.weights))
            bias = self.constant(f"{name}.bias", np.zeros(layer.outputs, layer.weights))
        attributes = {key: getattr(layer, key) for key in ("strides", "pads", "dilations")}
        result = self.node("Conv", [picture, weight, bias], name, group=layer.groups, **attributes)
        return self.requantized(result) if layer.is_quantized else result

    def end(self, result: str) -> onnx.ModelProto:
        """Return the model whose output is ``result``."""
        size: tuple[str | int, ...] = ("N", ENDS, self._like.height, self._like.width)
        return self.model("layer", result, size)
