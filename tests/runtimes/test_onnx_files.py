"""Batches of a size that a model insists on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport._errors import UnavailableError
from rexport.feeds import in_batches
from rexport.runtimes import open_runtime
from rexport.runtimes._onnx_files import onnx_file, run_in_batches
from rexport.runtimes.source import Source


@given(count=st.integers(1, 20), size=st.none() | st.integers(1, 9))
def test_every_image_has_its_own_result_whatever_the_batch(count: int, size: int | None) -> None:
    images = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    lengths = [len(part) for part in in_batches(images, size)]
    assert set(lengths) == {size or count}
    assert 0 <= sum(lengths) - count < (size or 1)
    np.testing.assert_array_equal(run_in_batches(lambda part: [3 * part], images, size)[0], 3 * images)


def test_a_file_is_taken_as_it_is() -> None:
    assert onnx_file(Source(path=Path("m.onnx")), "X") == Path("m.onnx")


@pytest.mark.parametrize("name", ["cpu", "cuda", "tensorrt", "openvino"])
def test_a_network_is_to_be_exported_first(name: str) -> None:
    with pytest.raises(UnavailableError, match=r"runs ONNX files; make one with `rexport onnx vgg16 -o vgg16\.onnx`"):
        open_runtime(name, Source(network="vgg16"))
