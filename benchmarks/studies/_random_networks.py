"""Residual networks at random, as ONNX files of many exporters have them: what a quantizer has to take.

A network follows from its seed. It is built node by node, and every node is run on some pictures as soon as it is
there: so each tensor's sizes are known, BatchNormalizations have the statistics of what they read, and weights without
one behind them are scaled until their results have a standard deviation near one. What comes out is a network whose
numbers are sane and whose outputs differ between pictures, however odd its graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from rexport.preprocessing import Preprocessing, Takes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["RandomNetwork", "random_network", "run"]

_OLD_OPSETS, _OPSETS = range(9, 13), range(13, 24)
# the oldest version of the file format that has an opset
_IR_VERSIONS = {9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10}
_NEWEST_IR = 10
_BUILT_ON = 12  # pictures
_CLASSES = 10
_MAX_SIDE = 40
_ACTIVATIONS = ("Relu",) * 8 + ("Clip", "LeakyRelu", "PRelu", "HardSwish", "SiLU", "Mixed", "Mixed")
_MIXED = ("Relu", "Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "SiLU", "Sigmoid", "Elu", "Tanh")


@dataclass(frozen=True, kw_only=True)
class RandomNetwork:
    """A network and how it is fed.

    Attributes:
        seed: What it follows from.
        proto: The file.
        preprocessing: From pictures to its input.
        is_ready: Whether the data for calibration are its inputs, as arrays of float32, or else pictures.
        features: What it is made of, in words.
    """

    seed: int
    proto: onnx.ModelProto
    preprocessing: Preprocessing
    is_ready: bool
    features: tuple[str, ...]

    def pictures(self, count: int, *, draw: int) -> np.ndarray:
        """Return pictures, uint8 of shape ``(count, S, S, 3)``; others for each ``draw``."""
        return _pictures(np.random.default_rng([self.seed, draw]), count, self.preprocessing.side)

    def inputs(self, pictures: np.ndarray) -> np.ndarray:
        """Return what the network takes of pictures: float32 of shape ``(N, 3, S, S)``, or the pictures themselves."""
        inputs: np.ndarray = self.preprocessing.to_input(pictures)
        return inputs

    def data(self, pictures: np.ndarray) -> np.ndarray:
        """Return what a file for calibration holds of pictures."""
        if self.is_ready:
            return self.inputs(pictures)
        return pictures


def random_network(seed: int) -> RandomNetwork:
    """Return the network of a seed.

    Its input is called ``x``, if names do not collide; its first output has the scores of ten classes.
    """
    return _Builder.start(seed).build()


def _pictures(random: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Draw smooth pictures that differ in colour, contrast and pattern."""
    y, x = np.mgrid[:side, :side] / side
    waves = 4
    frequency = random.normal(0, 2.5, (2, count, 1, waves, 1, 1))
    angle = 2 * np.pi * (frequency[0] * x + frequency[1] * y) + random.uniform(0, 2 * np.pi, (count, 3, waves, 1, 1))
    amplitude = random.uniform(0, 1, (count, 3, waves, 1, 1)) * random.uniform(5, 80, (count, 1, 1, 1, 1))
    offset = random.uniform(40, 215, (count, 3, 1, 1))
    values = offset + (amplitude * np.sin(angle)).sum(axis=2) + random.normal(0, 6, (count, 3, side, side))
    pictures: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pictures.transpose(0, 2, 3, 1)


@dataclass
class _Builder:
    """A graph that grows, and the values of its tensors on some pictures."""

    seed: int
    random: np.random.Generator
    opset: int
    activation: str
    naming: str
    norm: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, np.ndarray] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    weights: list[str] = field(default_factory=list)
    features: dict[str, None] = field(default_factory=dict)  # a set that keeps the order
    extra_outputs: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)  # shapes (-1, features) of Reshapes

    @classmethod
    def start(cls, seed: int) -> _Builder:
        random = np.random.default_rng(seed)
        old = random.random() < 0.2
        build = cls(
            seed=seed,
            random=random,
            opset=int(random.choice(_OLD_OPSETS if old else _OPSETS)),
            activation=str(random.choice(_ACTIVATIONS)),
            naming=str(random.choice(["plain"] * 6 + ["unnamed", "same", "crossed", "derived"])),
            norm=str(random.choice(["BatchNormalization"] * 7 + ["bias", "bias", "mixed"])),
        )
        for feature in (f"opset {build.opset}", build.activation, f"{build.naming} names", f"norm {build.norm}"):
            build.note(feature)
        return build

    # choices

    def chance(self, percent: float) -> bool:
        return bool(self.random.random() * 100 < percent)

    def pick(self, *choices: Any) -> Any:
        return choices[int(self.random.integers(len(choices)))]

    def note(self, feature: str) -> None:
        self.features[feature] = None

    # nodes and constants

    def new_name(self) -> str:
        """Return a name that no tensor has; with derived names, one that a quantizer might give."""
        number = len(self.nodes) + len(self.initializers)
        if self.naming == "derived" and self.values and self.chance(40):
            suffix = self.pick("_quantized", "_scale", "_zero_point", "_dequantized", ".weight_quantized", ".bias")
            name = f"{self.pick(*self.values)}{suffix}"
            if name not in self.values:
                return name
        return f"t{number}"

    def node_name(self) -> str:
        number = len(self.nodes)
        if self.naming == "unnamed" or self.chance({"crossed": 30}.get(self.naming, 2)):
            return ""
        if self.naming == "same" and self.chance(40):
            return "node"
        if self.naming == "crossed" and self.chance(40):
            return str(self.pick(*self.values))
        return f"n{number}"

    def op(self, op_type: str, *inputs: str, count: int = 1, **attributes: Any) -> list[str]:
        """Add a node and run it on what its inputs are."""
        present = {key: value for key, value in attributes.items() if value is not None}
        first = self.new_name()
        outputs = [first, *(f"{first}_{index}" for index in range(1, count))]
        node = helper.make_node(op_type, list(inputs), outputs, name=self.node_name(), **present)
        arrays = {name: self.values[name] for name in dict.fromkeys(inputs) if name}
        graph = helper.make_graph(
            [node],
            "one",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                for name, array in arrays.items()
            ],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
        )
        results = run(self.model(graph, _NEWEST_IR), arrays)
        self.values |= dict(zip(outputs, results, strict=True))
        self.nodes.append(node)
        return outputs

    def only(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        (output,) = self.op(op_type, *inputs, **attributes)
        return output

    def model(self, graph: onnx.GraphProto, ir_version: int) -> onnx.ModelProto:
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=ir_version, producer_name="random"
        )

    def constant(self, array: Any, *, plain: bool = False) -> str:
        """Add a constant: mostly an initializer, now and then a node, or by another name."""
        array = np.asarray(array)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        kind = "initializer"
        if not plain and self.chance(8):
            kind = self.pick("node", "renamed")
        if kind == "node":
            return self.only("Constant", value=numpy_helper.from_array(array))
        number = len(self.nodes) + len(self.initializers)
        name = f"w{number}"
        self.initializers[name] = self.values[name] = array
        if kind == "renamed":
            return self.only("Identity", name)
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def channels(self, tensor: str) -> int:
        return int(self.values[tensor].shape[1])

    def sides(self, tensor: str) -> tuple[int, int]:
        height, width = self.values[tensor].shape[2:]
        return int(height), int(width)

    def side(self, tensor: str) -> int:
        return min(self.sides(tensor))

    def with_axes(self, op_type: str, tensor: str, axes: Sequence[int], *, since: int, **attributes: Any) -> str:
        """Add a node whose axes have been an input since an opset."""
        if self.opset < since:
            return self.only(op_type, tensor, axes=list(axes), **attributes)
        return self.only(op_type, tensor, self.integers(*axes), **attributes)

    # the input

    def normalised(self, name: str, kind: str) -> str:
        """Add what turns pixels from 0 to 255 into numbers near one."""
        mean, std = np.array([123.7, 116.3, 103.5]), np.array([58.4, 57.1, 57.4])
        shape = (1, 3, 1, 1) if self.chance(50) else (3, 1, 1)
        if kind == "Mul Add":
            name = self.only("Mul", name, self.constant((1 / std).reshape(shape)))
            return self.only("Add", name, self.constant((-mean / std).reshape(shape)))
        if kind == "Sub Div":
            name = self.only("Sub", name, self.constant(mean.reshape(shape)))
            return self.only("Div", name, self.constant(std.reshape(shape)))
        if kind == "Div Sub Div":
            name = self.only("Div", name, self.constant(np.float32(255)))
            name = self.only("Sub", name, self.constant((mean / 255).reshape(shape)))
            return self.only("Div", name, self.constant((std / 255).reshape(shape)))
        if kind == "Mul Sub":  # to -1 … 1
            return self.only("Sub", self.only("Mul", name, self.constant(np.float32(2 / 255))), self.constant([1.0]))
        parameters = (np.ones(3), np.zeros(3), mean, std**2)
        return self.only("BatchNormalization", name, *map(self.constant, parameters))

    # layers with weights

    def weight(self, shape: tuple[int, ...], *, transposed: bool = False) -> str:
        """Return a weight: a new one, one that others read too, or one that is computed."""
        same = [name for name in self.weights if self.values[name].shape == shape]
        if same and self.chance(8):
            self.note("shared weight")
            return str(self.pick(*same))
        turned = (shape[1], shape[0], *shape[2:])
        mirrored = [name for name in self.weights if self.values[name].shape == turned]
        if mirrored and self.chance(8):
            self.note("transposed weight")
            return self.only("Transpose", self.pick(*mirrored), perm=[1, 0, *range(2, len(shape))])
        fan_in = int(np.prod(shape)) // shape[int(transposed)]
        array = self.random.standard_normal(shape) * np.sqrt(2 / fan_in)
        if self.chance(10):
            self.note("channels of other scale")
            scale = 10 ** self.random.uniform(-3, 1, shape[0])
            array *= scale.reshape(-1, *[1] * (len(shape) - 1))
        if self.chance(7):
            self.note("heavy tails")
            array *= np.abs(self.random.standard_t(3, shape))
        if self.chance(4) and len(shape) == 4 and not transposed:
            self.note("weight normalisation")
            direction = self.constant(array)
            axes = [1, 2, 3]
            length = self.with_axes("ReduceL2", direction, axes, since=18, keepdims=1)
            gain = self.constant(np.sqrt(2) * self.random.uniform(0.5, 1.5, (shape[0], 1, 1, 1)))
            return self.only("Mul", gain, self.only("Div", direction, length))
        name = self.constant(array)
        if name in self.initializers:
            self.weights.append(name)
        return name

    def scaled(self, weight: str, result: str) -> bool:
        """Scale a weight that nothing else has read, so that what it gave has a standard deviation of one."""
        readers = sum(weight in node.input for node in self.nodes)
        std = float(self.values[result].std())
        if weight not in self.initializers or readers > 1 or std < 1e-6:
            return False
        self.initializers[weight] = self.values[weight] = (self.values[weight] / np.float32(std)).astype(np.float32)
        return True

    def conv(
        self, tensor: str, out: int, *, kernel: int | None = None, stride: int = 1, group: int = 1, norm: bool = True
    ) -> str:
        """Add a convolution that keeps the sides (with a stride: all but), and what normalises its result."""
        kernel = kernel or self.pick(3, 3, 3, 1, 5)
        height, width = kernel, kernel
        if kernel == 3 and group == 1 and self.chance(5):
            height, width = self.pick((3, 1), (1, 3))
        dilation = 2 if kernel == 3 and stride == 1 and self.chance(6) and self.side(tensor) > 4 else 1
        pads = [dilation * (height // 2), dilation * (width // 2)] * 2
        attributes: dict[str, Any] = {"pads": pads}
        if kernel > 1 and stride == 2 and self.chance(25):
            self.note("asymmetric pads")
            attributes = {"pads": [0, 0, height - 1, width - 1]}
        elif kernel > 1 and dilation == 1 and self.chance(8):
            self.note("auto_pad")
            attributes = {"auto_pad": self.pick("SAME_UPPER", "SAME_LOWER")}
        elif kernel > 1 and dilation == 1 and self.chance(6) and height == width:
            self.note("Pad before a convolution")
            tensor = self.pad(tensor, kernel // 2, self.pick("constant", "constant", "reflect", "edge"))
            attributes = {}
        if stride > 1 or self.chance(50):
            attributes["strides"] = [stride, stride]
        if dilation > 1 or self.chance(50):
            attributes["dilations"] = [dilation, dilation]
        if group > 1 or self.chance(50):
            attributes["group"] = group
        if self.chance(60):
            attributes["kernel_shape"] = [height, width]
        weight = self.weight((out, self.channels(tensor) // group, height, width))
        return self.weighted("Conv", tensor, weight, out, attributes, norm=norm)

    def weighted(
        self, op_type: str, tensor: str, weight: str, out: int, attributes: dict[str, Any], *, norm: bool
    ) -> str:
        if not norm:
            return self.only(op_type, tensor, weight, **attributes)
        kind = self.norm
        if kind == "mixed":
            kind = self.pick("BatchNormalization", "bias", "affine")
        if kind == "BatchNormalization":
            inputs = [self.constant(self.random.normal(0, 0.3, out))] if self.chance(15) else []
            dead = self.kill_channels(weight, out)
            return self.batch_norm(self.only(op_type, tensor, weight, *inputs, **attributes), dead)
        result = self.only(op_type, tensor, weight, **attributes)
        if kind == "affine":
            self.note("Mul and Add behind a convolution")
            std = self.values[result].std(axis=(0, 2, 3)).reshape(1, -1, 1, 1) + 1e-2
            result = self.only("Mul", result, self.constant(_short(self.random.uniform(0.5, 1.5, std.shape) / std)))
            return self.only("Add", result, self.constant(self.random.normal(0, 0.4, std.shape)))
        old = self.nodes.pop()
        self.scaled(weight, result)
        dead = self.kill_channels(weight, out)
        bias = self.random.normal(0, 0.3, out)
        bias[dead] = -self.random.choice([0.01, 0.3, 3.0, 40.0])
        return self.only(old.op_type, tensor, weight, self.constant(bias), **attributes)

    def kill_channels(self, weight: str, out: int) -> np.ndarray:
        """Set the weights of some channels to zero; return which."""
        dead = np.zeros(out, bool)
        readers = sum(weight in node.input for node in self.nodes)
        if weight not in self.initializers or readers or self.values[weight].shape[0] != out or not self.chance(8):
            return dead
        self.note("dead channels")
        dead = self.random.random(out) < 0.25
        array = self.values[weight].copy()
        array[dead] = 0
        self.initializers[weight] = self.values[weight] = array
        return dead

    def batch_norm(self, tensor: str, dead: np.ndarray | None = None) -> str:
        """Add a BatchNormalization with the statistics of what it reads."""
        array, count = self.values[tensor], self.channels(tensor)
        mean, variance = array.mean(axis=(0, 2, 3)), array.var(axis=(0, 2, 3))
        gamma, beta = self.random.uniform(0.5, 1.5, count), self.random.normal(0.1, 0.5, count)
        if self.chance(10):
            gamma *= self.random.choice([-1, 1], count)
        if self.chance(5):
            self.note("gammas near zero")
            gamma[self.random.random(count) < 0.3] = self.pick(0.0, 1e-8, 1e-4)
        if self.chance(5):
            self.note("one loud channel")
            gamma[int(self.random.integers(count))] *= 12
        if dead is not None:
            beta[dead] = -self.random.choice([0.01, 0.3, 3.0])
        # a channel that is constant on these pictures is so on others, or its statistics would say otherwise
        parameters = [_short(gamma), _short(beta), _short(mean), _short(np.maximum(variance, 1e-9))]
        epsilon = self.pick(1e-5, 1e-5, 1e-3, None)
        names = [self.constant(parameter) for parameter in parameters]
        if self.chance(4):
            self.note("computed parameters of a BatchNormalization")
            index = self.pick(0, 1, 3)
            names[index] = self.only("Mul", self.constant(parameters[index] * 2), self.constant(np.float32(0.5)))
        return self.only("BatchNormalization", tensor, *names, epsilon=epsilon)

    def transposed(self, tensor: str, out: int) -> str:
        self.note("ConvTranspose")
        group = self.pick(1, 1, 2) if self.channels(tensor) % 2 == 0 and out % 2 == 0 else 1
        kernel, pads, output_padding = self.pick((2, 0, None), (4, 1, None), (3, 1, [1, 1]))
        weight = self.weight((self.channels(tensor), out // group, kernel, kernel), transposed=True)
        attributes = {"strides": [2, 2], "pads": [pads] * 4, "group": group}
        if output_padding:
            attributes["output_padding"] = output_padding
        return self.weighted("ConvTranspose", tensor, weight, out, attributes, norm=True)

    # layers without

    def act(self, tensor: str, kind: str | None = None) -> str:
        kind = kind or self.activation
        if kind == "Mixed":
            kind = self.pick(*_MIXED)
            self.note(kind)
        if kind == "Clip":
            if self.opset < 11:
                return self.only("Clip", tensor, min=0.0, max=6.0)
            low, high = self.pick((0.0, 6.0), (0.0, 6.0), (0.0, None), (-1.0, 3.0))
            bounds = [self.constant(np.float32(value)) for value in (low, high) if value is not None]
            return self.only("Clip", tensor, *bounds)
        if kind == "LeakyRelu":
            return self.only("LeakyRelu", tensor, alpha=self.pick(0.01, 0.1, 0.2))
        if kind == "PRelu":
            shape = self.pick((self.channels(tensor), 1, 1), (1,), (1, self.channels(tensor), 1, 1))
            return self.only("PRelu", tensor, self.constant(self.random.uniform(0.05, 0.5, shape)))
        if kind == "HardSwish":
            if self.opset >= 14 and self.chance(70):
                return self.only("HardSwish", tensor)
            return self.only("Mul", tensor, self.only("HardSigmoid", tensor, alpha=1 / 6, beta=0.5))
        if kind == "SiLU":
            gate = self.only("Sigmoid", tensor)
            return self.only("Mul", *self.pick((tensor, gate), (gate, tensor)))
        return self.only(kind, tensor)

    def pad(self, tensor: str, width: int, mode: str) -> str:
        pads = [0, 0, width, width] * 2
        if self.opset < 11:
            return self.only("Pad", tensor, pads=pads, mode=mode)
        value = [self.constant(np.float32(0))] if mode == "constant" and self.chance(50) else []
        return self.only("Pad", tensor, self.integers(*pads), *value, mode=mode)

    def pool(self, tensor: str) -> str:
        """Halve the sides, in one of the many ways."""
        kind = self.pick("MaxPool", "MaxPool", "AveragePool", "AveragePool", "slice", "MaxPool stride 1")
        self.note(kind)
        if kind == "slice":
            return self.slice(tensor, (0, 0), (2**31 - 1, 2**31 - 1), (2, 3), (2, 2))
        op_type, stride = kind.split()[0], {"MaxPool stride 1": 1}.get(kind, 2)
        kernel = self.pick(2, 3, 3) if stride == 2 else 3
        pads = {2: 0, 3: 1}[kernel]
        attributes: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pads] * 4}
        if self.chance(15):
            attributes["pads"] = [0, 0, pads, pads]
        if self.chance(10):
            del attributes["pads"]
            attributes["auto_pad"] = self.pick("SAME_UPPER", "SAME_LOWER", "VALID")
        if op_type == "AveragePool":
            attributes["count_include_pad"] = self.pick(0, 1)
        if self.opset >= 10 and self.chance(35):
            self.note(f"{op_type} ceil_mode")
            attributes["ceil_mode"] = 1
        dilated = self.opset >= {"MaxPool": 10, "AveragePool": 19}[op_type]
        if dilated and self.chance(10) and self.side(tensor) >= 8 and "auto_pad" not in attributes:
            self.note(f"{op_type} dilations")
            attributes["dilations"] = [2, 2]
        return self.only(op_type, tensor, **attributes)

    def slice(
        self, tensor: str, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int]
    ) -> str:
        if self.opset >= 10:
            return self.only("Slice", tensor, *(self.integers(*values) for values in (starts, ends, axes, steps)))
        if set(steps) == {1}:
            return self.only("Slice", tensor, starts=list(starts), ends=list(ends), axes=list(axes))
        return self.only("MaxPool", tensor, kernel_shape=[1, 1], strides=list(steps))

    def split(self, tensor: str, count: int) -> list[str]:
        """Split the channels into equal parts."""
        size = self.channels(tensor) // count
        if self.chance(30):
            return [self.slice(tensor, [size * i], [size * (i + 1)], [1], [1]) for i in range(count)]
        if self.opset < 13:
            return self.op("Split", tensor, count=count, axis=1, split=[size] * count)
        if self.opset >= 18 and self.chance(50):
            return self.op("Split", tensor, count=count, axis=1, num_outputs=count)
        return self.op("Split", tensor, self.integers(*[size] * count), count=count, axis=1)

    def double(self, tensor: str) -> str:
        """Double the sides by interpolation."""
        mode = self.pick("nearest", "nearest", "linear")
        self.note(f"Resize {mode}")
        scales = self.constant(np.array([1, 1, 2, 2], np.float32), plain=True)
        if self.opset < 11:
            return self.only("Upsample" if self.opset < 10 else "Resize", tensor, scales, mode=mode)
        third, rounding = {"nearest": ((), "floor"), "linear": (("align_corners",), None)}[mode]
        coordinates = self.pick("half_pixel", "asymmetric", *third)
        roi = "" if self.opset >= 13 else self.constant(np.zeros(0, np.float32), plain=True)
        return self.only(
            "Resize", tensor, roi, scales, mode=mode, coordinate_transformation_mode=coordinates, nearest_mode=rounding
        )

    # blocks

    def shortcut(self, tensor: str, like: str) -> str:
        """Return a tensor in the sizes of another: itself, or projected."""
        if self.values[tensor].shape == self.values[like].shape:
            return tensor
        out, stride = self.channels(like), -(-self.sides(tensor)[0] // self.sides(like)[0])
        kind = self.pick("conv", "conv", "conv", "pool", "zeros")
        if kind == "pool" and stride == 2 and all(side % 2 == 0 for side in self.sides(tensor)):
            self.note("pooled shortcut")
            pooled = self.only("AveragePool", tensor, kernel_shape=[2, 2], strides=[2, 2])
            return self.conv_plain(pooled, out, 1)
        added = out - self.channels(tensor)
        if kind == "zeros" and added >= 0 and (self.opset >= 10 or stride == 1):
            self.note("shortcut of zeros")
            if stride > 1:
                tensor = self.slice(tensor, (0, 0), (2**31 - 1, 2**31 - 1), (2, 3), (stride, stride))
            if not added:
                return tensor
            pads = [0, added // 2, 0, 0, 0, added - added // 2, 0, 0]
            if self.opset < 11:
                return self.only("Pad", tensor, pads=pads)
            return self.only("Pad", tensor, self.integers(*pads))
        return self.conv_plain(tensor, out, stride)

    def conv_plain(self, tensor: str, out: int, stride: int) -> str:
        """Add a 1×1 convolution without padding, whose result's sides are those divided by the stride, rounded up."""
        weight = self.weight((out, self.channels(tensor), 1, 1))
        return self.weighted("Conv", tensor, weight, out, {"strides": [stride, stride]}, norm=True)

    def added(self, branch: str, identity: str) -> str:
        return self.only("Add", *self.pick((branch, identity), (identity, branch)))

    def post_activation(self, tensor: str, out: int, stride: int) -> str:
        branch = self.act(self.conv(tensor, out, kernel=3, stride=stride))
        branch = self.conv(branch, out, kernel=3)
        return self.act(self.added(branch, self.shortcut(tensor, branch)))

    def bottleneck(self, tensor: str, out: int, stride: int) -> str:
        width = max(4, out // 2)
        group = self.pick(1, 1, 2, 4)
        branch = self.act(self.conv(tensor, width, kernel=1))
        branch = self.act(self.conv(branch, width, kernel=3, stride=stride, group=group))
        branch = self.conv(branch, out, kernel=1)
        if self.chance(20):
            branch = self.excited(branch)
        return self.act(self.added(branch, self.shortcut(tensor, branch)))

    def pre_activation(self, tensor: str, out: int, stride: int) -> str:
        self.note("pre-activation")
        start = self.act(self.batch_norm(tensor))
        branch = self.conv(start, out, kernel=3, stride=stride)
        branch = self.conv(self.act(branch), out, kernel=3, norm=False)
        if self.values[branch].std() > 0:
            self.rescale_last(branch)
            branch = self.nodes[-1].output[0]
        if self.values[tensor].shape != self.values[branch].shape:
            tensor = start
        return self.added(branch, self.shortcut(tensor, branch))

    def rescale_last(self, result: str) -> None:
        """Run the last node again, with a weight that gives results of size one."""
        node = self.nodes.pop()
        self.scaled(node.input[1], result)
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        self.op(node.op_type, *node.input, **attributes)

    def inverted(self, tensor: str, out: int, stride: int) -> str:
        self.note("depthwise")
        width = 2 * self.channels(tensor)
        branch = self.act(self.conv(tensor, width, kernel=1))
        branch = self.act(self.conv(branch, width, kernel=self.pick(3, 3, 5), stride=stride, group=width))
        if self.chance(30):
            branch = self.excited(branch)
        branch = self.conv(branch, out, kernel=1)
        if self.values[branch].shape != self.values[tensor].shape:
            return branch
        return self.added(branch, tensor)

    def plain(self, tensor: str, out: int, stride: int) -> str:
        return self.act(self.conv(tensor, out, stride=stride))

    def dense(self, tensor: str, out: int, stride: int) -> str:
        self.note("Concat")
        branch = self.act(self.conv(tensor, out, kernel=3, stride=stride))
        if stride != 1 or self.channels(tensor) > 24:
            return self.act(self.conv(branch, out, kernel=1))
        return self.only("Concat", *self.pick((tensor, branch), (branch, tensor)), axis=1)

    def split_merge(self, tensor: str, out: int, stride: int) -> str:
        tensor = self.plain(tensor, out, stride)
        self.note("Split")
        first, second = self.split(tensor, 2)
        second = self.act(self.conv(second, out // 2, kernel=3))
        joined = self.only("Concat", first, second, axis=1)
        if self.chance(50):
            self.note("channel shuffle")
            height, width = self.sides(joined)
            parts = self.only("Reshape", joined, self.integers(0, 2, out // 2, height, width))
            turned = self.only("Transpose", parts, perm=[0, 2, 1, 3, 4])
            joined = self.only("Reshape", turned, self.integers(0, out, height, width))
        return joined

    def excited(self, tensor: str) -> str:
        """Multiply channels by what follows from their means."""
        self.note("squeeze and excitation")
        count = self.channels(tensor)
        if self.chance(50):
            pooled = self.only("GlobalAveragePool", tensor)
        else:
            pooled = self.with_axes("ReduceMean", tensor, [2, 3], since=18, keepdims=1)
        narrow = max(2, count // 4)
        bias = self.constant(self.random.normal(0, 0.2, narrow))
        hidden = self.only("Relu", self.only("Conv", pooled, self.weight((narrow, count, 1, 1)), bias))
        bias = self.constant(self.random.normal(0, 0.5, count))
        gate = self.only("Conv", hidden, self.weight((count, narrow, 1, 1)), bias)
        gate = self.only(self.pick("Sigmoid", "HardSigmoid"), gate)
        return self.only("Mul", *self.pick((tensor, gate), (gate, tensor)))

    def pyramid(self, tensor: str, out: int, stride: int) -> str:
        """Go down and up again, and add what was there."""
        self.note("pyramid")
        fine = self.plain(tensor, out, stride)
        if self.side(fine) < 4 or any(side % 2 for side in self.sides(fine)):
            return fine
        coarse = self.act(self.conv(fine, out, kernel=3, stride=2))
        up = self.transposed(coarse, out) if self.chance(40) else self.double(coarse)
        if self.values[up].shape != self.values[fine].shape:
            return fine
        if self.chance(30):
            return self.act(self.conv(self.only("Concat", up, fine, axis=1), out, kernel=1))
        return self.added(up, fine)

    def block(self, tensor: str, out: int, stride: int) -> str:
        kinds: tuple[Callable[[str, int, int], str], ...] = (
            *[self.post_activation] * 4, *[self.bottleneck] * 3, *[self.pre_activation] * 3, *[self.inverted] * 2,
            self.plain, self.dense, self.split_merge, self.pyramid,
        )  # fmt: skip
        tensor = self.pick(*kinds)(tensor, out, stride)
        if self.chance(4):
            tensor = self.only("Identity", tensor)
        if self.chance(3):
            tensor = self.only("Mul", tensor, self.constant(np.float32(self.pick(0.5, 2.0, 1.0))))
        return tensor

    # the ends

    def stem(self, tensor: str) -> str:
        out = self.pick(8, 8, 16)
        kind = self.pick("3×3", "3×3", "7×7", "patches")
        if kind == "7×7" and self.side(tensor) >= 24:
            return self.pool(self.act(self.conv(tensor, out, kernel=7, stride=2)))
        if kind == "patches":
            weight = self.weight((out, 3, 2, 2))
            return self.act(self.weighted("Conv", tensor, weight, out, {"strides": [2, 2]}, norm=True))
        return self.act(self.conv(tensor, out, kernel=3, stride=self.pick(1, 2)))

    def head(self, tensor: str) -> str:
        """Add a classifier."""
        if self.chance(10):
            tensor = self.act(self.batch_norm(tensor))
        kind = self.pick("linear", "linear", "linear", "convolution", "flat")
        self.note(f"head {kind}")
        features = self.channels(tensor)
        if kind == "convolution":
            matrix = self.scoring(self.values[tensor].mean(axis=(2, 3)))
            weight = self.constant(matrix.T.reshape(_CLASSES, features, 1, 1))
            scores = self.only("Conv", tensor, weight, self.constant(self.random.normal(0, 0.3, _CLASSES)))
            flat = self.flat(self.pooled(scores), _CLASSES)
        else:
            if kind == "flat" and features * self.side(tensor) ** 2 <= 600:
                features *= int(np.prod(self.sides(tensor)))
                flat = self.flat(tensor, features, squeeze=False)
            else:
                flat = self.flat(self.pooled(tensor), features)
            flat = self.linear(flat)
        if self.chance(15):
            flat = self.only("Softmax", flat, axis=1)
        return flat

    def pooled(self, tensor: str) -> str:
        kind = self.pick("GlobalAveragePool", "GlobalAveragePool", "ReduceMean", "AveragePool", "GlobalMaxPool")
        self.note(kind)
        if kind == "ReduceMean":
            return self.with_axes("ReduceMean", tensor, self.pick([2, 3], [-2, -1]), since=18, keepdims=1)
        if kind == "AveragePool":
            return self.only("AveragePool", tensor, kernel_shape=list(self.sides(tensor)))
        return self.only(kind, tensor)

    def flat(self, tensor: str, features: int, *, squeeze: bool = True) -> str:
        kind = self.pick("Flatten", "Reshape", "Reshape", *(["Squeeze"] if squeeze else []))
        if kind == "Flatten":
            return self.only("Flatten", tensor, axis=1)
        if kind == "Squeeze":
            return self.with_axes("Squeeze", tensor, [2, 3], since=13)
        target = self.constant(np.array(self.pick([0, -1], [-1, features]), np.int64))
        self.targets.append(target)
        return self.only("Reshape", tensor, target)

    def scoring(self, vectors: np.ndarray) -> np.ndarray:
        """Return a matrix (features, classes) whose scores differ between pictures by about one.

        It reads in what the vectors (pictures, features) differ, as trained classifiers do; a random one reads mostly
        what all pictures have in common.
        """
        varied = vectors - vectors.mean(axis=0)
        matrix: np.ndarray = varied.T.astype(np.float64) @ self.random.standard_normal((len(vectors), _CLASSES))
        spread = float((vectors.astype(np.float64) @ matrix).std(axis=0).mean())
        if spread > 1e-6:
            matrix /= spread
        return matrix

    def linear(self, tensor: str) -> str:
        matrix = self.scoring(self.values[tensor])
        results = self.values[tensor].astype(np.float64) @ matrix
        bias = self.constant(_short(self.random.normal(0, 0.3, _CLASSES) - results.mean(axis=0)))
        kind = self.pick("Gemm", "Gemm", "Gemm x·W", "MatMul")
        if kind == "MatMul":
            self.note("MatMul")
            product = self.only("MatMul", tensor, self.constant(matrix))
            return self.only("Add", *self.pick((product, bias), (bias, product)))
        if kind == "Gemm":
            return self.only("Gemm", tensor, self.constant(np.ascontiguousarray(matrix.T)), bias, transB=1)
        return self.only("Gemm", tensor, self.constant(matrix), bias)

    def build(self) -> RandomNetwork:
        side = self.pick(16, 24, 32)
        taking = self.pick(*["normalised"] * 6, *["0 to 255"] * 3, "uint8")
        normalising = self.pick("Mul Add", "Sub Div", "Div Sub Div", "Mul Sub", "BatchNormalization")
        self.note(taking if taking == "normalised" else f"{taking}, {normalising}")
        preprocessing = Preprocessing(size=side)
        if taking == "0 to 255":
            preprocessing = Preprocessing(size=side, mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3)
        elif taking == "uint8":
            preprocessing = Preprocessing(size=side, takes=Takes.PIXELS)
        pictures = _pictures(self.random, _BUILT_ON, side)
        self.values["x"] = preprocessing.to_input(pictures)
        tensor = "x"
        if taking == "uint8":
            is_cast_first = self.chance(50)
            if is_cast_first:
                tensor = self.only("Cast", tensor, to=TensorProto.FLOAT)
            tensor = self.only("Transpose", tensor, perm=[0, 3, 1, 2])
            if not is_cast_first:
                tensor = self.only("Cast", tensor, to=TensorProto.FLOAT)
        if taking != "normalised":
            tensor = self.normalised(tensor, normalising)
        tensor = self.stem(tensor)
        width = self.channels(tensor)
        for stage in range(self.pick(1, 2, 2, 3)):
            for index in range(self.pick(1, 2)):
                stride = 2 if stage and not index and self.side(tensor) >= 4 else 1
                tensor = self.block(tensor, width, stride)
            if self.chance(15) and self.side(tensor) >= 6:
                tensor = self.pool(tensor)
            if self.chance(8):
                self.extra_outputs.append(tensor)
            width = min(32, 2 * width)
        outputs = [self.head(tensor)]
        if self.chance(6):
            outputs.append(self.head(tensor))
        return self.finish(preprocessing, taking, [*outputs, *self.extra_outputs])

    def finish(self, preprocessing: Preprocessing, taking: str, outputs: Sequence[str]) -> RandomNetwork:
        batch: int | str = self.pick("n", "n", "n", 1, 4)
        open_sides = taking == "normalised" and not self.fixes_sides() and self.chance(15)
        if batch == 1 and self.chance(50):
            for name in self.targets:
                if name in self.initializers and self.initializers[name][0] == -1:
                    self.initializers[name] = np.array([1, -1], np.int64)
        if len(outputs) > 1:
            self.note("several outputs")
        sides: list[Any] = ["height", "width"] if open_sides else [preprocessing.size] * 2
        kind, shape = TensorProto.FLOAT, [batch, 3, *sides]
        if taking == "uint8":
            kind, shape = TensorProto.UINT8, [batch, *sides, 3]
        ir_version = int(self.random.integers(_IR_VERSIONS.get(self.opset, _NEWEST_IR), _NEWEST_IR + 1))
        inputs = [helper.make_tensor_value_info("x", kind, shape)]
        if self.chance(8):
            self.note("initializers as inputs")
            inputs += [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                for name, array in self.initializers.items()
            ]
        sizes_known = not open_sides and self.chance(70)
        results = []
        for name in dict.fromkeys(outputs):
            sizes = [size if sizes_known else None for size in self.values[name].shape[1:]]
            results.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *sizes]))
        weights = [numpy_helper.from_array(array, name) for name, array in self.initializers.items()]
        proto = self.model(helper.make_graph(self.nodes, "random", inputs, results, weights), ir_version)
        if open_sides or self.chance(20):
            self.note("stated preprocessing")
            helper.set_model_props(proto, {"rexport.preprocessing": preprocessing.to_json()})
        is_ready = taking == "0 to 255" or (taking == "normalised" and self.chance(50))
        self.note("arrays" if is_ready else "pictures")
        return RandomNetwork(
            seed=self.seed,
            proto=proto,
            preprocessing=preprocessing,
            is_ready=is_ready,
            features=tuple(self.features),
        )

    def fixes_sides(self) -> bool:
        """Say whether the graph holds for one size of pictures alone."""
        return bool({"head flat", "channel shuffle", "AveragePool"} & set(self.features))


def _short(values: np.ndarray) -> np.ndarray:
    """Round to six bits of mantissa, so that the last bits of a machine's sums do not matter."""
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.rint(mantissa * 64) / 64, exponent), np.float32)


def run(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Run a model node by node, whatever the nodes are called: ONNX Runtime refuses two of one name."""
    nameless = onnx.ModelProto()
    nameless.CopyFrom(proto)
    for node in nameless.graph.node:
        node.name = ""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(nameless.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[np.ndarray] = session.run(None, dict(feeds))
    return results
