"""Networks that are not ours: torchvision's, timm's, and those of the user's own modules.

    torchvision:resnet50        timm:resnet50        package.module:callable

A callable is called without arguments, or with ``num_classes`` where that is asked for, and returns a module. Weights
are never fetched here; they are given by ``--weights``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rexport._errors import UnavailableError, UsageError
from rexport.models.modules import in_one_line, return_one_tensor, uncompiled
from rexport.models.zoo import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["from_reference", "import_torchvision"]

# what importing torchvision registers shape functions for: these must exist, and no network here calls them
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    (
        "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    ),
)
_libraries: list[torch.library.Library] = []  # a library's operators go when it is collected
_DEFAULT_SIZE, _DEFAULT_CLASSES = 224, 1000


def from_reference(text: str) -> Network | None:
    """Return the network that ``where:what`` refers to; ``None`` if the text has no such form.

    Raises:
        UsageError: There is no such module or name in it.
        UnavailableError: torchvision or timm can't be imported.
    """
    where, colon, what = text.partition(":")
    if not (colon and where and what):
        return None
    if where == "torchvision":
        return _torchvision(what)
    if where == "timm":
        return _timm(what)
    return _own(where, what)


def import_torchvision() -> Any:
    """Import torchvision, also where its compiled operators do not fit the installed PyTorch.

    That is so where one is built for CUDA and the other is not. The networks need none of the operators.

    Raises:
        UnavailableError: It is not installed, or can't be imported.
    """
    try:
        return importlib.import_module("torchvision")
    except ImportError as error:
        raise UnavailableError(f"torchvision can't be imported ({error}): pip install torchvision.") from error
    except RuntimeError:  # "operator torchvision::nms does not exist"
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for operator in _OPERATORS:
            library.define(operator)  # type: ignore[no-untyped-call]
        _libraries.append(library)
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise UnavailableError(
            f"torchvision can't be imported ({error}): install the version that fits PyTorch {torch.__version__}."
        ) from error


def _torchvision(name: str) -> Network:
    models = import_torchvision().models
    _require_known(name, models.list_models(module=models), "torchvision")
    return _network(
        f"torchvision:{name}",
        lambda classes: models.get_model(name, weights=None, num_classes=classes or _DEFAULT_CLASSES),
    )


def _timm(name: str) -> Network:
    try:
        import_torchvision()  # timm imports it, and can't where this can
        timm = importlib.import_module("timm")
    except (ImportError, UnavailableError) as error:
        raise UnavailableError(f"timm can't be imported ({error}): pip install timm.") from error
    _require_known(name, timm.list_models(), "timm")
    settings = timm.get_pretrained_cfg(name)
    size = settings.input_size[-1] if settings is not None else _DEFAULT_SIZE
    return _network(
        f"timm:{name}",
        lambda classes: timm.create_model(name, pretrained=False, num_classes=classes or _DEFAULT_CLASSES),
        size=size,
    )


def _own(module_name: str, name: str) -> Network:
    here = str(Path.cwd())
    if here not in sys.path:  # as for `python -m`: the module may lie in the folder that the command is run in
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(f"The module {module_name} can't be imported: {error}.") from error
    except Exception as error:  # whatever a module of the user's raises
        raise UsageError(f"The module {module_name} can't be imported: {in_one_line(error)}.") from error
    make = getattr(module, name, None)
    if not callable(make):
        raise UsageError(f"{module_name} has no callable {name!r} that makes a network.")

    reference = f"{module_name}:{name}"

    def construct(classes: int | None) -> nn.Module:
        try:
            made = _call(make, classes)
        except UsageError:
            raise
        except Exception as error:  # whatever a callable of the user's raises
            raise UsageError(f"{reference} makes no network: {in_one_line(error)}.") from error
        if not isinstance(made, nn.Module):
            raise UsageError(f"{reference} makes a {type(made).__name__}, and not a torch.nn.Module.")
        if classes is not None and not _may_have_outputs(made, classes):
            raise UsageError(
                f"{reference} makes a network of another number of outputs than {classes}, and takes no num_classes."
            )
        return made

    return _network(reference, construct, num_classes=None)


def _call(make: Callable[..., Any], classes: int | None) -> Any:
    """Call ``make`` with ``num_classes`` if it takes that, and a number is asked for or it has none by itself."""
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):  # some that are written in C have none
        return make()
    parameter = parameters.get("num_classes")
    if parameter is not None:
        if classes is None and parameter.default is not inspect.Parameter.empty:
            return make()
        return make(num_classes=classes or _DEFAULT_CLASSES)
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    if classes is None or not takes_any:
        return make()
    try:
        return make(num_classes=classes)
    except TypeError as error:
        if "num_classes" not in str(error):
            raise
        return make()  # what it hands its keywords on to does not take this one


def _may_have_outputs(module: nn.Module, count: int) -> bool:
    """Say whether any layer of ``module`` gives so many outputs; which of them is the last only running it tells."""
    sizes = [getattr(layer, "out_features", getattr(layer, "out_channels", None)) for layer in module.modules()]
    return count in sizes or not any(sizes)


def _network(
    name: str,
    construct: Callable[[int | None], nn.Module],
    *,
    size: int = _DEFAULT_SIZE,
    num_classes: int | None = _DEFAULT_CLASSES,
) -> Network:
    where = name.partition(":")[0]
    return Network(
        name=name,
        depth=None,
        paper=where,
        dataset="imagenet" if where in ("torchvision", "timm") else None,
        input_size=size,
        num_classes=num_classes,
        construct=lambda classes: _adopted(construct(classes)),
    )


def _adopted(module: nn.Module) -> nn.Module:
    """Return a module of another library as those of the zoo are: bare, on the CPU, in float32, of one result."""
    module = uncompiled(module)
    if not any(tensor.is_meta for tensor in module.state_dict().values()):
        module = module.cpu()
    return_one_tensor(module)
    return module.float()


def _require_known(name: str, known: Sequence[str], where: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        question = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"{where} has no network {name!r}.{question}")
