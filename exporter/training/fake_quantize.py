"""A network that computes as its INT8 file does, and can be trained: quantization-aware training.

The module runs the very graph that :func:`rexport.quantization.quantize` writes. Where that has QuantizeLinear and
DequantizeLinear, tensors are rounded to the integers' numbers with a straight-through estimator; weights and biases are
parameters in float, rounded anew at every step with scales of their own, as ``quantize`` will choose them. So what is
trained is what the file will be, up to results that lie half-way between two integers. BatchNorm is folded beforehand
(its statistics no longer change), and the tensors' ranges stay those of the calibration table.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from rexport._errors import UsageError
from rexport.calibration import Calibrator
from rexport.model_file import model_hash
from rexport.passes._graph import constant, is_op, name_of, replace_initializer
from rexport.quantization import quantize
from rexport.quantization.layers import WEIGHTED, output_axis
from rexport.quantization.schemes import SMALLEST_SCALE
from rexport.training._operators import compute, require_known
from rexport.training._rounding import INT32, along_axis, round_tensor, round_weight

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_ir as ir
    from torch import Tensor

    from rexport.calibration import CalibrationTable
    from rexport.quantization import QuantizedModel, Target

__all__ = ["FakeQuantized", "fake_quantize"]

_TRAINED = (nn.Conv2d, nn.Linear)
_ROLES = {1: "weight", 2: "bias"}


def fake_quantize(
    model: ir.Model,
    table: CalibrationTable,
    *,
    target: Target,
    calibrator: Calibrator = Calibrator.MINMAX,
    network: nn.Module | None = None,
) -> FakeQuantized:
    """Return the module that computes as ``quantize(model, table, target=target, calibrator=calibrator)`` will.

    Args:
        model: A fused float model with one image input.
        table: The statistics of its tensors.
        target: What is to run the INT8 file.
        calibrator: How ranges follow from the statistics.
        network: What the model was exported from. Layers that it has no module for (a shortcut made of slices) are not
            trained then, so that :meth:`FakeQuantized.write_to` has a place for all that is; by default all are.

    Raises:
        UsageError: The table is of another model, or an operator can't be trained.
        ModelFileError: The model is quantized already.
    """
    names = [name_of(node) for node in model.graph if is_op(node, *WEIGHTED)]
    layers = set(names)
    if len(layers) < len(names):  # they would become one parameter
        raise UsageError("Two layers of the model have the same name; `rexport fuse` gives each a name of its own.")
    known = layers
    if network is not None:
        known = {name for name, module in network.named_modules() if isinstance(module, _TRAINED)}
    return FakeQuantized(model, table, target, calibrator, trained=layers & known)


class FakeQuantized(nn.Module):
    """See :func:`fake_quantize`. Takes float32 of shape ``(N, 3, S, S)`` and returns the file's first output.

    The weight and the bias of layer ``layer1.0.conv1`` are the parameters ``layer1/0/conv1/weight`` and
    ``layer1/0/conv1/bias``: PyTorch allows no dots in names.
    """

    def __init__(
        self,
        model: ir.Model,
        table: CalibrationTable,
        target: Target,
        calibrator: Calibrator,
        *,
        trained: Collection[str],
    ) -> None:
        super().__init__()
        self._model, self._table, self._target, self._calibrator = model, table, target, calibrator
        self._graph = quantize(model, table, target=target, calibrator=calibrator).model.graph
        self._constants: dict[str, str] = {}  # the buffer of each constant
        if len(self._graph.inputs) != 1:
            raise UsageError("Fine-tuning with INT8 needs a model with one input, the images.")
        for node in model.graph:
            if name_of(node) in trained:
                for role, value in zip(_ROLES.values(), node.inputs[1:], strict=False):
                    array = constant(value)
                    if array is not None:
                        self.register_parameter(_key(node, role), nn.Parameter(torch.from_numpy(array.copy())))
        for node in self._graph:
            if not is_op(node, "QuantizeLinear", "DequantizeLinear"):
                require_known(node)
            for value in node.inputs:
                array = constant(value)
                if value is not None and array is not None and str(value.name) not in self._constants:
                    key = f"constant{len(self._constants)}"
                    self._constants[str(value.name)] = key
                    self.register_buffer(key, torch.from_numpy(array.copy()), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores, float32 of shape ``(N, classes)``."""
        values: dict[str, Tensor] = {str(self._graph.inputs[0].name): images}
        for node in self._graph:
            values[str(node.outputs[0].name)] = self._run(node, values)
        return values[str(self._graph.outputs[0].name)]

    def fingerprint(self) -> str:
        """Return the SHA-256, in hexadecimal, of the target and the ranges."""
        return hashlib.sha256(f"{self._target.name}\n{self._table.to_json()}".encode()).hexdigest()

    def float_model(self) -> ir.Model:
        """Return the float model with the weights as they are now."""
        model = self._model.clone()
        for node in model.graph:
            for index, role in _ROLES.items():
                if (parameter := self._parameter(node, role)) is not None:
                    array = parameter.detach().cpu().numpy().copy()
                    replace_initializer(node, index, array, name=f"{name_of(node)}.{role}")
        return model

    def quantized(self) -> QuantizedModel:
        """Return the INT8 model with the weights as they are now, and the ranges that they were trained with."""
        model = self.float_model()
        table = replace(self._table, model_sha256=model_hash(model))
        return quantize(model, table, target=self._target, calibrator=self._calibrator)

    def write_to(self, network: nn.Module) -> None:
        """Give ``network``, which the float model was exported from, the weights as they are now, in place.

        A BatchNorm that is folded into the convolution before it becomes the identity, but for its bias: mean 0,
        variance 1 − ε, weight 1. Exported again, the network is the float model.

        Raises:
            UsageError: A layer of the model is none of the network's.
        """
        modules = dict(network.named_modules())
        for node in self._model.graph:
            weight, bias = self._parameter(node, "weight"), self._parameter(node, "bias")
            if weight is not None:
                layer, following = modules.get(name_of(node)), modules.get(str(node.outputs[0].name))
                _write(name_of(node), layer, following, weight, bias)

    def _parameter(self, node: ir.Node, role: str) -> nn.Parameter | None:
        return self._parameters.get(_key(node, role)) if is_op(node, *WEIGHTED) else None

    def _run(self, node: ir.Node, values: dict[str, Tensor]) -> Tensor:
        inputs = [self._value(value, values) for value in node.inputs]
        if is_op(node, "QuantizeLinear"):
            x, scale, zero_point = (value for value in inputs if value is not None)
            limits = self._target.activations
            return round_tensor(x, scale, zero_point.float(), (limits.low, limits.high))
        if is_op(node, "DequantizeLinear"):
            return self._dequantized(node, inputs)
        if self._parameter(node, "weight") is not None:
            inputs[1:] = self._weights(node)
        return compute(node, inputs)

    def _value(self, value: ir.Value | None, values: dict[str, Tensor]) -> Tensor | None:
        if value is None:
            return None
        key = self._constants.get(str(value.name))
        return values[str(value.name)] if key is None else self.get_buffer(key)

    def _dequantized(self, node: ir.Node, inputs: list[Tensor | None]) -> Tensor:
        """Return constants in float; a tensor that was rounded is in float already."""
        x, scale, zero_point = (value for value in inputs if value is not None)
        if constant(node.inputs[0]) is None:
            return x
        if scale.ndim:
            axis = node.attributes.get_int("axis", 1)
            scale, zero_point = (along_axis(values, axis, x.ndim) for values in (scale, zero_point))
        return (x.float() - zero_point.float()) * scale

    def _weights(self, node: ir.Node) -> list[Tensor | None]:
        """Return the weight and the bias of a layer as the file will store them."""
        weight = self._parameter(node, "weight")
        bias: Tensor | None = self._parameter(node, "bias")
        assert weight is not None
        assert node.inputs[1] is not None
        if not is_op(node.inputs[1].producer(), "DequantizeLinear"):
            return [weight, bias]
        axis = output_axis(node)
        if bias is None or not self._target.integer_bias:
            smallest = torch.zeros(weight.shape[axis], dtype=torch.float64, device=weight.device)
            integers, _ = round_weight(weight, self._target.weights, axis=axis, smallest_scale=smallest)
            return [integers, bias]
        input_scale = self._input_scale(node).double()
        smallest = bias.detach().double().abs().div(2**30).clamp_min(SMALLEST_SCALE) / input_scale
        integers, scale = round_weight(weight, self._target.weights, axis=axis, smallest_scale=smallest)
        products = (input_scale * scale).float()
        return [integers, round_tensor(bias, products, torch.zeros_like(products), INT32)]

    def _input_scale(self, node: ir.Node) -> Tensor:
        assert node.inputs[0] is not None
        dequantize = node.inputs[0].producer()
        assert dequantize is not None
        scale = self._value(dequantize.inputs[1], {})
        assert scale is not None
        return scale.reshape(())


def _key(node: ir.Node, role: str) -> str:
    return f"{name_of(node)}.{role}".replace(".", "/")


@torch.no_grad()
def _write(
    name: str, layer: nn.Module | None, following: nn.Module | None, weight: Tensor, bias: Tensor | None
) -> None:
    if not isinstance(layer, _TRAINED) or layer.weight.shape != weight.shape:
        raise UsageError(f"The network has no layer {name!r} of this shape to take the model's weights.")
    folded = following if isinstance(following, nn.BatchNorm2d) and isinstance(layer, nn.Conv2d) else None
    target = layer.bias if folded is None else folded.bias
    if bias is not None and target is None:
        raise UsageError(f"The network's layer {name!r} has no bias to take the model's.")
    layer.weight.copy_(weight)
    for parameter in (layer.bias, target):
        if parameter is not None:
            parameter.zero_()
    if folded is not None:
        assert folded.running_mean is not None
        assert folded.running_var is not None
        folded.running_mean.zero_()
        folded.running_var.fill_(1 - folded.eps)
        folded.weight.fill_(1)
    if bias is not None and target is not None:
        target.copy_(bias)
