"""Small classifiers as files, and labelled images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rexport.model_file import save
from tests._graphs import convolution, graph

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_classifiers"]

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
