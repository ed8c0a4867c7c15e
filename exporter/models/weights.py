"""Reading state dicts, checking that they fit a network, and telling networks apart by their weights.

A checkpoint is ``.safetensors``, or what ``torch.save`` wrote (``.pt``, ``.pth``, ``.th``, ``.bin``), which
is unpickled without running any code in it. The state dict may be the file's ``state_dict`` or ``model``
entry, its names may start with ``module.`` (DataParallel), and the head may be called ``linear``. Floats of
any width become float32.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rexport._errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["head_of", "load_backbone", "load_weights", "read_state_dict", "state_dict_hash"]

_TORCH_SUFFIXES = (".pt", ".pth", ".th", ".bin")
_COUNTER = "num_batches_tracked"  # BatchNorm's count of training steps: no influence on what the network computes
_SHOWN = 5


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Read a checkpoint's tensors.

    Args:
        path: A ``.safetensors``, ``.pt``, ``.pth``, ``.th`` or ``.bin`` file.

    Returns:
        Tensors by torchvision's names, on the CPU; those of floating point as float32.

    Raises:
        WeightsError: The file is missing, of another kind, damaged or would run code; or it holds something
            that is not a tensor, or a tensor with a NaN or an infinity.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", *_TORCH_SUFFIXES):
        kinds = ", ".join((".safetensors", *_TORCH_SUFFIXES))
        raise WeightsError(f"{path} can't be read as weights: the name must end in one of {kinds}.")
    if not path.is_file():
        raise WeightsError(f"{path} is a folder, not a file." if path.is_dir() else f"There is no file {path}.")
    content = _read_safetensors(path) if suffix == ".safetensors" else _unwrap(_read_pickle(path), path)
    if not content:
        raise WeightsError(f"{path} holds no tensors.")
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        name = _torchvision_name(str(key))
        if name in state:
            raise WeightsError(f"{path} has two tensors for {name}; {key} is the second.")
        state[name] = _checked(value, str(key), path)
    return state


def load_weights(module: nn.Module, path: Path | str) -> None:
    """Fill a network with a checkpoint's tensors; every one must fit.

    A missing ``num_batches_tracked`` is left at zero: PyTorch before 0.4.1 did not write it.

    Args:
        module: The network; where the weights do not fit it is left as it was.
        path: As for :func:`read_state_dict`.

    Raises:
        WeightsError: The file can't be read, or tensors are missing, unexpected or of another shape.
    """
    _fill(module, read_state_dict(path), Path(path))


def load_backbone(module: nn.Module, path: Path | str) -> bool:
    """Fill a network with a checkpoint's tensors, but for a head of another number of classes.

    All else must fit. Such a head stays as it is in ``module``; a head of the same number of classes is filled too.

    Args:
        module: The network; where the weights do not fit it is left as it was.
        path: As for :func:`read_state_dict`.

    Returns:
        Whether the head was filled too.

    Raises:
        WeightsError: The file can't be read, or tensors but the head are missing, unexpected or of another shape.
    """
    state, own = read_state_dict(path), module.state_dict()
    head = head_of(module)
    weight = state.get(f"{head}.weight")
    other_head = weight is not None and weight.dim() == 2 and len(weight) != len(own[f"{head}.weight"])
    if weight is not None and other_head and weight.shape[1:] == own[f"{head}.weight"].shape[1:]:
        state |= {name: tensor for name, tensor in own.items() if name.startswith(f"{head}.")}
    _fill(module, state, Path(path))
    return not other_head


def head_of(module: nn.Module) -> str:
    """Return the name of a network's last linear layer, which its classes come from.

    Raises:
        WeightsError: It has none.

    Example:
        >>> head_of(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)))
        '2'
    """
    names = [str(name) for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if not names:
        raise WeightsError("The network has no linear layer to be its head.")
    return names[-1]


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
        found = " ".join(problem for problem in problems if problem)
        hint = _hint(module, state, expected, missing=missing, unexpected=unexpected, misfits=misfits)
        raise WeightsError(f"{path} does not fit the network. {found} {hint}")
    module.load_state_dict(state, strict=False)


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


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise _damaged(path, "a safetensors file", error) from error
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror or error}.") from error
    return tensors


def _read_pickle(path: Path) -> object:
    try:
        with warnings.catch_warnings(action="ignore"):  # about old formats, which are read all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror or error}.") from error
    except Exception as error:  # damaged pickles raise nearly anything
        message = str(error)
        if "TorchScript" in message:
            raise WeightsError(
                f"{path} is a TorchScript program, not a state dict. Save its weights with "
                "`torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')`."
            ) from error
        if match := re.search(r"GLOBAL (\w+(?:\.\w+)*)", message):
            raise WeightsError(
                f"{path} can't be read without running code that it names ({match[1]}), which rexport does "
                "not do. If you trust it, convert it once where that code is at home: "
                "`safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')`."
            ) from error
        raise _damaged(path, "a file written by torch.save", error) from error


def _damaged(path: Path, kind: str, error: Exception) -> WeightsError:
    lines = str(error).splitlines() if isinstance(error, (RuntimeError, EOFError)) else []
    reason = f" ({lines[0][:120]})" if lines else ""
    return WeightsError(
        f"{path} is damaged, or is not {kind}{reason}. It may be half a download, or a web page or a Git LFS "
        "pointer in the place of one; get it again."
    )


def _unwrap(content: object, path: Path) -> Mapping[Any, object]:
    while isinstance(content, Mapping):
        wrapper = next((key for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            return content
        content = content[wrapper]
    raise WeightsError(
        f"{path} holds a value of type {type(content).__name__}, not a state dict: names and their tensors."
    )


def _torchvision_name(key: str) -> str:
    name = key.removeprefix("module.")
    return f"fc.{name.removeprefix('linear.')}" if name.startswith("linear.") else name


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
    if not entries:
        return ""
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return f"{len(entries)} {problem}: {', '.join(entries[:_SHOWN])}{more}."


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
        got, wanted = state[weight].shape, expected[weight].shape
        if len(got) == 2 and got[1] == wanted[1]:
            return f"Only the head differs: the weights are for {got[0]} classes; pass --num-classes {got[0]}."
    if len(missing) >= 0.9 * sum(not name.endswith(_COUNTER) for name in expected):
        return (
            "Nearly everything is missing: these are weights of another network, or their names are not torchvision's."
        )
    return "These are probably weights of another network; `rexport models` lists the names to choose from."
