"""Arrays given and taken without a copy. The structures are those of NumPy and PyTorch, on the CPU."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rexport._errors import UsageError
from rexport.runtimes import _device_array
from rexport.runtimes._cuda import LEGACY_STREAM
from rexport.runtimes._device_array import CPU, CUDA, DeviceArray, view_of


def _ours(array: np.ndarray, device: int = CPU) -> DeviceArray:
    return DeviceArray(array.ctypes.data, array.shape, array.dtype, owner=array, device=device)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8, np.int64, np.bool_])
def test_what_is_given_is_the_memory_itself_and_is_freed_by_its_taker(dtype: Any) -> None:
    before = len(_device_array._given)
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    ours = _ours(array)
    numpy, tensor = np.from_dlpack(ours), torch.from_dlpack(ours)
    np.testing.assert_array_equal(numpy, array)
    np.testing.assert_array_equal(tensor.numpy(), array)
    assert numpy.ctypes.data == tensor.data_ptr() == array.ctypes.data
    del numpy, tensor
    gc.collect()
    assert len(_device_array._given) == before


def test_what_nobody_takes_is_freed() -> None:
    before = len(_device_array._given)
    capsule = _ours(np.ones(3, np.float32)).__dlpack__()
    assert len(_device_array._given) == before + 1
    del capsule
    assert len(_device_array._given) == before


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_what_is_taken_is_the_memory_itself(make: Any) -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    view = view_of(make(array), stream=0, device=CPU)
    assert (view.pointer, view.shape, view.dtype) == (array.ctypes.data, array.shape, array.dtype)
    part = make(array)[1:]  # begins later, and is whole
    assert view_of(part, stream=0, device=CPU).pointer == array[1:].ctypes.data


def test_gaps_and_other_orders_are_refused() -> None:
    tensor = torch.zeros(2, 3, 4, 4)
    for other in (tensor.permute(0, 2, 3, 1), tensor[:, :, ::2], tensor.to(memory_format=torch.channels_last)):
        with pytest.raises(UsageError, match=r"call \.contiguous\(\)"):
            view_of(other, stream=0, device=CPU)


def test_what_lies_elsewhere_is_refused() -> None:
    with pytest.raises(UsageError, match=r"lie on DLPack's device 1, not on the GPU"):
        view_of(torch.zeros(2), stream=1)
    with pytest.raises(UsageError, match="list has neither"):
        view_of([1, 2], stream=1)


def test_the_other_interface_names_a_stream_or_the_legacy_one_is_waited_for() -> None:
    interface: dict[str, Any] = {"shape": (2, 3), "typestr": "<f4", "data": (4096, False), "version": 3}
    view = view_of(SimpleNamespace(__cuda_array_interface__=interface), stream=1)
    assert (view.pointer, view.shape, view.dtype, view.stream) == (4096, (2, 3), np.dtype("f4"), LEGACY_STREAM)
    assert view_of(SimpleNamespace(__cuda_array_interface__={**interface, "stream": 7}), stream=1).stream == 7
    view_of(SimpleNamespace(__cuda_array_interface__={**interface, "strides": (12, 4)}), stream=1)
    with pytest.raises(UsageError, match="gaps"):
        view_of(SimpleNamespace(__cuda_array_interface__={**interface, "strides": (16, 4)}), stream=1)


def test_ours_is_read_by_itself_through_both() -> None:
    array = np.zeros((2, 3), np.float32)
    on_gpu = _ours(array, device=CUDA)
    assert on_gpu.__dlpack_device__() == (CUDA, 0)
    assert on_gpu.__cuda_array_interface__["data"] == (array.ctypes.data, False)
    assert view_of(on_gpu, stream=1).pointer == array.ctypes.data
    assert not hasattr(_ours(array), "__cuda_array_interface__")
