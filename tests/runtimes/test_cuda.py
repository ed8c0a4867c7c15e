"""Memory, arrays given and taken without a copy, and graphs, on the stand-in for CUDA's driver."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from rexport._errors import UnavailableError, UsageError
from rexport.runtimes._cuda import Cuda, find_gpu
from tests.runtimes._engines import at_address, on_stand_in

if TYPE_CHECKING:
    from tests.runtimes._engines import StandIns

ARRAY = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.fixture
def cuda(stand_ins: StandIns) -> Cuda:
    """A stream of the stand-in."""
    return Cuda()


def test_the_gpu_is_described(stand_ins: StandIns) -> None:
    stand_ins.set(capability="120")
    gpu = find_gpu()
    assert (gpu.name, gpu.capability, gpu.cuda) == ("Stand-in", 120, "13.1")
    stand_ins.set(no_gpu="1")
    with pytest.raises(UnavailableError, match="sees no GPU"):
        find_gpu()


def test_copies_are_queued_and_timed(cuda: Cuda) -> None:
    there, here = cuda.allocate(ARRAY.nbytes), cuda.allocate_pinned(ARRAY.nbytes)
    np.from_dlpack(here).view(np.float32)[...] = ARRAY.ravel()
    before = cuda.record()
    cuda.copy(there, here)
    after = cuda.record()
    cuda.synchronize()
    np.testing.assert_array_equal(at_address(there.handle, ARRAY.shape), ARRAY)
    assert after - before > 0


def test_what_fails_while_it_is_captured_leaves_a_stream_that_works(cuda: Cuda) -> None:
    def fail() -> None:
        raise UnavailableError("It can't be captured.")

    with pytest.raises(UnavailableError, match=r"It can't be captured\."):
        cuda.capture(fail)
    cuda.synchronize()  # an error as long as the stream is captured


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8, np.int64, np.bool_])
def test_what_is_handed_out_is_the_memory_itself_and_is_freed_by_its_taker(
    dtype: Any, cuda: Cuda, stand_ins: StandIns
) -> None:
    before = stand_ins.live
    data = cuda.allocate(24 * np.dtype(dtype).itemsize)
    address = data.handle
    there = cuda.hand_out(data, (2, 3, 4), np.dtype(dtype))
    del data
    taken = cuda.view(there)
    assert (taken.ptr, taken.shape, taken.dtype) == (address, (2, 3, 4), np.dtype(dtype))
    del there
    assert stand_ins.live == before + 1
    del taken
    assert stand_ins.live == before


def test_a_part_that_is_whole_is_taken_and_gaps_are_refused(cuda: Cuda) -> None:
    interface: dict[str, Any] = {"shape": (2, 3), "typestr": "<f4", "data": (4096, False), "version": 3}
    assert cuda.view(SimpleNamespace(__cuda_array_interface__=interface)).ptr == 4096
    whole = cuda.view(SimpleNamespace(__cuda_array_interface__={**interface, "strides": (12, 4)}))
    assert (whole.shape, whole.dtype) == ((2, 3), np.dtype("f4"))
    with pytest.raises(UsageError, match=r"gaps .* call \.contiguous\(\)"):
        cuda.view(SimpleNamespace(__cuda_array_interface__={**interface, "strides": (16, 4)}))


def test_what_lies_elsewhere_is_refused(cuda: Cuda) -> None:
    for array in (torch.zeros(2), np.zeros(2)):
        with pytest.raises(UsageError, match=r"are on DLPack device 1, not on the GPU"):
            cuda.view(array)
    with pytest.raises(UsageError, match="list has neither"):
        cuda.view([1, 2])


def test_other_tensors_are_taken_as_they_are(cuda: Cuda) -> None:
    view = cuda.view(on_stand_in(cuda, ARRAY))
    np.testing.assert_array_equal(at_address(view.ptr, view.shape), ARRAY)


def test_no_memory_is_an_error(cuda: Cuda) -> None:
    with pytest.raises(UnavailableError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        cuda.allocate(2**41)
