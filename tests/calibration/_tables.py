"""Statistics and tables of arrays, drawn at random."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rexport.calibration import CalibrationTable, TensorStatistics

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VALUES = hnp.arrays(np.float32, st.integers(1, 60), elements=FLOATS)


def arrays(channels: int = 2) -> st.SearchStrategy[np.ndarray]:
    """Return arrays of shape (N, channels, P)."""
    shapes = st.tuples(st.integers(1, 3), st.just(channels), st.integers(1, 4))
    return hnp.arrays(np.float32, shapes, elements=FLOATS)


def statistics(channels: int = 2) -> st.SearchStrategy[TensorStatistics]:
    return arrays(channels).map(TensorStatistics.of)


def tables(model_sha256: str = "ab" * 32) -> st.SearchStrategy[CalibrationTable]:
    """Return tables of the tensors ``a`` and ``b`` of a model."""
    return st.builds(
        CalibrationTable,
        model_sha256=st.just(model_sha256),
        images=st.integers(1, 10**9),
        tensors=st.fixed_dictionaries({"b": statistics(3), "a": statistics(1)}),
        data_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
        batch=st.integers(1, 64),
        versions=st.lists(st.sampled_from(["rexport 1", "rexport 2", "onnxruntime 1"]), unique=True).map(
            lambda names: tuple(sorted(names))
        ),
    )
