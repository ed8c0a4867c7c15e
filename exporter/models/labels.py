"""What the outputs of a network are called.

The names of ImageNet's 1,000 classes in ``data/imagenet_classes.txt``, one a line in the order of the
outputs, are those of torchvision's pretrained weights (``torchvision.models._meta``, BSD 3-clause);
CIFAR-10's are from Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from safetensors import SafetensorError, safe_open

__all__ = ["class_names", "stored_classes"]

_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_KEY = "classes"  # of the metadata of a .safetensors file that `rexport train` wrote


def class_names(dataset: str | None, num_classes: int | None) -> tuple[str, ...]:
    """Return the names of a dataset's classes in the order of the outputs, or ``()`` if they are not known.

    They are not known where a network has another number of outputs than its dataset has classes.

    Example:
        >>> class_names("imagenet", 1000)[0], class_names("cifar10", 10)[9], class_names("cifar10", 3)
        ('tench', 'truck', ())
    """
    if (dataset, num_classes) == ("cifar10", 10):
        return _CIFAR10_CLASSES
    if (dataset, num_classes) == ("imagenet", 1000):
        text = resources.files("rexport.models").joinpath("data", "imagenet_classes.txt").read_text("utf-8")
        return tuple(text.splitlines())
    return ()


def stored_classes(weights: Path | str | None) -> tuple[str, ...]:
    """Return the names of the classes that a ``.safetensors`` file says it was trained on, or ``()``.

    A file that can't be read says nothing here; loading it says why.
    """
    path = None if weights is None else Path(weights)
    if path is None or path.suffix.lower() != ".safetensors" or not path.is_file():
        return ()
    try:
        with safe_open(path, "pt") as file:
            names = json.loads((file.metadata() or {}).get(_KEY, "[]"))
    except (SafetensorError, OSError, ValueError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()
