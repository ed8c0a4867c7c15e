"""Networks of other libraries and users, as the zoo has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport._errors import UsageError
from rexport._words import suggestion
from rexport.models.modules import return_one_tensor, uncompiled
from rexport.models.zoo import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import nn

__all__ = ["DEFAULT_CLASSES", "DEFAULT_SIZE", "adopted", "imagenet_network", "require_known"]

DEFAULT_SIZE, DEFAULT_CLASSES = 224, 1000


def imagenet_network(library: str, name: str, make: Callable[[int], nn.Module]) -> Network:
    """Return a network for ImageNet that ``make`` makes for a number of classes."""
    return Network(
        name=f"{library}:{name}",
        depth=None,
        paper=library,
        dataset="imagenet",
        input_size=DEFAULT_SIZE,
        num_classes=DEFAULT_CLASSES,
        construct=lambda classes: adopted(make(classes or DEFAULT_CLASSES)),
    )


def adopted(module: nn.Module) -> nn.Module:
    """Return a module of another library unwrapped, on the CPU, in float32, with one result."""
    module = uncompiled(module)
    if not any(tensor.is_meta for tensor in module.state_dict().values()):
        module = module.cpu()
    return_one_tensor(module)
    return module.float()


def require_known(name: str, names: Iterable[str], library: str) -> None:
    """Raise :class:`UsageError` unless ``name`` is one of the library's ``names``."""
    names = list(names)
    if name not in names:
        hint = suggestion(name, names, 3)
        raise UsageError(f"{library} has no network {name!r}.{hint}")
