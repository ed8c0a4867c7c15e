"""Modules of other libraries: the network inside its wrappers, and the tensor among its results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from rexport._errors import UsageError
from rexport._words import counted, first_line
from rexport.preprocessing import CHANNELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch.utils.hooks import RemovableHandle

__all__ = [
    "in_one_line",
    "named_results",
    "outputs_in",
    "picture_channels",
    "require_results",
    "result_of",
    "results_of",
    "return_one_tensor",
    "returning_all",
    "run_once",
    "uncompiled",
    "unwrapped",
]


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the network inside of ``torch.compile``, DataParallel and averages of weights, as deep as they go.

    Raises:
        UsageError: It is a TorchScript program, which PyTorch's exporter does not take.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise UsageError("The network is a TorchScript program, which can't be exported; give the module it came from.")
    inner = module._modules.get("_orig_mod")  # of torch.compile, whose own class takes a second to import
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)):
        inner = module.module
    return module if inner is None else unwrapped(inner)


def uncompiled(module: nn.Module) -> nn.Module:
    """Return :func:`unwrapped` ``module``, with the compiled modules inside it unwrapped in place."""
    network = unwrapped(module)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if "_orig_mod" in child._modules:
                setattr(parent, name, unwrapped(child))
    return network


def return_one_tensor(module: nn.Module, name: str | None = None) -> RemovableHandle:
    """Let ``module`` return one tensor where it returns several: the one that :func:`results_of` calls ``name``.

    Without a name it is the first. ``module.forward`` itself goes on to return all of them.

    Raises:
        UsageError: When it runs: it returns no tensor, or none of that name.
    """
    # a hook with a name must run before one without, which would leave only the first tensor
    return module.register_forward_hook(_Chooser(name), prepend=name is not None)


@contextmanager
def returning_all(module: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Let ``module`` return a tuple of the tensors that :func:`named_results` calls ``names`` while this is open.

    What :func:`return_one_tensor` asked for comes back afterwards.
    """
    hooks = module._forward_hooks.copy()
    for key, hook in hooks.items():
        if isinstance(hook, _Chooser):
            del module._forward_hooks[key]
    module.register_forward_hook(lambda _module, _inputs, result: tuple(named_results(result)[name] for name in names))
    try:
        yield
    finally:
        module._forward_hooks.clear()
        module._forward_hooks.update(hooks)


def results_of(module: nn.Module, shape: Sequence[int]) -> dict[str, torch.Tensor]:
    """Run ``module`` on a black picture and return its results by name, each of shape ``(1, ...)``, first the first.

    They are called after the keys of a dictionary or the fields of a dataclass, elsewhere by numbers from 0; nested
    names have dots between.

    Args:
        module: Takes float32 of shape ``(1, C, H, W)``, and is in eval mode.
        shape: Of the picture, ``(C, H, W)``.

    Raises:
        UsageError: It does not run on such a picture, or returns no tensor.
    """
    return named_results(run_once(module.forward, shape))


def named_results(result: object) -> dict[str, torch.Tensor]:
    """Return the tensors in what a network returned, by the names that :func:`results_of` gives them.

    Raises:
        UsageError: There are none.
    """
    tensors = _tensors_in(result, "")
    if not tensors:
        raise UsageError(f"The network returns a {type(result).__name__} without a tensor in it.")
    return tensors


def require_results(results: Mapping[str, torch.Tensor], names: Sequence[str]) -> None:
    """Make sure that ``results``, of :func:`results_of`, have these names.

    Raises:
        UsageError: One is missing, or named twice.
    """
    for name, count in Counter(names).items():
        if name not in results:
            raise UsageError(f"--result {name}: the network returns {', '.join(results)}.")
        if count > 1:
            raise UsageError(f"--result {','.join(names)}: {name} is named {count} times; name each result once.")


def result_of(module: nn.Module, shape: Sequence[int]) -> torch.Tensor:
    """Run ``module`` likewise and return the one tensor that :func:`return_one_tensor` leaves.

    Raises:
        UsageError: As for :func:`results_of`.
    """
    with return_one_tensor(module):
        result = run_once(module, shape)
    assert isinstance(result, torch.Tensor)
    return result


def picture_channels(module: nn.Module, shape: Sequence[int]) -> int:
    """Return the channels of the pictures that ``module`` takes: those of its first convolution if it runs on them.

    Otherwise they are those of ``shape``, ``(C, H, W)``.
    """
    channels, *sides = shape
    first = next((layer.in_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)), channels)
    if first == channels or first not in CHANNELS:
        return channels
    try:
        run_once(module.forward, (first, *sides))
    except UsageError:  # it is another layer that reads the picture
        return channels
    return first


def outputs_in(result: torch.Tensor) -> int:
    """Return the number of outputs, or of feature maps, that a result has for a picture."""
    return result.shape[1] if result.dim() > 1 else 1


def run_once(network: Callable[[torch.Tensor], object], shape: Sequence[int]) -> object:
    """Return the result of ``network`` for a black picture of a ``shape``, ``(C, H, W)``.

    Raises:
        UsageError: It does not run on it.
    """
    try:
        with torch.inference_mode():
            return network(torch.zeros(1, *shape))
    except UsageError:
        raise
    except Exception as error:  # whatever a network of the user's raises
        channels, *sides = shape
        raise UsageError(
            f"The network does not run on a picture of {'×'.join(map(str, sides))} pixels with "
            f"{counted(channels, 'channel')} ({in_one_line(error)}); if it takes something else, export it with "
            "--example module:function."
        ) from error


def in_one_line(error: BaseException) -> str:
    """Return an error's class and the first line of its message."""
    if not str(error).strip():
        return type(error).__name__
    return f"{type(error).__name__}: {first_line(error).rstrip('.:')}"


@dataclass(frozen=True)
class _Chooser:
    """A forward hook; unlike a function inside another, it can be copied and pickled along with its module."""

    name: str | None

    def __call__(self, _module: nn.Module, _inputs: object, result: object) -> torch.Tensor:
        if isinstance(result, torch.Tensor) and self.name is None:
            return result
        tensors = named_results(result)
        if self.name is None:
            return next(iter(tensors.values()))
        if self.name not in tensors:
            raise UsageError(f"The network has no result {self.name!r}; it returns {', '.join(tensors)}.")
        return tensors[self.name]


def _tensors_in(result: Any, name: str) -> dict[str, torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return {name or "0": result}
    items: dict[str, Any] = {}
    if isinstance(result, Mapping):
        items = {str(key): value for key, value in result.items()}
    elif is_dataclass(result):
        items = {field.name: getattr(result, field.name) for field in fields(result)}
    elif isinstance(result, (tuple, list)):
        items = dict(zip(getattr(result, "_fields", map(str, range(len(result)))), result, strict=True))
    tensors: dict[str, torch.Tensor] = {}
    for key, value in items.items():
        tensors |= _tensors_in(value, f"{name}.{key}" if name else key)
    return tensors
