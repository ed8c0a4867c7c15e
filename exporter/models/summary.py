"""The cost of a network: parameters and multiply-accumulates, in total and per stage.

    MACs of a convolution  =  output elements · (in_channels / groups) · kernel height · kernel width
    MACs of a linear layer =  output elements · in_features

for one image; as in the papers' FLOPs columns, BatchNorm, ReLU, pooling, additions and biases do not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Stage", "Summary", "summarize"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A direct child of the network that computes, with the BatchNorms that follow it.

    Attributes:
        name: As in the state dict, such as ``layer1``.
        output_shape: Of one image: ``(C, H, W)``, or ``(C,)`` after the pooling.
        blocks: How many residual blocks it has; 0 for a single layer.
        parameters: Weights that are trained.
        macs: Multiply-accumulates for one image.
    """

    name: str
    output_shape: tuple[int, ...]
    blocks: int
    parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A network's cost.

    Attributes:
        parameters: Weights that are trained.
        macs: Multiply-accumulates for one image.
        stages: In the order of the network's children.
    """

    parameters: int
    macs: int
    stages: tuple[Stage, ...]


def summarize(module: nn.Module, input_size: int) -> Summary:
    """Count a network's parameters and multiply-accumulates.

    Convolutions, linear layers, BatchNorm and ReLU are not computed, only their shapes are; so it takes
    milliseconds, parameters may be on the meta device, and ``module`` is left as it was.

    Args:
        module: Takes a float tensor of shape ``(N, 3, input_size, input_size)`` on the CPU.
        input_size: Height and width of the input, in pixels.

    Example:
        >>> from rexport.models import build
        >>> summarize(build("cifar_resnet20"), 32).macs
        40551040
    """
    shapes: dict[nn.Module, tuple[int, ...]] = {}
    macs: dict[nn.Module, int] = {}
    children = set(module.children())
    hooks = [
        child.register_forward_hook(_recorder(shapes, macs))
        for child in module.modules()
        if child in children or isinstance(child, (nn.Conv2d, nn.Linear))
    ]
    # BatchNorm in training mode counts its calls in a buffer
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    image = torch.empty(1, 3, input_size, input_size, device="cpu")
    try:
        with torch.no_grad(), _ShapesOnly():
            torch.func.functional_call(module, buffers, (image,))
    finally:
        for hook in hooks:
            hook.remove()
    return Summary(parameters=_parameters(module), macs=sum(macs.values()), stages=_stages(module, shapes, macs))


class _ShapesOnly(TorchFunctionMode):
    """Answers the layers that cost time by an empty tensor of the right shape, and computes the rest.

    The meta device would do for everything, but its functions are written in Python and import a compiler:
    two seconds to begin with, and then one for a ResNet-152.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if args and (func is F.batch_norm or func is F.relu):
            return args[0]
        if func is F.linear and len(args) >= 2:
            return args[0].new_empty(*args[0].shape[:-1], args[1].shape[0])
        if func is F.conv2d and len(args) == 7 and not isinstance(args[4], str):
            return _empty_convolution(*args)
        return func(*args, **(kwargs or {}))


def _empty_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,  # noqa: ARG001
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,  # noqa: ARG001
) -> Tensor:
    height, width = (
        (x.shape[i + 2] + 2 * padding[i] - dilation[i] * (weight.shape[i + 2] - 1) - 1) // stride[i] + 1
        for i in range(2)
    )
    return x.new_empty(x.shape[0], weight.shape[0], height, width)


def _recorder(
    shapes: dict[nn.Module, tuple[int, ...]], macs: dict[nn.Module, int]
) -> Callable[[nn.Module, object, object], None]:
    def record(layer: nn.Module, inputs: object, output: object) -> None:  # noqa: ARG001
        if not isinstance(output, Tensor):
            return
        shapes[layer] = tuple(output.shape[1:])
        if isinstance(layer, nn.Conv2d):
            per_element = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
        elif isinstance(layer, nn.Linear):
            per_element = layer.in_features
        else:
            return
        # added up: a layer may be called more than once
        macs[layer] = macs.get(layer, 0) + math.prod(shapes[layer]) * per_element

    return record


def _stages(
    module: nn.Module, shapes: dict[nn.Module, tuple[int, ...]], macs: dict[nn.Module, int]
) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    for name, child in module.named_children():
        if not any(isinstance(layer, (nn.Conv2d, nn.Linear)) for layer in child.modules()):
            if stages:
                stages[-1] = replace(stages[-1], parameters=stages[-1].parameters + _parameters(child))
            continue
        stages.append(
            Stage(
                name=name,
                output_shape=shapes.get(child, ()),
                blocks=sum(1 for block in child.children() if any(block.children())),
                parameters=_parameters(child),
                macs=sum(macs.get(layer, 0) for layer in child.modules()),
            )
        )
    return tuple(stages)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
