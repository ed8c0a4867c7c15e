"""The names of a network's outputs, where its weights do not have them.

The names of ImageNet's 1,000 classes in ``data/imagenet_classes.txt``, one a line in the order of the
outputs, are those of torchvision's pretrained weights (``torchvision.models._meta``, BSD 3-clause).
"""

from __future__ import annotations

from importlib import resources

__all__ = ["imagenet_classes"]


def imagenet_classes() -> tuple[str, ...]:
    """Return the names of ImageNet's classes in the order of the outputs.

    Example:
        >>> imagenet_classes()[0], len(imagenet_classes())
        ('tench', 1000)
    """
    text = resources.files("rexport.models").joinpath("data", "imagenet_classes.txt").read_text("utf-8")
    return tuple(text.splitlines())
