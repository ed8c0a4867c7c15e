"""Networks of others: torchvision's, timm's, and those of the user's own modules.

    torchvision:resnet50        timm:resnet50        package.module:callable

A callable is called without arguments, or with ``num_classes`` where that is asked for, and returns a module. Weights
are never fetched here; they come from ``--weights``. The preprocessing is that of torchvision and timm: timm has one
for each network (``timm:resnet50``) and for each of its published weights (``timm:resnet50.tv_in1k``).
"""

from __future__ import annotations

import copy
import importlib
import inspect
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rexport._errors import UnavailableError, UsageError
from rexport._words import suggestion
from rexport.models.modules import in_one_line, return_one_tensor, uncompiled
from rexport.models.zoo import Network
from rexport.preprocessing import Interpolation, Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["from_module", "from_reference", "import_timm", "import_torchvision", "of_timm", "of_torchvision"]

# importing torchvision registers shape functions for these, so they must exist; no network here calls them
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
    """Return the network that ``module:name`` refers to; ``None`` if the text does not have that form.

    Raises:
        UsageError: There is no such module or name in it.
        UnavailableError: torchvision or timm can't be imported.
    """
    module, _, name = text.partition(":")
    if not (module and name):
        return None
    if module == "torchvision":
        return _torchvision(name)
    if module == "timm":
        return _timm(name)
    return _own(module, name)


def from_module(module: nn.Module) -> Network:
    """Return the network that a module is; what is built of it is a copy."""
    return _of_callable(lambda: copy.deepcopy(module), type(module).__name__, paper=type(module).__module__)


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
    published = models.get_model_weights(name)
    ways = {of_torchvision(weights) for weights in published}
    network = _of_library(
        "torchvision", name, lambda classes: models.get_model(name, weights=None, num_classes=classes)
    )
    if not ways:
        return network
    # of weights that were prepared for differently, torchvision's DEFAULT is no more than likely
    preprocessing = replace(of_torchvision(published.DEFAULT), assumed=len(ways) > 1)
    return replace(network, input_size=preprocessing.size, preprocessing=preprocessing)


def _of_library(library: str, name: str, make: Callable[[int], nn.Module]) -> Network:
    """Return a network for ImageNet that ``make`` makes for a number of classes."""
    return Network(
        name=f"{library}:{name}",
        depth=None,
        paper=library,
        dataset="imagenet",
        input_size=_DEFAULT_SIZE,
        num_classes=_DEFAULT_CLASSES,
        construct=lambda classes: _adopted(make(classes or _DEFAULT_CLASSES)),
    )


def of_torchvision(weights: Any) -> Preprocessing:
    """Return how torchvision prepares pictures for a member of its ``Weights`` enumerations."""
    transforms = weights.transforms()
    return Preprocessing(
        size=transforms.crop_size[0],
        resize=transforms.resize_size[0],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=Interpolation(transforms.interpolation.value),
    )


def import_timm() -> Any:
    """Import timm.

    Raises:
        UnavailableError: It is not installed, or can't be imported.
    """
    try:
        import_torchvision()  # timm imports it, and can't where this can
        return importlib.import_module("timm")
    except (ImportError, UnavailableError) as error:
        raise UnavailableError(f"timm can't be imported ({error}): pip install timm.") from error


def _timm(name: str) -> Network:
    timm = import_timm()
    _require_known(name, timm.list_models() + timm.list_models(pretrained=True), "timm")
    network = _of_library("timm", name, lambda classes: timm.create_model(name, pretrained=False, num_classes=classes))
    settings = timm.get_pretrained_cfg(name)
    if settings is None:
        return network
    network = replace(network, input_size=settings.input_size[-1])
    try:
        return replace(network, preprocessing=of_timm(name, settings))
    except UsageError as error:
        return replace(network, inexpressible=str(error))


def of_timm(name: str, settings: Any) -> Preprocessing:
    """Return how timm prepares pictures, by its ``PretrainedCfg`` and what ``timm.data.create_transform`` makes of it.

    Raises:
        UsageError: A :class:`rexport.Preprocessing` can't say it.
    """
    channels, height, width = settings.input_size
    resize = math.floor(height / settings.crop_pct)
    if (channels, height) != (3, width) or len(settings.mean) != 3:
        resizing = f"to {channels}×{height}×{width}"
    elif settings.crop_mode != "center":
        resizing = f"by the crop mode {settings.crop_mode}"
    elif resize < height:
        resizing = f"to less than the {height} pixels of the crop"
    elif settings.interpolation not in tuple(Interpolation):
        resizing = f"by the interpolation {settings.interpolation}"
    else:
        return Preprocessing(
            size=height,
            resize=resize,
            mean=tuple(settings.mean),
            std=tuple(settings.std),
            interpolation=Interpolation(settings.interpolation),
        )
    raise UsageError(
        f"timm resizes the pictures of {name} {resizing}, which rexport's preprocessing can't say; state another with "
        "--resize, --mean and --std."
    )


def _own(module_name: str, name: str) -> Network:
    folder = str(Path.cwd())
    if folder not in sys.path:  # as for `python -m`: the module may lie in the folder that the command is run in
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(f"The module {module_name} can't be imported: {error}.") from error
    except Exception as error:  # whatever a module of the user's raises
        raise UsageError(f"The module {module_name} can't be imported: {in_one_line(error)}.") from error
    make = getattr(module, name, None)
    if not callable(make):
        raise UsageError(f"{module_name} has no callable {name!r} that makes a network.")
    return _of_callable(make, f"{module_name}:{name}", paper=module_name)


def _of_callable(make: Callable[..., Any], name: str, *, paper: str) -> Network:
    return Network(
        name=name,
        depth=None,
        paper=paper,
        dataset=None,
        input_size=_DEFAULT_SIZE,
        num_classes=None,
        construct=lambda classes: _adopted(_constructed(make, classes, name)),
        assumed_size=True,
    )


def _constructed(make: Callable[..., Any], classes: int | None, reference: str) -> nn.Module:
    try:
        network = _call(make, classes)
    except UsageError:
        raise
    except Exception as error:  # whatever a callable of the user's raises
        raise UsageError(f"{reference} makes no network: {in_one_line(error)}.") from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"{reference} makes a {type(network).__name__}, and not a torch.nn.Module.")
    if classes is not None and not _may_have_outputs(network, classes):
        raise UsageError(
            f"{reference} makes a network of another number of outputs than {classes}, and takes no num_classes."
        )
    return network


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
        return make()  # it passes its keywords on to a callable that does not take this one


def _may_have_outputs(module: nn.Module, count: int) -> bool:
    """Say whether any layer of ``module`` has ``count`` outputs; only a run would tell which layer is the last."""
    sizes = [getattr(layer, "out_features", getattr(layer, "out_channels", None)) for layer in module.modules()]
    return count in sizes or not any(sizes)


def _adopted(module: nn.Module) -> nn.Module:
    """Return a module of another library as the zoo has them: unwrapped, on the CPU, in float32, with one result."""
    module = uncompiled(module)
    if not any(tensor.is_meta for tensor in module.state_dict().values()):
        module = module.cpu()
    return_one_tensor(module)
    return module.float()


def _require_known(name: str, names: Sequence[str], library: str) -> None:
    if name not in names:
        hint = suggestion(name, names, 3)
        raise UsageError(f"{library} has no network {name!r}.{hint}")
