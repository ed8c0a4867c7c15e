"""ImageNet's 1,000 classes: their names, their WordNet ids, and the order of a network's outputs.

``models/data/imagenet_classes.txt``: one name a line in the order of the outputs, those of torchvision's pretrained
weights (``torchvision.models._meta``, BSD 3-clause).

``models/data/ilsvrc2012_synsets.txt``: one WordNet id a line in the order of ``ILSVRC2012_ID``, as in the challenge's
development kit (``meta.mat``) and in darknet's ``imagenet.labels.list`` (public domain). Networks have their outputs in
another order: that of the sorted ids, as by folders.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ilsvrc2012_synsets", "imagenet_classes", "imagenet_outputs"]


def imagenet_classes() -> tuple[str, ...]:
    """Return the names of ImageNet's classes in the order of the outputs.

    Example:
        >>> imagenet_classes()[0], len(imagenet_classes())
        ('tench', 1000)
    """
    return _lines_of("imagenet_classes.txt")


def ilsvrc2012_synsets() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet's classes in the order of ``ILSVRC2012_ID``; sorted, in that of the outputs.

    Example:
        >>> ilsvrc2012_synsets()[0], min(ilsvrc2012_synsets())
        ('n02119789', 'n01440764')
    """
    return _lines_of("ilsvrc2012_synsets.txt")


def imagenet_outputs(names: Sequence[str], classes: Sequence[str]) -> tuple[int, ...] | None:
    """Return the outputs that WordNet ids stand for.

    Args:
        names: The names of class folders.
        classes: The names of a model's outputs; empty if it does not name them.

    Returns:
        ``None`` if the ``names`` are not all WordNet ids of ImageNet, or the ``classes`` are not ImageNet's.

    Example:
        >>> imagenet_outputs(["n01440764", "n02102040"], [])
        (0, 217)
    """
    places = {synset: output for output, synset in enumerate(sorted(ilsvrc2012_synsets()))}
    if not names or not all(name in places for name in names) or tuple(classes) not in ((), imagenet_classes()):
        return None
    return tuple(places[name] for name in names)


@cache
def _lines_of(file: str) -> tuple[str, ...]:
    # rexport.models itself would import PyTorch
    text = resources.files("rexport").joinpath("models", "data", file).read_text("utf-8")
    return tuple(text.splitlines())
