"""Reading state dicts, checking that they fit a network, and telling networks apart by their weights.

Wrappers around a network (``torch.compile``, DataParallel, Lightning, averages of weights) put a prefix before its
names. Names are changed only where the network does not have them as they are: of all prefixes in a file, the one is
removed that leaves most names of the network. Floats of any width become float32.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rexport._errors import WeightsError
from rexport.models.checkpoints import read_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

__all__ = [
    "classes_of_weights",
    "last_linear",
    "load_backbone",
    "load_weights",
    "names_in_network",
    "read_state_dict",
    "state_dict_hash",
]

_COUNTER = "num_batches_tracked"  # BatchNorm's count of training steps: no influence on what the network computes
_MOST_NAMES = 5  # in a message
# what torch.compile, DataParallel, FSDP and activation checkpointing put into names, wherever they stand around a layer
_TRANSPARENT = frozenset(("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
_AVERAGES = frozenset(("ema", "ema_model", "model_ema"))
_PREFIXES = _TRANSPARENT | _AVERAGES | {"model", "net", "network", "backbone"}
_HEADS = ("fc", "linear", "classifier", "head", "last_linear")
# the heads that only training uses, of torchvision's segmentation networks, Inception-v3 and GoogLeNet
_AUXILIARY = ("aux_classifier", "AuxLogits", "aux1", "aux2")
_AVERAGE_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel


def read_state_dict(
    path: Path | str, network: nn.Module | None = None, *, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Tensor]:
    """Read a checkpoint's tensors.

    Args:
        path: A ``.safetensors`` file, or one that ``torch.save`` wrote (see :mod:`rexport.models.checkpoints`).
        network: The network whose names the tensors get, as far as they can be told. Without it, a prefix that all
            names share is removed, and a head called ``linear`` is called ``fc``, as in torchvision.
        tell: Called with a sentence about the tensors that were left out.

    Returns:
        Tensors by name, on the CPU; those of floating point as float32.

    Raises:
        WeightsError: The file is missing, of another kind, damaged or would run code; or it holds something
            that is not a tensor, or a tensor with a NaN or an infinity.
    """
    path = Path(path)
    stored = read_weights(path)
    if not stored.entries:
        raise WeightsError(f"{path} holds no tensors.")
    names = _shared_names(stored.entries) if network is None else names_in_network(stored.entries, network)
    state: dict[str, Tensor] = {}
    for key, name in names.items():
        if name in state:
            raise WeightsError(f"{path} has two tensors for {name}; {key} is the second.")
        state[name] = _checked(stored.entries[key], key, path)
    _tell_left_out([key for key in stored.entries if key not in names], stored.averaged, path, tell)
    return state


def load_weights(module: nn.Module, path: Path | str, *, tell: Callable[[str], None] = lambda _: None) -> None:
    """Fill a network with a checkpoint's tensors; every one must fit.

    A missing ``num_batches_tracked`` is left at zero: PyTorch before 0.4.1 did not write it.

    Args:
        module: The network; where the weights do not fit it is left as it was. On the meta device it gets memory.
        path: As for :func:`read_state_dict`.
        tell: Likewise.

    Raises:
        WeightsError: The file can't be read, or tensors are missing, unexpected or of another shape.
    """
    _fill(module, read_state_dict(path, module, tell=tell), Path(path))


def load_backbone(module: nn.Module, path: Path | str, *, tell: Callable[[str], None] = lambda _: None) -> bool:
    """Fill a network with a checkpoint's tensors, but for a head of another number of classes.

    All else must fit. Such a head stays as it is in ``module``; a head of the same number of classes is filled too.

    Args:
        module: The network; where the weights do not fit it is left as it was.
        path: As for :func:`read_state_dict`.
        tell: Likewise.

    Returns:
        Whether the head was filled too.

    Raises:
        WeightsError: The file can't be read, or tensors but the head are missing, unexpected or of another shape.
    """
    state, own = read_state_dict(path, module, tell=tell), module.state_dict()
    head = last_linear(module)
    weight = state.get(f"{head}.weight")
    other_head = weight is not None and weight.dim() == 2 and len(weight) != len(own[f"{head}.weight"])
    if weight is not None and other_head and weight.shape[1:] == own[f"{head}.weight"].shape[1:]:
        state |= {name: tensor for name, tensor in own.items() if name.startswith(f"{head}.")}
    _fill(module, state, Path(path))
    return not other_head


def last_linear(module: nn.Module) -> str:
    """Return the name of a network's last linear layer, which its classes come from.

    Raises:
        WeightsError: It has none.

    Example:
        >>> last_linear(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)))
        '2'
    """
    names = [str(name) for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if not names:
        raise WeightsError("The network has no linear layer to be its head.")
    return names[-1]


def classes_of_weights(own: Mapping[str, Tensor], stored: Mapping[str, Tensor], classes: int) -> int | None:
    """Return the number of classes of ``stored`` weights, if it is all in which they differ from a network's ``own``.

    The sizes of all heads are multiples of it: a detector has them for each anchor.

    Args:
        own: The state dict of a network.
        stored: Weights by the network's names.
        classes: The number of classes of the network.

    Returns:
        ``None`` if they do not differ in shape, or in more.
    """
    shapes = [(tensor.shape, stored[name].shape) for name, tensor in own.items() if name in stored]
    misfits = [(shape, other) for shape, other in shapes if shape != other]
    if not all(shape and shape[1:] == other[1:] for shape, other in misfits):
        return None
    counts = {classes * other[0] / shape[0] for shape, other in misfits}
    count = counts.pop() if len(counts) == 1 else 0.5
    return int(count) if count.is_integer() else None


def _fill(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    expected = module.state_dict()
    missing = [name for name in expected if name not in state and not name.endswith(_COUNTER)]
    unexpected = [name for name in state if name not in expected]
    misfits = [name for name in expected if name in state and _form(state[name]) != _form(expected[name])]
    if missing or unexpected or misfits:
        problems = (
            _listing("missing", [f"{name} {_shape(expected[name])}" for name in missing]),
            _listing("unexpected", [f"{name} {_shape(state[name])}" for name in unexpected]),
            _listing(
                "of another shape or kind",
                [f"{name} (got {_describe(state[name])}, expected {_describe(expected[name])})" for name in misfits],
            ),
        )
        listing = " ".join(problem for problem in problems if problem)
        hint = _hint(module, state, expected, missing=missing, unexpected=unexpected, misfits=misfits)
        raise WeightsError(f"{path} does not fit the network. {listing} {hint}")
    on_meta = any(tensor.is_meta for tensor in expected.values())
    module.load_state_dict(state, strict=False, assign=on_meta)
    if on_meta:
        _complete(module)


def _complete(module: nn.Module) -> None:
    """Make the counters that a state dict may lack, for a network that was made on the meta device."""
    for name, buffer in module.named_buffers():
        if buffer.is_meta and name.endswith(_COUNTER):
            path, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(path), attribute, torch.zeros_like(buffer, device="cpu"))
        elif buffer.is_meta:
            raise WeightsError(
                f"The network was made on the meta device, and its buffer {name} is in no state dict; make it on the "
                "CPU."
            )


def state_dict_hash(module: nn.Module) -> str:
    """Return the SHA-256, in hexadecimal, of a network's weights, whatever file they came from.

    It is taken over the tensors sorted by name, of each a line of name, dtype and shape in UTF-8 and then its
    elements in row-major order; BatchNorm's ``num_batches_tracked`` is left out.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if name.endswith(_COUNTER):
            continue
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name} {dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _shared_names(keys: Collection[str]) -> dict[str, str]:
    """Return the names of a file's tensors without the prefix that all of them have, by their ``keys`` there."""
    named = [key for key in keys if key != _AVERAGE_COUNTER]
    *_, prefix = (prefix for prefix in _prefixes(named[0]) if all(key.startswith(prefix) for key in named))
    names = {key: key.removeprefix(prefix) for key in named}
    if any(name.startswith("fc.") for name in names.values()):
        return names
    return {key: re.sub(r"^linear\.", "fc.", name) for key, name in names.items()}


def names_in_network(keys: Collection[str], network: nn.Module) -> dict[str, str]:
    """Return the network's names of a file's tensors, by their ``keys`` there; tensors of other modules are left out.

    Where no prefix was removed, only copies of the network's own tensors are left out, and the auxiliary heads of a
    network that was made without them.
    """
    own = set(network.state_dict())
    prefixes = {prefix: None for key in keys for prefix in _prefixes(key)}  # in the order of the file

    def renamed(prefix: str) -> dict[str, str]:
        return {key: _own_name(key.removeprefix(prefix), own) for key in keys if key.startswith(prefix)}

    def fit(prefix: str) -> tuple[int, bool, int]:
        fitting = own.intersection(renamed(prefix).values())
        return len(fitting), _AVERAGES.isdisjoint(prefix.split(".")), -len(prefix)

    prefix = max(prefixes, key=fit)
    names = renamed(prefix)
    if prefix.endswith("backbone.") and "fc.weight" not in names.values():
        # OpenMMLab's classifiers have their last layer beside the backbone, as head.fc
        head = f"{prefix.removesuffix('backbone.')}head."
        names |= {key: key.removeprefix(head) for key in keys if key.startswith(f"{head}fc.")}
    _rename_head(names, own, network)
    own_modules = {name.partition(".")[0] for name in own}
    names = {
        key: name
        for key, name in names.items()
        if (module := name.partition(".")[0]) in own_modules or module not in _AUXILIARY
    }
    if prefix:
        return names
    return {key: name for key, name in names.items() if name in own or not _is_copy(key, own)}


def _prefixes(key: str) -> Iterator[str]:
    """Yield the prefixes that wrappers may have put before a name: none, its first part, its first two parts …."""
    prefix = ""
    yield prefix
    for part in key.split(".")[:-1]:
        if part not in _PREFIXES:
            return
        prefix += f"{part}."
        yield prefix


def _own_name(name: str, own: Collection[str]) -> str:
    if name in own:
        return name
    first, *parts = name.split(".")
    shorter = ".".join((first, *(part for part in parts if part not in _TRANSPARENT)))
    return shorter if shorter in own else name


def _is_copy(key: str, own: Collection[str]) -> bool:
    return key == _AVERAGE_COUNTER or any(_own_name(key.removeprefix(prefix), own) in own for prefix in _prefixes(key))


def _rename_head(names: dict[str, str], own: set[str], network: nn.Module) -> None:
    """Give the head in the file the name that it has in the network."""
    linear = [str(name) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)][-1:]
    if not linear or f"{linear[0]}.weight" in names.values():
        return
    for head in _HEADS:
        parts = {f"{head}.{part}": f"{linear[0]}.{part}" for part in ("weight", "bias")}
        if f"{head}.weight" in names.values() and own.isdisjoint(parts):
            names.update({key: parts[name] for key, name in names.items() if name in parts})
            return


def _tell_left_out(keys: Sequence[str], averaged: str | None, path: Path, tell: Callable[[str], None]) -> None:
    copies = [key for key in keys if not _AVERAGES.isdisjoint(key.split("."))]
    if averaged is None and copies:
        averaged = copies[0].partition(".")[0]
    if averaged is not None:
        tell(
            f"{path} has averaged (EMA) weights too, under {averaged}; these are the plain ones. For the others, save "
            "them alone to a file."
        )
    unknown = [key for key in keys if key not in copies and key != _AVERAGE_COUNTER]
    if unknown:
        tell(f"left out of {path}, as the network has no such thing: {_some_of(unknown)}.")


def _checked(value: object, key: str, path: Path) -> Tensor:
    if not isinstance(value, Tensor):
        raise WeightsError(
            f"{path} has {key!r} of type {type(value).__name__}, and a state dict has tensors only. "
            "Save the network's own: `torch.save(model.state_dict(), 'weights.pth')`."
        )
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise WeightsError(f"{path} has no plain numbers for {key}: a sparse, quantized or meta tensor is no weight.")
    if not value.is_floating_point():
        return value
    value = value.to(torch.float32)
    bad = value.numel() - int(torch.isfinite(value).sum())
    if bad:
        raise WeightsError(
            f"{path} is of no use: {key} has {bad} of {value.numel()} values that are NaN or infinite in "
            "float32. Take a checkpoint from before the training diverged."
        )
    return value


def _form(tensor: Tensor) -> tuple[torch.Size, bool]:
    return tensor.shape, tensor.is_floating_point()


def _describe(tensor: Tensor) -> str:
    return _shape(tensor) if tensor.is_floating_point() else f"{_shape(tensor)} of {tensor.dtype}"


def _shape(tensor: Tensor) -> str:
    return "×".join(str(size) for size in tensor.shape) or "scalar"


def _listing(problem: str, entries: Sequence[str]) -> str:
    return f"{len(entries)} {problem}: {_some_of(entries)}." if entries else ""


def _some_of(names: Sequence[str]) -> str:
    text = ", ".join(names[:_MOST_NAMES])
    return f"{text} and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else text


def _hint(
    module: nn.Module,
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    *,
    missing: Sequence[str],
    unexpected: Sequence[str],
    misfits: Sequence[str],
) -> str:
    head = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)][-1:]
    weight = f"{head[0]}.weight" if head else ""
    if not missing and not unexpected and weight in misfits and set(misfits) <= {weight, f"{head[0]}.bias"}:
        stored, own = state[weight].shape, expected[weight].shape
        if len(stored) == 2 and stored[1] == own[1]:
            return (
                f"Only the head differs: the weights are for {stored[0]} classes and the network has {own[0]} outputs; "
                "give it as many (--num-classes, if it takes that), or other weights."
            )
    if len(missing) >= 0.9 * sum(not name.endswith(_COUNTER) for name in expected):
        return "Nearly everything is missing: these are weights of another network, or of this one under other names."
    return "These are probably weights of another network; `rexport models` lists the names to choose from."
