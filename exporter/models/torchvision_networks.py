"""torchvision's networks, with its preprocessing: classifiers, segmentation networks, and the backbones of detectors.

A detector gives as many boxes as it finds, which no graph of fixed shapes can; its backbone takes pictures that were
resized and normalised as the detector does it inside.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rexport._errors import UnavailableError
from rexport.models.adopted import adopted, imagenet_network, require_known
from rexport.models.zoo import Network
from rexport.preprocessing import Interpolation, Preprocessing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["find_torchvision", "import_torchvision", "of_torchvision", "published_by_torchvision"]

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
# the classes of torchvision's segmentation networks (Pascal VOC's) and detectors (COCO's), background included
_VOC_CLASSES, _COCO_CLASSES = 21, 91


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


def find_torchvision(name: str, arguments: Mapping[str, object]) -> Network:
    """Return torchvision's network of this name, made with these ``arguments``; nothing is downloaded for it.

    Raises:
        UsageError: There is none.
        UnavailableError: torchvision can't be imported.
    """
    models = import_torchvision().models
    require_known(name, _names(models), "torchvision")
    if name in models.list_models(module=models.detection):
        return _detector(models, name, arguments)
    if name in models.list_models(module=models.segmentation):
        return _segmentation(models, name, arguments)
    return _classifier(models, name, arguments)


def of_torchvision(weights: Any) -> Preprocessing | None:
    """Return how torchvision prepares pictures for a member of its ``Weights`` enumerations.

    Segmentation networks take whole pictures, of which the middle is taken here, so that theirs is ``assumed``. It is
    ``None`` for detectors, which resize and normalise pictures themselves.
    """
    transforms = weights.transforms()
    if not hasattr(transforms, "resize_size"):
        return None
    resize = transforms.resize_size[0]
    whole = not hasattr(transforms, "crop_size")
    return Preprocessing(
        size=resize if whole else transforms.crop_size[0],
        resize=resize,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=Interpolation(transforms.interpolation.value),
        assumed=whole,
    )


def published_by_torchvision() -> Iterator[Any]:
    """Yield all members of torchvision's ``Weights`` enumerations of the networks here.

    Raises:
        UnavailableError: torchvision can't be imported.
    """
    models = import_torchvision().models
    for network in _names(models):
        yield from models.get_model_weights(network)


def _names(models: Any) -> list[str]:
    families = (models, models.segmentation, models.detection)
    return [name for family in families for name in models.list_models(module=family)]


def _classifier(models: Any, name: str, arguments: Mapping[str, object]) -> Network:
    published = models.get_model_weights(name)
    ways = {of_torchvision(weights) for weights in published}
    network = imagenet_network(
        "torchvision",
        name,
        lambda classes: models.get_model(name, weights=None, **({"num_classes": classes} | dict(arguments))),
    )
    if not ways:
        return network
    # of weights that were prepared for differently, torchvision's DEFAULT is no more than likely
    default = of_torchvision(published.DEFAULT)
    assert default is not None  # a classifier's
    preprocessing = replace(default, assumed=len(ways) > 1)
    return replace(network, input_size=preprocessing.side, preprocessing=preprocessing)


def _segmentation(models: Any, name: str, arguments: Mapping[str, object]) -> Network:
    preprocessing = of_torchvision(models.get_model_weights(name).DEFAULT)
    assert preprocessing is not None  # all of them have the same
    return Network(
        name=f"torchvision:{name}",
        depth=None,
        paper="torchvision",
        dataset=None,
        input_size=preprocessing.side,
        num_classes=_VOC_CLASSES,
        construct=lambda classes: adopted(_without_weights(models, name, classes or _VOC_CLASSES, arguments)),
        preprocessing=preprocessing,
    )


def _detector(models: Any, name: str, arguments: Mapping[str, object]) -> Network:
    with torch.device("meta"):
        detector = _without_weights(models, name, _COCO_CLASSES, arguments)
        maps = detector.eval().backbone(torch.zeros(1, 3, 320, 320))
    transform, backbone = detector.transform, detector.backbone
    size = transform.fixed_size[0] if transform.fixed_size else transform.min_size[-1]
    return Network(
        name=f"torchvision:{name}",
        depth=None,
        paper="torchvision",
        dataset=None,
        input_size=size,
        num_classes=_COCO_CLASSES,
        construct=lambda classes: adopted(
            _Backbone(_without_weights(models, name, classes or _COCO_CLASSES, arguments))
        ),
        preprocessing=Preprocessing(
            size=size, resize=size, mean=tuple(transform.image_mean), std=tuple(transform.image_std), assumed=True
        ),
        no_classifier=(
            f"torchvision:{name} gives as many boxes as it finds, which no file of fixed shapes can; export the maps "
            f"that its heads read with `rexport onnx torchvision:{name} --result {','.join(maps)}`, or its "
            f"backbone with `rexport onnx torchvision:{name} --features {_last_stage(backbone)}`."
        ),
    )


def _last_stage(backbone: Any) -> str:
    """Return the module whose result is the backbone's deepest: of its body, or of an SSD's features."""
    if hasattr(backbone, "body"):
        return f"backbone.body.{[name for name, _ in backbone.body.named_children()][-1]}"
    if isinstance(backbone.features, nn.ModuleList):  # which does not run as a whole
        return f"backbone.features.{len(backbone.features) - 1}"
    return "backbone.features"


def _without_weights(models: Any, name: str, classes: int, arguments: Mapping[str, object]) -> Any:
    return models.get_model(name, weights=None, weights_backbone=None, **({"num_classes": classes} | dict(arguments)))


class _Backbone(nn.Module):
    """A detector's modules under their own names, of which only ``backbone`` runs; it returns maps by their names."""

    backbone: nn.Module

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        for name, child in detector.named_children():
            self.add_module(name, child)

    def forward(self, images: torch.Tensor) -> Any:
        return self.backbone(images)
