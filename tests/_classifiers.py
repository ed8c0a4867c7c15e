"""Small classifiers as files, and labelled images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rexport.model_file import Metadata, save
from rexport.preprocessing import Preprocessing
from tests._graphs import convolution, graph

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["COLOURS", "write_classifiers", "write_colours"]

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}

_BODY = (
    "a = Conv<pads = [1, 1, 1, 1]>(x, u) b = Relu(a) c = Conv<pads = [1, 1, 1, 1]>(b, v) d = Add(a, c) e = Relu(d) "
    "p = GlobalAveragePool(e) f = Flatten(p) y = Gemm(f, h)"
)


def write_classifiers(folder: Path) -> None:
    """Write ``right.onnx`` and ``wrong.onnx``, whose second convolutions differ, and 150 images, ``test.npz``."""
    random = np.random.default_rng(0)
    weights = {"u": convolution(8, 3), "h": random.standard_normal((8, 6)).astype(np.float32)}
    for seed, name in enumerate(("right.onnx", "wrong.onnx")):
        save(graph(_BODY, weights | {"v": convolution(8, 8, seed=seed)}, outputs="float[N, 6] y"), folder / name)
    images = random.standard_normal((150, 3, 16, 16)).astype(np.float32)
    np.savez(folder / "test.npz", images=images, labels=random.integers(0, 6, 150))


def write_colours(path: Path, *, resize: int | None = None) -> None:
    """Write a model that gives the average of each channel as the logit of its colour, for pictures of 8×8."""
    model = graph("p = GlobalAveragePool(x) y = Flatten(p)", {}, inputs="float[N, 3, 8, 8] x", outputs="float[N, 3] y")
    preprocessing = Preprocessing(size=8, resize=resize, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    Metadata(preprocessing=preprocessing, classes=tuple(COLOURS)).write_to(model)
    save(model, path)
