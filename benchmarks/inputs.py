"""What a process that measures is sent, and how it makes its model's input of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport.feeds import one_array
from rexport.preprocessing import Preprocessing
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rexport.feeds import Feed

__all__ = ["model_input", "random_feed", "random_images", "read_preprocessing", "read_source"]


def read_source(fields: dict[str, Any]) -> Source:
    """Return the model that a request names: by ``path``, or by ``network``, ``weights`` and ``num_classes``."""
    path, weights = fields.get("path"), fields.get("weights")
    return Source(
        path=path and Path(path),
        network=fields.get("network"),
        weights=weights and Path(weights),
        num_classes=fields.get("num_classes"),
    )


def read_preprocessing(text: str | None) -> Preprocessing | None:
    """Return the preprocessing that a request states, if it states one."""
    return None if text is None else Preprocessing.from_json(text)


def random_images(shape: Sequence[int], dtype: str, seed: int = 0) -> np.ndarray:
    """Return pixels for ``uint8``, and otherwise standard-normal float32."""
    random = np.random.default_rng(seed)
    if dtype == "uint8":
        return random.integers(0, 256, shape, np.uint8)
    return random.standard_normal(shape, np.float32)


def random_feed(tensors: Sequence[Mapping[str, Any]], seed: int = 0) -> Feed:
    """Return what a model takes: standard-normal floats, and integers of 0 and 1, by name if there are several."""
    random = np.random.default_rng(seed)
    feed: dict[str, np.ndarray] = {}
    for tensor in tensors:
        dtype, shape = np.dtype(tensor["dtype"]), tensor["shape"]
        array = random.standard_normal(shape) if dtype.kind == "f" else random.integers(0, 2, shape)
        feed[tensor["name"]] = array.astype(dtype)
    return feed if len(feed) > 1 else next(iter(feed.values()))


def model_input(images: Feed, preprocessing: Preprocessing | None) -> Feed:
    """Return the model's input for images; without a preprocessing they are its input."""
    if preprocessing is None:
        return images
    return preprocessing.to_input(one_array(images))
