"""The tensors of a model that can be compared, and small models that compute some of them from others.

In a Q/DQ graph a layer and its rounding are one: a runtime computes Conv, Relu and QuantizeLinear by one integer
kernel, and an output between them would take it apart. So the tensor to compare is the result of DequantizeLinear, and
those in between are its *inner* tensors.

A cut-out model starts at other tensors, whose values are its input, so its layers do not inherit earlier errors. It has
one input and one output, float32 of shape ``(N, numbers)``, in which all tensors lie side by side, because a
:class:`~rexport.runtimes.Runtime` runs such models. A tensor that is stored as integers is rounded to them again, which
changes nothing, so that the layer that reads it has integers to read.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from rexport._errors import ModelFileError
from rexport.cost import tensor_shapes
from rexport.model_inputs import fixed_batch, inputs_of
from rexport.passes.raise_opset import raise_opset

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

__all__ = ["ActivationGraph", "Tensor"]

_OPSET = 13  # Slice, Squeeze and axes as they are now
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_ELEMENTWISE = {"Relu", "Clip", "Add"}
_GIVEN, _RESULT = "rexport_given", "rexport_result"
_NEW = "rexport_computed:"  # before the name of a tensor that is computed and given


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor that can be compared.

    Attributes:
        name: The name in the model.
        reference: The name of its counterpart in the reference.
        node: The name of the node that computes it, or its own where that has none.
        op_type: The operator.
        shape: The shape for one picture, without the batch.
        step: The step of its integers, a number or one for each channel; ``None`` for a float tensor.
        inner: The names of its inner tensors, in topological order.
    """

    name: str
    reference: str
    node: str
    op_type: str
    shape: tuple[int, ...]
    step: np.ndarray | None = field(default=None, compare=False)
    inner: tuple[str, ...] = ()

    @property
    def numbers(self) -> int:
        """The number of its elements for one picture."""
        return math.prod(self.shape)


class ActivationGraph:
    """The part of a model that depends on its pictures.

    Args:
        model: With one input.

    Raises:
        ModelFileError: It has several inputs, or can't be converted to a newer opset.
        VerificationError: The converted model's results differ.
    """

    def __init__(self, model: ir.Model) -> None:
        model = raise_opset(model, _OPSET)
        inputs = inputs_of(model)
        if len(inputs) != 1:
            raise ModelFileError(f"The model has {len(inputs)} inputs, and layers are compared in models of one.")
        self.input = str(inputs[0].name)
        self._proto = onnx.shape_inference.infer_shapes(ir.to_proto(model))
        graph = self._proto.graph
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._producer = {name: node for node in graph.node for name in node.output if name}
        self._order = {name: place for place, name in enumerate(self._producer)}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self.names = {self.input}
        for node in graph.node:
            for name in node.input:
                self._readers[name].append(node)
            if any(name in self.names for name in node.input):
                self.names |= set(node.output) - {""}
        self.outputs = tuple(value.name for value in graph.output)
        self._types = {
            value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)
        }
        shapes = tensor_shapes(model)
        batch = fixed_batch(model) or 1
        # tensors without the batch in front (0: unknown) are sizes, and computed from sizes
        self._shapes = {
            name: shape[1:]
            for name, shape in shapes.items()
            if len(shape) > 1 and shape[0] in (0, batch) and min(shape[1:]) > 0
        }
        self._numbers: dict[str, np.ndarray] = {}

    @property
    def is_quantized(self) -> bool:
        """Whether some of its tensors are stored as integers."""
        return any(node.op_type == "QuantizeLinear" for node in self._proto.graph.node)

    @property
    def is_half(self) -> bool:
        """Whether some of its weights are float16."""
        return any(tensor.data_type == TensorProto.FLOAT16 for tensor in self._stored.values())

    def tensors(self, references: Collection[str]) -> tuple[Tensor, ...]:
        """Return the tensors that have a counterpart among ``references``, in topological order, without the input."""
        tensors = []
        for name in sorted(self.names - {self.input}, key=self._order.__getitem__):
            reference = self._counterpart(name, references)
            if reference is None or not self._is_picture(name) or self._is_inner(name):
                continue
            node = self._producer[name]
            tensors.append(
                Tensor(
                    name=name,
                    reference=reference,
                    node=node.name or name,
                    op_type=node.op_type,
                    shape=self._shapes[name],
                    step=self.step(name),
                    inner=tuple(inner for inner in self._inner_of(name) if inner in references),
                )
            )
        return tuple(tensors)

    def step(self, name: str) -> np.ndarray | None:
        """Return the step of the integers that a tensor is stored as; ``None`` if it is not."""
        node = self._producer.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        return self._constant(node.input[1])

    def layer_of(self, name: str) -> tuple[str, str]:
        """Return the name and the operator of the node that computes a tensor."""
        node = self._producer[name]
        return node.name or name, node.op_type

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor for one picture."""
        return self._shapes[name]

    def before(self, names: Sequence[str], stops: Collection[str]) -> tuple[str, ...]:
        """Return the tensors where a computation starts: some of ``stops``, or the input."""
        return self._walk(names, stops)[0]

    def between(self, name: str, stops: Collection[str]) -> set[str]:
        """Return the tensors that are computed between ``stops`` and a tensor, without both."""
        nodes = self._walk([name], stops)[1]
        return {output for node in nodes for output in node.output if output in self.names} - {name}

    def cut_out(self, names: Sequence[str], stops: Collection[str], *, batch: int) -> tuple[onnx.ModelProto, list[str]]:
        """Return a model that computes tensors from others, and the names of its input tensors, in order.

        Args:
            names: The tensors to compute, side by side in its output.
            stops: The tensors to start at wherever one is read; without them the computation starts at the input.
            batch: The number of pictures.
        """
        starts, computed = self._walk(names, stops)
        nodes = [node for name in starts for node in self._giving(name, starts, batch)]
        renamed = {name: _NEW + name for name in names if name in starts}
        for node in computed:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.output[:] = [renamed.get(name, name) for name in node.output]
            nodes.append(copy)
        nodes += self._collecting([renamed.get(name, name) for name in names])
        read = {name for node in nodes for name in node.input}
        extra = [numpy_helper.from_array(array, name) for name, array in self._numbers.items() if name in read]
        graph = helper.make_graph(
            nodes,
            "cut_out",
            [helper.make_tensor_value_info(_GIVEN, TensorProto.FLOAT, [batch, self._width(starts)])],
            [helper.make_tensor_value_info(_RESULT, TensorProto.FLOAT, [batch, self._width(names)])],
            [tensor for name, tensor in self._stored.items() if name in read] + extra,
        )
        model = helper.make_model(graph, opset_imports=self._proto.opset_import, ir_version=self._proto.ir_version)
        return model, list(starts)

    def _walk(self, names: Sequence[str], stops: Collection[str]) -> tuple[tuple[str, ...], list[onnx.NodeProto]]:
        """Return the tensors where a computation starts, and its nodes, both in topological order."""
        starts: set[str] = set()
        needed: set[str] = set()
        waiting = [*names]
        while waiting:
            node = self._producer[waiting.pop()]
            key = node.output[0]
            if key in needed:
                continue
            needed.add(key)
            for name in node.input:
                if name in self.names and (name in stops or name == self.input):
                    starts.add(name)
                elif name in self._producer:
                    waiting.append(name)
        nodes = [node for node in self._proto.graph.node if node.output[0] in needed]
        return tuple(sorted(starts, key=lambda name: self._order.get(name, -1))), nodes

    def _giving(self, name: str, starts: Sequence[str], batch: int) -> Iterator[onnx.NodeProto]:
        """Yield the nodes that take a tensor out of the input."""
        start = self._width(starts[: starts.index(name)])
        ends = self._number(start), self._number(start + self._width([name])), self._number(1)
        flat, shaped = f"{_GIVEN}:{name}:flat", f"{_GIVEN}:{name}"
        yield helper.make_node("Slice", [_GIVEN, *ends], [flat])
        is_stored = self.step(name) is not None
        kind = self._types.get(name, TensorProto.FLOAT)
        last = shaped if is_stored or kind != TensorProto.FLOAT else name
        yield helper.make_node("Reshape", [flat, self._number(batch, *self._shapes[name])], [last])
        if is_stored:
            yield from self._rounding(name, shaped)
        elif kind != TensorProto.FLOAT:
            yield helper.make_node("Cast", [shaped], [name], to=kind)

    def _rounding(self, name: str, shaped: str) -> Iterator[onnx.NodeProto]:
        """Yield the nodes that store a tensor as the integers that it comes from."""
        node = self._producer[name]
        scale, *zero = node.input[1:]
        if not zero:
            kind = helper.tensor_dtype_to_np_dtype(self._types.get(node.input[0], TensorProto.UINT8))
            zero = [f"{_GIVEN}:{name}:zero_point"]
            self._numbers[zero[0]] = np.zeros(self._constant(scale).shape, kind)
        kind = self._types.get(name, TensorProto.FLOAT)
        if kind != TensorProto.FLOAT:  # the scale has the type of the tensor
            yield helper.make_node("Cast", [shaped], [f"{shaped}:cast"], to=kind)
            shaped = f"{shaped}:cast"
        axis = {attribute.name: attribute.i for attribute in node.attribute if attribute.name == "axis"}
        yield helper.make_node("QuantizeLinear", [shaped, scale, *zero], [f"{_GIVEN}:{name}:integers"], **axis)
        yield helper.make_node("DequantizeLinear", [f"{_GIVEN}:{name}:integers", scale, *zero], [name], **axis)

    def _collecting(self, names: Sequence[str]) -> Iterator[onnx.NodeProto]:
        """Yield the nodes that lay tensors side by side in the output."""
        for name in names:
            yield helper.make_node("Flatten", [name], [f"{_RESULT}:{name}:own"], axis=1)
            yield helper.make_node("Cast", [f"{_RESULT}:{name}:own"], [f"{_RESULT}:{name}"], to=TensorProto.FLOAT)
        yield helper.make_node("Concat", [f"{_RESULT}:{name}" for name in names], [_RESULT], axis=1)

    def _number(self, *numbers: int) -> str:
        name = f"{_GIVEN}:{','.join(map(str, numbers))}"
        self._numbers[name] = np.array(numbers, np.int64)
        return name

    def _width(self, names: Sequence[str]) -> int:
        return sum(math.prod(self._shapes[name]) for name in names)

    def _counterpart(self, name: str, references: Collection[str]) -> str | None:
        """Return a tensor's name in a reference: the same, or that of the quantized tensor where it is float there."""
        if name not in references and self.step(name) is not None:
            quantize = self._producer.get(self._producer[name].input[0])
            if quantize is None or quantize.op_type != "QuantizeLinear":  # integers that were moved since
                return None
            name = quantize.input[0]
        return name if name in references else None

    def _is_picture(self, name: str) -> bool:
        return name in self._shapes and self._types.get(name) in _FLOATS

    def _is_inner(self, name: str) -> bool:
        """Say whether a tensor leads only to its own rounding, through operators that run as one with it."""
        readers = self._readers[name]
        if not readers or name in self.outputs or self.step(name) is not None:
            return False
        return all(
            node.op_type == "QuantizeLinear"
            or (node.op_type in _ELEMENTWISE and len(readers) == 1 and self._is_inner(node.output[0]))
            for node in readers
        )

    def _inner_of(self, name: str) -> list[str]:
        """Return the inner tensors that lead to a tensor, in topological order."""
        inner: set[str] = set()
        waiting = [name]
        while waiting:
            node = self._producer[waiting.pop()]
            for read in node.input:
                if read in self._producer and read in self.names and not self._is_compared(read):
                    waiting.append(read)
                    inner.add(read)
        return sorted(filter(self._is_picture, inner), key=self._order.__getitem__)

    def _is_compared(self, name: str) -> bool:
        return self._is_picture(name) and not self._is_inner(name)

    def _constant(self, name: str) -> np.ndarray:
        if name in self._stored:
            return numpy_helper.to_array(self._stored[name])
        (tensor,) = (attribute.t for attribute in self._producer[name].attribute if attribute.name == "value")
        return numpy_helper.to_array(tensor)
