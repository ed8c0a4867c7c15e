"""Whole convolutional graphs at random: chains, branches and shortcuts of all that the passes look for, and of traps.

A graph begins at ``x``, grows by one part after another, each on a tensor that is there already, and ends in a
classifier or in a feature map. Weights are scaled so that numbers keep the size they have at ``x``, which is one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["OPSETS", "Case", "cases"]

OPSETS = tuple(range(11, 24))
_IR_VERSION = 10  # ONNX Runtime takes it with each of these opsets


@dataclass(frozen=True)
class Case:
    """A model, and what to feed it: a picture, and other values than its own for weights that a caller may change."""

    proto: onnx.ModelProto
    feeds: dict[str, np.ndarray]

    @property
    def model(self) -> ir.Model:
        return ir.from_proto(self.proto)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show Hypothesis's smallest failing case as text: the graph, and the shapes of its weights."""
        printer.text(str(self))

    def __str__(self) -> str:
        graph = self.proto.graph
        return "\n".join(
            [
                f"opset {self.proto.opset_import[0].version}",
                *(f"{tensor.name}: {_contents(tensor)}" for tensor in graph.initializer),
                *(onnx.printer.to_text(node) for node in graph.node),
                f"{[value.name for value in graph.input]} -> {[value.name for value in graph.output]}",
                f"fed { ({name: array.shape for name, array in self.feeds.items()}) }",
            ]
        )


def _contents(tensor: TensorProto) -> str:
    array = numpy_helper.to_array(tensor)
    return f"{array.dtype} {array.shape}" + (f" {array.tolist()}" if array.size <= 4 else "")


@dataclass(frozen=True)
class _Tensor:
    """A picture: its name, channels, and sizes behind them."""

    name: str
    channels: int
    sides: tuple[int, ...]


@dataclass
class _Builder:
    """A graph that grows; what it draws shrinks to the first choice and to ``False``, so the simplest comes first."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    opset: int
    dimensions: int
    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, np.ndarray] = field(default_factory=dict)
    free: list[str] = field(default_factory=list)  # initializers that a caller may change
    pictures: list[_Tensor] = field(default_factory=list)
    weights: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    norms: list[tuple[tuple[str, ...], int]] = field(default_factory=list)
    batch: int = 2

    # choices

    def chance(self, percent: int) -> bool:
        return bool(self.draw(st.integers(0, 99)) >= 100 - percent)

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def each(self, *choices: int) -> list[int]:
        """Pick for each dimension, mostly the same."""
        if self.chance(20):
            return [self.pick(*choices) for _ in range(self.dimensions)]
        return [self.pick(*choices)] * self.dimensions

    # tensors and nodes

    def name(self) -> str:
        """Return a name that nothing has yet; now and then such as a pass would give."""
        count = len(self.nodes) + len(self.initializers)
        if self.chance(6) and self.pictures:
            suffix = self.pick(".weight", ".bias", "_1", "_merged", "_rest", "_pooled", ".flatten")
            odd = f"{self.pictures[-1].name}{suffix}"
            taken = {output for node in self.nodes for output in node.output} | set(self.initializers)
            if odd not in taken:
                return odd
        return f"t{count}"

    def op(self, op_type: str, inputs: Sequence[str], count: int = 1, **attributes: object) -> list[str]:
        given = {key: value for key, value in attributes.items() if value is not None}
        results = [self.name()]
        results += [f"{results[0]}_{index}" for index in range(1, count)]
        name = "" if self.chance(10) else f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, results, name=name, **given))
        return results

    def constant(self, array: np.ndarray, *, free: bool = False) -> str:
        """Add a constant: mostly an initializer, now and then a node, or computed from others."""
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        kind = "initializer" if free else self.pick(*["initializer"] * 8, "node", "computed")
        if kind == "node":
            return self.op("Constant", [], value=numpy_helper.from_array(array))[0]
        name = f"w{len(self.initializers)}_{len(self.nodes)}"
        self.initializers[name] = array
        if free:
            self.free.append(name)
        if kind == "computed":
            return self.op("Identity", [name])[0]
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def add_picture(self, name: str, channels: int, sides: Sequence[int]) -> _Tensor:
        picture = _Tensor(name, channels, tuple(sides))
        self.pictures.append(picture)
        return picture

    def like(self, op_type: str, picture: _Tensor, inputs: Sequence[str] = (), **attributes: object) -> _Tensor:
        (name,) = self.op(op_type, [picture.name, *inputs], **attributes)
        return self.add_picture(name, picture.channels, picture.sides)

    # convolutions

    def weight(self, shape: tuple[int, ...], fan_in: int) -> str:
        same = [name for name, other in self.weights if other == shape]
        if same and self.chance(12):
            return str(self.pick(*same))
        array = self.random.standard_normal(shape) / np.sqrt(fan_in)
        if same and self.chance(12):  # an equal one under another name
            array = self.initializers.get(same[0], array)
        name = self.constant(array, free=self.chance(2))
        self.weights.append((name, shape))
        return name

    def bias(self, channels: int) -> str:
        return self.constant(self.random.normal(0, 0.3, channels), free=self.chance(1))

    def conv(self, source: _Tensor, *, out: int | None = None, keep: bool = False, plain: bool = False) -> _Tensor:
        """Add a convolution; one that is to ``keep`` the sides pads as it must; a ``plain`` one has no groups."""
        group = 1
        if not plain and self.chance(30):
            group = self.pick(*[g for g in range(1, source.channels + 1) if source.channels % g == 0])
        out = out or group * self.pick(1, 2, 3)
        if out % group:
            group = 1
        if keep:
            kernel, dilations, strides = self.each(1, 3), self.each(1, 1, 2), [1] * self.dimensions
            half = [d * (k - 1) // 2 for k, d in zip(kernel, dilations, strict=True)]
            attributes: dict[str, Any] = {"pads": half * 2} if any(half) or self.chance(50) else {}
            if self.chance(10):
                attributes = {"auto_pad": self.pick("SAME_UPPER", "SAME_LOWER")}
                dilations = [1] * self.dimensions  # ONNX Runtime has no others with it
            sides: list[int] = list(source.sides)
        else:
            attributes, sides, kernel, dilations, strides = self.window(source)
        shape = (out, source.channels // group, *kernel)
        inputs = [source.name, self.weight(shape, prod(shape[1:]))]
        if self.chance(40):
            inputs.append(self.bias(out))
        if any(s != 1 for s in strides) or self.chance(30):
            attributes["strides"] = strides
        if any(d != 1 for d in dilations) or self.chance(30):
            attributes["dilations"] = dilations
        if group != 1 or self.chance(30):
            attributes["group"] = group
        if self.chance(30):
            attributes["kernel_shape"] = kernel
        (name,) = self.op("Conv", inputs, **attributes)
        return self.add_picture(name, out, sides)

    def window(self, source: _Tensor) -> tuple[dict[str, Any], list[int], list[int], list[int], list[int]]:
        """Draw a window: its padding as attributes, the sides that come out, kernel, dilations and strides."""
        kernel, strides = self.each(1, 3, 2), self.each(1, 1, 2, 3)
        dilations = self.each(1, 1, 1, 2)
        extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
        mode = self.pick("none", "pads", "pads", "auto")
        pads = [0] * (2 * self.dimensions)
        if mode == "auto":
            auto = self.pick("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET")
            if auto.startswith("SAME"):
                dilations = [1] * self.dimensions
                sides = [-(-n // s) for n, s in zip(source.sides, strides, strict=True)]
                return {"auto_pad": auto}, sides, kernel, dilations, strides
            attributes: dict[str, Any] = {"auto_pad": auto}
        elif mode == "pads":
            pads = self.each(0, 1, 2) * 2
            if self.chance(30):
                pads = [self.pick(0, 1, 2) for _ in pads]
            attributes = {"pads": pads}
        else:
            attributes = {}
        before, after = pads[: self.dimensions], pads[self.dimensions :]
        padded = [n + a + b for n, a, b in zip(source.sides, before, after, strict=True)]
        if any(n < e for n, e in zip(padded, extent, strict=True)):
            return {}, list(source.sides), [1] * self.dimensions, [1] * self.dimensions, [1] * self.dimensions
        sides = [(n - e) // s + 1 for n, e, s in zip(padded, extent, strides, strict=True)]
        return attributes, sides, kernel, dilations, strides

    def conv_transpose(self, source: _Tensor) -> _Tensor:
        group = 1
        if self.chance(40):
            group = self.pick(*[g for g in range(1, source.channels + 1) if source.channels % g == 0])
        out, kernel, strides = self.pick(1, 2, 3), self.each(2, 1, 3), self.each(2, 1)
        pads = self.each(0, 0, 1) * 2
        sides = [
            s * (n - 1) + k - a - b
            for n, k, s, a, b in zip(
                source.sides, kernel, strides, pads[: self.dimensions], pads[self.dimensions :], strict=True
            )
        ]
        if min(sides) < 1 or max(sides) > 20:
            return self.rectifier(source)
        weight = self.weight((source.channels, out, *kernel), source.channels // group * prod(kernel))
        inputs = [source.name, weight, *([self.bias(out * group)] if self.chance(40) else [])]
        (name,) = self.op("ConvTranspose", inputs, strides=strides, pads=pads, group=group)
        return self.add_picture(name, out * group, sides)

    # layers that keep the shape

    def batch_norm(self, source: _Tensor) -> _Tensor:
        channels, random = source.channels, self.random
        training = self.opset >= 14 and self.chance(3)
        same = [names for names, size in self.norms if size == channels]
        if same and not training and self.chance(15):
            names = self.pick(*same)
        else:
            free = self.pick(0, 1, 2, 3) if self.chance(4) else -1
            arrays = [
                random.uniform(0.5, 1.2, channels) * random.choice([-1, 1], channels),
                np.zeros(channels) if self.chance(10) else random.normal(0, 0.4, channels),
                np.zeros(channels) if self.chance(10) else random.normal(0, 0.4, channels),
                random.uniform(0.3, 1.5, channels),
            ]
            names = tuple(self.constant(array, free=index == free) for index, array in enumerate(arrays))
            if not training:  # ONNX Runtime updates its statistics where they are, for all that read them
                self.norms.append((names, channels))
        attributes = {"epsilon": self.pick(None, 1e-3), "training_mode": 1 if training else None}
        name, *_ = self.op("BatchNormalization", [source.name, *names], 3 if training else 1, **attributes)
        return self.add_picture(name, channels, source.sides)

    def affine(self, source: _Tensor) -> _Tensor:
        """Multiply, add, divide or subtract something per channel, or what looks like it."""
        ones = [1] * self.dimensions
        kind = self.pick(*["channel"] * 5, "batched", "scalar", "pixel", "column", "more")
        shape = {
            "channel": [source.channels, *ones],
            "batched": [1, source.channels, *ones],
            "scalar": self.pick([], [1], [1, 1]),
            "pixel": [1, *source.sides],
            "column": [source.sides[-1]],
            "more": [source.channels, *ones],
        }[kind]
        channels = source.channels
        if kind == "more" and channels == 1:  # the constant has more channels than the picture
            channels, shape = 3, [3, *ones]
        op_type = self.pick("Mul", "Add", "Mul", "Add", "Sub", "Div")
        array = self.random.uniform(0.6, 1.4, shape) * self.random.choice([-1, 1], shape)
        inputs = [source.name, self.constant(np.asarray(array), free=self.chance(3))]
        if op_type != "Div" and self.chance(30):
            inputs.reverse()
        (name,) = self.op(op_type, inputs)
        return self.add_picture(name, channels, source.sides)

    def clip(self, source: _Tensor) -> _Tensor:
        low, high = self.pick(
            (0.0, 6.0), (0.0, 6.0), (0.0, None), (-1.0, 1.0), (None, 1.5), (0.5, 6.0), (None, None), (0.0, 1.0)
        )
        inputs = ["" if bound is None else self.constant(np.asarray(bound, np.float32)) for bound in (low, high)]
        while inputs and not inputs[-1]:
            inputs.pop()
        return self.like("Clip", source, inputs)

    def rectifier(self, source: _Tensor) -> _Tensor:
        kind = self.pick("Relu", "Relu", "Clip", "other")
        if kind == "Clip":
            return self.clip(source)
        if kind == "Relu":
            return self.like("Relu", source)
        others = ["LeakyRelu", "Sigmoid", "Tanh", *(["HardSwish"] if self.opset >= 14 else [])]
        return self.like(self.pick(*others), source)

    def nothing(self, source: _Tensor) -> _Tensor:
        """Add a layer that does nothing, or almost."""
        kind = self.pick("Identity", "Dropout", "Pad", "one", "Dropout training off")
        if kind == "Identity":
            return self.like("Identity", source)
        if kind.startswith("Dropout"):
            if self.opset < 12:
                return self.like("Dropout", source, ratio=0.3)
            ratio = self.constant(np.asarray(0.3, np.float32))
            off = [self.constant(np.asarray(False))] if kind != "Dropout" else []
            return self.like("Dropout", source, [ratio, *off])
        if kind == "one":
            op_type, value = self.pick(("Mul", 1.0), ("Add", 0.0))
            return self.like(op_type, source, [self.constant(np.asarray(value, np.float32))])
        return self.like("Pad", source, [self.integers(*[0] * (2 * len(source.sides) + 4))])

    # layers that change the sides

    def pad(self, source: _Tensor) -> _Tensor:
        mode = self.pick("constant", "constant", "constant", "reflect", "edge")
        sizes = (0, 1) if mode != "constant" else (1, 0, 2, -1)
        begin, end = self.each(*sizes), self.each(*sizes)
        sides = [n + a + b for n, a, b in zip(source.sides, begin, end, strict=True)]
        if min(sides) < 1 or max(sides) > 20 or min(source.sides) < 2:
            return self.nothing(source)
        front = self.pick(0, 0, 0, 1) if mode == "constant" else 0  # channels
        value = self.pick(None, 0.0, 0.0, 0.5)
        inputs = [self.integers(0, front, *begin, 0, 0, *end)]
        if self.opset >= 18 and self.chance(30):
            front = 0
            inputs = [self.integers(*begin, *end)]
            value_name = self.constant(np.asarray(value or 0.0, np.float32)) if mode == "constant" else ""
            inputs += [value_name, self.integers(*range(2, 2 + self.dimensions))]
        elif value is not None and mode == "constant":
            inputs.append(self.constant(np.asarray(value, np.float32)))
        attributes = {} if mode == "constant" and self.chance(50) else {"mode": mode}
        (name,) = self.op("Pad", [source.name, *inputs], **attributes)
        return self.add_picture(name, source.channels + front, sides)

    def pool(self, source: _Tensor) -> _Tensor:
        op_type = self.pick("MaxPool", "AveragePool", "AveragePool")
        if op_type == "AveragePool" and self.chance(15):  # the whole picture
            (name,) = self.op(op_type, [source.name], kernel_shape=list(source.sides))
            return self.add_picture(name, source.channels, [1] * self.dimensions)
        attributes, sides, kernel, dilations, strides = self.window(source)
        if attributes.get("auto_pad", "").startswith("SAME"):  # ONNX Runtime takes no padding below zero here
            kernel = [max(pair) for pair in zip(kernel, strides, strict=True)]
        padded = attributes.get("pads")
        if padded and any(a >= k for a, k in zip(padded, kernel * 2, strict=True)):
            kernel, strides = [1] * self.dimensions, self.each(2, 1)
            attributes, dilations = {}, [1] * self.dimensions
            sides = [(n - 1) // s + 1 for n, s in zip(source.sides, strides, strict=True)]
        if op_type == "AveragePool":
            if any(d != 1 for d in dilations):
                return self.rectifier(source)
            attributes["count_include_pad"] = self.pick(0, 1)
        elif any(d != 1 for d in dilations):
            attributes["dilations"] = dilations
        (name,) = self.op(op_type, [source.name], kernel_shape=kernel, strides=strides, **attributes)
        return self.add_picture(name, source.channels, sides)

    def padded_pool(self, source: _Tensor) -> _Tensor:
        """Pad and take the maximum, as networks of Keras do."""
        widths = [self.pick(1, 0) for _ in range(2 * self.dimensions)]
        before, after = widths[: self.dimensions], widths[self.dimensions :]
        sides = [n + a + b for n, a, b in zip(source.sides, before, after, strict=True)]
        value, kernel, stride = self.pick(0.0, 0.0, -np.inf, -0.5), self.pick(2, 3), self.pick(2, 1)
        if min(sides) < kernel:  # at least 2, so that no window is all padding and infinity does not get on
            return self.rectifier(source)
        inputs = [self.integers(0, 0, *before, 0, 0, *after), self.constant(np.asarray(value, np.float32))]
        (padded,) = self.op("Pad", [source.name, *inputs])
        attributes = {"kernel_shape": [kernel] * self.dimensions, "strides": [stride] * self.dimensions}
        (name,) = self.op("MaxPool", [padded], **attributes)
        return self.add_picture(name, source.channels, [(n - kernel) // stride + 1 for n in sides])

    def slice(self, source: _Tensor) -> _Tensor:
        """Take every n-th pixel, or some channels."""
        if source.channels > 1 and self.chance(40):
            first = self.pick(0, 1)
            inputs = [self.integers(v) for v in (first, source.channels, 1)]
            (name,) = self.op("Slice", [source.name, *inputs])
            return self.add_picture(name, source.channels - first, source.sides)
        first, step = self.pick(0, 0, 1), self.pick(2, 2, 1, 3)
        if min(source.sides) <= first:
            first = 0
        axes = range(2, 2 + self.dimensions)
        end = self.pick(2**31, 2**63 - 1)
        inputs = [self.integers(*[v] * self.dimensions) for v in (first, end)]
        axes = [axis - 2 - self.dimensions for axis in axes] if self.chance(20) else list(axes)
        inputs += [self.integers(*axes), self.integers(*[step] * self.dimensions)]
        (name,) = self.op("Slice", [source.name, *inputs])
        return self.add_picture(name, source.channels, [-(-(n - first) // step) for n in source.sides])

    def option_a(self, source: _Tensor) -> _Tensor:
        """Leave pixels out and add channels of zeros, as a shortcut without weights."""
        step, before, after = self.pick(2, 1, 3), self.pick(1, 0, 2), self.pick(1, 0, 2)
        sides, name = list(source.sides), source.name
        for axis in range(self.dimensions):
            if step > 1 or self.chance(50):
                first = self.pick(0, 0, 0, 1) if sides[axis] > 1 else 0
                inputs = [self.integers(v) for v in (first, 2**63 - 1, axis + 2, step)]
                (name,) = self.op("Slice", [name, *inputs])
                sides[axis] = -(-(sides[axis] - first) // step)
        none = [0] * self.dimensions
        inputs = [self.integers(0, before, *none, 0, after, *none)]
        if self.chance(50):
            inputs.append(self.constant(np.asarray(self.pick(0.0, 0.0, 0.5), np.float32)))
        (name,) = self.op("Pad", [name, *inputs])
        return self.add_picture(name, source.channels + before + after, sides)

    def concat(self, source: _Tensor) -> _Tensor:
        others = [p for p in self.pictures if p.sides == source.sides and p.channels + source.channels <= 12]
        if not others:
            return self.rectifier(source)
        parts = [source, self.pick(*others)]
        axis = -self.dimensions - 1 if self.chance(10) else 1
        (name,) = self.op("Concat", [part.name for part in parts], axis=axis)
        return self.add_picture(name, sum(part.channels for part in parts), source.sides)

    # several layers

    def shortcut(self, source: _Tensor) -> _Tensor:
        """A residual block: y = f(x) + x, or + g(x)."""
        out = source.channels if self.chance(70) else self.pick(1, 2, 4)
        branch = self.maybe_after(self.conv(source, keep=True))
        branch = self.maybe_after(self.conv(branch, out=out, keep=True), act=False)
        other = source
        if out != source.channels:
            other = self.maybe_after(self.conv(source, out=out, keep=True), act=False)
        elif self.chance(15):
            other = branch  # x + x
        names = [branch.name, other.name]
        if self.chance(30):
            names.reverse()
        total = self.add_picture(self.op("Add", names)[0], out, source.sides)
        return self.rectifier(total) if self.chance(50) else total

    def maybe_after(self, source: _Tensor, *, act: bool = True) -> _Tensor:
        """What usually follows a convolution."""
        if self.chance(60):
            source = self.batch_norm(source) if self.chance(70) else self.affine_kept(source)
        return self.rectifier(source) if act and self.chance(60) else source

    def affine_kept(self, source: _Tensor) -> _Tensor:
        return self.affine(source) if source.channels > 1 else self.batch_norm(source)

    def branches(self, source: _Tensor) -> _Tensor:
        """Equal branches as in ResNeXt's forms: one convolution each or two, from all channels or a part, joined."""
        count, width = self.pick(2, 3), self.pick(1, 2)
        starts = [source] * count
        if source.channels % count == 0 and self.chance(50):
            starts = self.split(source, count)
        kernel, has_bias = self.pick(1, 3), self.chance(40)
        middle = self.pick("Relu", "BatchNormalization", "none", "Clip")
        bound = self.constant(np.asarray(0.0, np.float32))
        ends = []
        for start in starts:
            branch = self.same_conv(start, width, kernel, bias=has_bias)
            if middle == "BatchNormalization":
                branch = self.batch_norm(branch)
            elif middle == "Clip":
                branch = self.like("Clip", branch, [bound])
            elif middle == "Relu":
                branch = self.like("Relu", branch)
            ends.append(branch)
        out = self.pick(2, 3)
        if self.chance(50):  # form a: a sum of convolutions
            ends = [self.same_conv(end, out, 1, bias=has_bias) for end in ends]
            if self.chance(30):
                ends[self.pick(0, 1)] = self.like("Relu", ends[0])
            if source.channels == out and self.chance(50):
                ends.insert(self.pick(0, 1, len(ends)), source)
            total = ends[0]
            for end in ends[1:]:
                total = self.add_picture(self.op("Add", [total.name, end.name])[0], out, source.sides)
            return total
        (name,) = self.op("Concat", [end.name for end in ends], axis=1)
        joined = self.add_picture(name, sum(end.channels for end in ends), source.sides)
        return self.same_conv(joined, out, 1, bias=has_bias) if self.chance(50) else joined

    def same_conv(self, source: _Tensor, out: int, kernel: int, *, bias: bool) -> _Tensor:
        shape = (out, source.channels, *[kernel] * self.dimensions)
        weight = self.weight(shape, prod(shape[1:]))
        pads = [kernel // 2] * 2 * self.dimensions
        (name,) = self.op("Conv", [source.name, weight, *([self.bias(out)] if bias else [])], pads=pads)
        return self.add_picture(name, out, source.sides)

    def split(self, source: _Tensor, count: int) -> list[_Tensor]:
        size = source.channels // count
        if self.chance(40):
            names = []
            for index in range(count):
                inputs = [self.integers(v) for v in (index * size, (index + 1) * size, 1)]
                names += self.op("Slice", [source.name, *inputs])
        elif self.opset < 13:
            names = self.op("Split", [source.name], count, axis=1, split=[size] * count)
        elif self.opset >= 18 and self.chance(50):
            names = self.op("Split", [source.name], count, axis=1, num_outputs=count)
        else:
            names = self.op("Split", [source.name, self.integers(*[size] * count)], count, axis=1)
        return [self.add_picture(name, size, source.sides) for name in names]

    def excitation(self, source: _Tensor) -> _Tensor:
        """Squeeze and excitation: channels are multiplied by what is computed from their means."""
        (pooled,) = self.op("GlobalAveragePool", [source.name])
        scale = self.add_picture(pooled, source.channels, [1] * self.dimensions)
        scale = self.like("Sigmoid", self.same_conv(scale, source.channels, 1, bias=True))
        (name,) = self.op("Mul", [source.name, scale.name])
        return self.add_picture(name, source.channels, source.sides)

    def grow(self) -> None:
        """Add a part to one of the last pictures, mostly to the last."""
        source = self.pictures[-1] if self.chance(85) else self.pick(*self.pictures[-6:])
        kind = self.pick(
            *["conv"] * 5, *["norm"] * 3, "affine", "affine", "act", "act", "nothing", "pad", "padded conv", "pool",
            "padded pool", "slice", "concat", "shortcut", "shortcut", "branches", "transpose", "excitation", "twice",
            "option a",
        )  # fmt: skip
        if kind == "conv":
            self.maybe_after(self.conv(source))
        elif kind == "padded conv":
            self.conv(self.pad(source))
        elif kind == "padded pool":
            self.padded_pool(source if self.chance(20) else self.rectifier(source))
        elif kind == "twice":  # the same layer on the same picture
            inputs = self.conv(source)
            node = self.nodes[-1]
            again = self.op("Conv", list(node.input))
            self.nodes[-1].attribute.extend(node.attribute)
            self.op("Add", [inputs.name, again[0]])
            self.add_picture(self.nodes[-1].output[0], inputs.channels, inputs.sides)
        else:
            {
                "norm": self.batch_norm, "affine": self.affine, "act": self.rectifier, "nothing": self.nothing,
                "pad": self.pad, "pool": self.pool, "slice": self.slice, "concat": self.concat,
                "shortcut": self.shortcut, "branches": self.branches, "transpose": self.conv_transpose,
                "excitation": self.excitation, "option a": self.option_a,
            }[kind](source)  # fmt: skip

    # the end

    def classifier(self, source: _Tensor) -> tuple[str, list[int]]:
        """Pool, flatten and multiply; return the result's name and its sizes behind the batch."""
        axes = [axis - self.dimensions - 2 if self.chance(10) else axis for axis in range(2, 2 + self.dimensions)]
        pooling = self.pick("GlobalAveragePool", "ReduceMean", "ReduceMean flat", "GlobalMaxPool", "none")
        features, name = source.channels, source.name
        if pooling.startswith("ReduceMean"):
            keep = {"keepdims": 0} if pooling.endswith("flat") else self.pick({}, {"keepdims": 1})
            if self.opset < 18:
                (name,) = self.op("ReduceMean", [name], axes=axes, **keep)
            else:
                (name,) = self.op("ReduceMean", [name, self.integers(*axes)], **keep)
        elif pooling == "none":
            features *= prod(source.sides)
        else:
            (name,) = self.op(pooling, [name])
        if not pooling.endswith("flat"):
            name = self.flat(name, features, pooled=pooling != "none")
        if self.chance(15):
            return name, [features]
        return self.dense(name, features)

    def flat(self, name: str, features: int, *, pooled: bool) -> str:
        axes = tuple(range(2, 2 + self.dimensions))
        kind = self.pick("Flatten", "zero", "minus one", "fixed", "computed", *(["Squeeze"] if pooled else []))
        if kind == "Flatten":
            return self.op("Flatten", [name], axis=self.pick(None, 1, -self.dimensions - 1))[0]
        if kind == "Squeeze":
            if self.opset < 13:
                return self.op("Squeeze", [name], axes=axes)[0]
            return self.op("Squeeze", [name, self.integers(*axes)])[0]
        if kind == "zero":
            target = self.integers(0, -1)
        elif kind == "minus one":
            target = self.integers(-1, features)
        elif kind == "fixed":
            target = self.integers(self.batch, features)
        else:
            (shape,) = self.op("Shape", [name])
            (batch,) = self.op("Gather", [shape, self.constant(np.asarray(0))], axis=0)
            if self.opset < 13:
                (batch,) = self.op("Unsqueeze", [batch], axes=[0])
            else:
                (batch,) = self.op("Unsqueeze", [batch, self.integers(0)])
            (target,) = self.op("Concat", [batch, self.integers(self.pick(-1, features))], axis=0)
        return self.op("Reshape", [name, target])[0]

    def dense(self, name: str, features: int) -> tuple[str, list[int]]:
        out = self.pick(3, 1)
        matrix = self.random.standard_normal((features, out)) / np.sqrt(features)
        bias = self.constant(self.random.normal(0, 0.3, self.pick((out,), (out,), (1, out), (1,))))
        if self.chance(50):
            (name,) = self.op("MatMul", [name, self.constant(matrix)])
            if self.chance(80):
                (name,) = self.op("Add", [name, bias] if self.chance(60) else [bias, name])
        else:
            turned = self.pick(1, 0)
            inputs = [name, self.constant(matrix.T if turned else matrix), *([bias] if self.chance(80) else [])]
            scales = {"alpha": self.pick(0.5, 2.0), "beta": self.pick(0.5, 1.5)} if self.chance(15) else {}
            (name,) = self.op("Gemm", inputs, transB=turned or None, **scales)
        after = self.pick("none", "none", "BatchNormalization", "Mul", "Relu")
        if after == "BatchNormalization":
            name = self.batch_norm(_Tensor(name, out, ())).name
        elif after == "Mul":
            (name,) = self.op("Mul", [name, self.constant(self.random.uniform(0.5, 1.5, self.pick((out,), (1, out))))])
        elif after == "Relu":
            (name,) = self.op("Relu", [name])
        return name, [out]


@st.composite
def cases(draw: Callable[[st.SearchStrategy[Any]], Any], *, parts: int = 7) -> Case:
    """Draw a graph of up to ``parts`` parts besides its end, and what to feed it."""
    build = _Builder(
        draw=draw,
        opset=draw(st.sampled_from(OPSETS)),
        dimensions=draw(st.sampled_from([2] * 8 + [1, 3])),
        random=np.random.default_rng(draw(st.integers(0, 2**16))),
    )
    sides = build.each(7, 8, 5, 4)
    x = build.add_picture("x", build.pick(3, 1, 2, 4), sides)
    for _ in range(draw(st.integers(1, parts))):
        build.grow()
    last = build.pictures[-1]
    outputs = [(last.name, [last.channels, *last.sides])]
    if build.chance(75):
        outputs = [build.classifier(last)]
    produced = {name for node in build.nodes for name in node.output}
    if last.name not in produced:
        build.rectifier(last)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        more = build.pick(*build.pictures)
        if more.name in produced and more.name not in [name for name, _ in outputs]:
            outputs.append((more.name, [more.channels, *more.sides]))
    if build.chance(10):
        outputs.reverse()
    return _case(build, x, outputs)


def _case(build: _Builder, x: _Tensor, outputs: Sequence[tuple[str, Sequence[int]]]) -> Case:
    fixed = build.chance(40)
    open_sides = not fixed and build.chance(10)
    known = build.chance(70)
    batch = build.batch if fixed else "n"
    picture = [batch, x.channels, *([f"side{i}" for i in range(build.dimensions)] if open_sides else x.sides)]
    free = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, build.initializers[name].shape) for name in build.free
    ]
    graph = helper.make_graph(
        build.nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, picture), *free],
        [
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, [batch, *sizes] if known and not open_sides else [None] * (1 + len(sizes))
            )
            for name, sizes in outputs
        ],
        [numpy_helper.from_array(array, name) for name, array in build.initializers.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", build.opset)], ir_version=_IR_VERSION)
    feeds = {"x": build.random.standard_normal((build.batch, x.channels, *x.sides)).astype(np.float32)}
    feeds |= {name: np.asarray(build.initializers[name] * np.float32(1.25)) for name in build.free}
    return Case(proto, feeds)
