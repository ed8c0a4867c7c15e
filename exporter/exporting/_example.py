"""What a network takes that takes no picture: an example of its inputs, at any batch, and random ones like it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from rexport._errors import UsageError
from rexport.models.modules import in_one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

__all__ = ["Example"]

_TYPES = {
    torch.float16, torch.float32, torch.float64, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32,
    torch.int64,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """Tensors on the CPU by the names of the inputs; ``by_name`` if the network takes them as keyword arguments."""

    tensors: dict[str, torch.Tensor]
    by_name: bool

    @classmethod
    def of(cls, module: torch.nn.Module, value: object) -> Example:
        """Return the example that a tensor, a tuple or list of them, or a dictionary of keyword arguments is.

        Raises:
            UsageError: It is something else, or more or less than ``module`` takes.
        """
        tensors: dict[str, Any] = {}
        if isinstance(value, torch.Tensor):
            value = (value,)
        if isinstance(value, Mapping):
            tensors = {str(name): tensor for name, tensor in value.items()}
        elif isinstance(value, (tuple, list)):
            tensors = _by_parameter(module, value)
        if not tensors or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
            types = ", ".join(type(item).__name__ for item in tensors.values())
            raise UsageError(
                "The example is what the network takes: a tensor, or a tuple or a dictionary of tensors; it is a "
                f"{type(value).__name__} ({types or 'empty'})."
            )
        for name, tensor in tensors.items():
            if tensor.dtype not in _TYPES:
                raise UsageError(f"The example's {name} is of {tensor.dtype}, which ONNX Runtime can't be given.")
            if not tensor.numel():
                raise UsageError(f"The example's {name} is empty, of shape {tuple(tensor.shape)}.")
        copies = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
        return cls(tensors=copies, by_name=isinstance(value, Mapping))

    @property
    def batch(self) -> int | None:
        """The length of the first axis that all tensors share; ``None`` if they share none."""
        lengths = {len(tensor) if tensor.dim() else None for tensor in self.tensors.values()}
        return lengths.pop() if len(lengths) == 1 else None

    @property
    def arguments(self) -> tuple[torch.Tensor, ...] | dict[str, torch.Tensor]:
        """Copies of the tensors, which a network may change in place, by position or by name."""
        copies = {name: tensor.clone() for name, tensor in self.tensors.items()}
        return copies if self.by_name else tuple(copies.values())

    @property
    def feed(self) -> dict[str, np.ndarray]:
        """The arrays that a file takes."""
        return {name: tensor.contiguous().numpy() for name, tensor in self.tensors.items()}

    def given_to(self, network: Callable[..., Any]) -> Any:
        """Return what ``network`` gives for it."""
        arguments = self.arguments
        return network(**arguments) if isinstance(arguments, dict) else network(*arguments)

    def at(self, batch: int) -> Example:
        """Return an example of another batch: its items repeated, or the first of them."""
        return self._with(lambda tensor: tensor[torch.arange(batch) % len(tensor)])

    def varied(self, random: torch.Generator) -> Example:
        """Return an example with other floats: uniform between the least and the largest, or normal if all are equal.

        Tensors that hold infinities or NaN, such as masks, stay as they are.
        """
        return self._with(lambda tensor: _random_like(tensor, random) if _is_variable(tensor) else tensor)

    @property
    def varies(self) -> bool:
        """Whether :meth:`varied` changes anything."""
        return any(map(_is_variable, self.tensors.values()))

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Example:
        return replace(self, tensors={name: change(tensor) for name, tensor in self.tensors.items()})


def _by_parameter(module: torch.nn.Module, values: tuple[Any, ...] | list[Any]) -> dict[str, Any]:
    """Return positional arguments by the names of the parameters of ``forward``."""
    try:
        bound = inspect.signature(module.forward).bind(*values)
    except TypeError as error:
        raise UsageError(f"The network does not take the example ({in_one_line(error)}).") from error
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if bound.signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            named |= {f"{name}_{index}": item for index, item in enumerate(value)}
        else:
            named[name] = value
    return named


def _is_variable(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 0 and bool(tensor.isfinite().all())


def _random_like(tensor: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    low, high = tensor.min(), tensor.max()
    if low == high:
        return torch.randn(tensor.shape, generator=random).to(tensor.dtype)
    return torch.rand(tensor.shape, generator=random).to(tensor.dtype) * (high - low) + low
