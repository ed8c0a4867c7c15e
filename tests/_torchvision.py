"""The real torchvision as an oracle, also where its compiled operators do not fit the installed PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

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


def import_torchvision() -> Any:
    """Return the module, or skip the test and say why."""
    try:
        return importlib.import_module("torchvision")
    except ImportError as error:
        pytest.skip(f"torchvision can't be imported: {error}")
    except RuntimeError:  # "operator torchvision::nms does not exist"
        _define_operators()
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision can't be imported: {error}")


def _define_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _OPERATORS:
        library.define(operator)
    _libraries.append(library)
