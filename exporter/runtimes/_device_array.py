"""Arrays in the device's memory, given and taken without a copy.

Taken is whatever has ``__dlpack__`` or ``__cuda_array_interface__``: PyTorch's tensors, CuPy's and Numba's arrays.
DLPack is asked first, because with it the giver lets our stream wait for its own; the other interface may name a
stream, and the legacy one is waited for where it does not. What is given has both, for ``torch.from_dlpack`` or
``torch.as_tensor``.

DLPack's structures, of its C header ``dlpack.h``, version 0.8 (the unversioned capsule, which every library reads):

    DLManagedTensor {DLTensor, void* manager_ctx, void (*deleter)(DLManagedTensor*)}
    DLTensor        {void* data, DLDevice {int32 type, int32 id}, int32 ndim, DLDataType {uint8 code, uint8 bits,
                     uint16 lanes}, int64* shape, int64* strides, uint64 byte_offset}
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int32, c_int64, c_uint8, c_uint16, c_uint64, c_void_p, py_object
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport._errors import UsageError
from rexport.runtimes._cuda import LEGACY_STREAM

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CPU", "CUDA", "DeviceArray", "DeviceView", "view_of"]

CPU, CUDA = 1, 2
"""DLPack's numbers of devices."""
_CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
_NAME, _USED = b"dltensor", b"used_dltensor"


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_DELETER = ctypes.CFUNCTYPE(None, POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", c_void_p), ("deleter", _DELETER))

_python = ctypes.pythonapi
_python.PyCapsule_New.restype, _python.PyCapsule_New.argtypes = py_object, [c_void_p, ctypes.c_char_p, c_void_p]
_python.PyCapsule_IsValid.argtypes = [py_object, ctypes.c_char_p]
_python.PyCapsule_GetPointer.restype = c_void_p
_python.PyCapsule_GetPointer.argtypes = [py_object, ctypes.c_char_p]
_python.PyCapsule_SetName.argtypes = [py_object, ctypes.c_char_p]
# of a capsule that is just being destroyed, which must not become an object again
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _python))
_get_pointer = ctypes.PYFUNCTYPE(c_void_p, c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _python))


@dataclass(frozen=True, kw_only=True)
class DeviceView:
    """Somebody's array: where it lies, and ``owner``, which keeps it there; ``stream`` is to be waited for."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object
    stream: int | None


class DeviceArray:
    """An array of ours, whole and in C order; ``owner`` keeps its memory.

    Args:
        pointer: Its address.
        shape: Of the array.
        dtype: Of its elements.
        owner: What must live as long as it.
        device: DLPack's number of where it lies; tests have it on the CPU.
    """

    def __init__(
        self, pointer: int, shape: Sequence[int], dtype: np.dtype[Any], *, owner: object, device: int = CUDA
    ) -> None:
        self.pointer, self.shape, self.dtype = pointer, tuple(shape), dtype
        self._owner, self._device = owner, device

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The array in version 3 of the interface; its stream was waited for, so that it names none."""
        if self._device != CUDA:
            raise AttributeError("it does not lie on a GPU")
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": None,
            "stream": None,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return where it lies."""
        return (self._device, 0)

    def __dlpack__(self, *, stream: int | None = None, **_: object) -> object:
        """Return it as a capsule. Everything is done by now, so that no ``stream`` has to wait."""
        return _capsule(self)


def view_of(array: Any, *, stream: int, device: int = CUDA) -> DeviceView:
    """Return where somebody's array lies.

    Args:
        array: With ``__dlpack__`` or ``__cuda_array_interface__``.
        stream: That is going to read it.
        device: Where it has to lie.

    Raises:
        UsageError: It lies elsewhere, has neither, or is not whole and in C order.
    """
    if hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__"):
        where = int(array.__dlpack_device__()[0])
        if where != device:
            raise UsageError(
                f"The images lie on DLPack's device {where}, not on the GPU ({device}); call run() with NumPy arrays, "
                "or move them there first."
            )
        return _of_capsule(array.__dlpack__(stream=stream) if device == CUDA else array.__dlpack__())
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        raise UsageError(
            f"{type(array).__name__} has neither __dlpack__ nor __cuda_array_interface__; pass a tensor of the GPU."
        )
    dtype, shape = np.dtype(interface["typestr"]), tuple(interface["shape"])
    strides = interface.get("strides")
    _require_whole(shape, None if strides is None else tuple(one // dtype.itemsize for one in strides))
    theirs = interface.get("stream")
    return DeviceView(
        pointer=int(interface["data"][0]),
        shape=shape,
        dtype=dtype,
        owner=array,
        stream=LEGACY_STREAM if theirs is None else int(theirs),
    )


def _of_capsule(capsule: object) -> DeviceView:
    managed = ctypes.cast(_python.PyCapsule_GetPointer(capsule, _NAME), POINTER(_Managed)).contents
    tensor = managed.tensor
    shape = tuple(tensor.shape[: tensor.ndim])
    _require_whole(shape, tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None)
    kinds = {code: kind for kind, code in _CODES.items()}
    if tensor.code not in kinds or tensor.lanes != 1:
        raise UsageError(f"The images are of DLPack's type {tensor.code}, which NumPy has not; cast them to float32.")
    kind = kinds[tensor.code]
    # the capsule frees the tensor when it goes, as nobody has renamed it
    return DeviceView(
        pointer=(tensor.data or 0) + tensor.byte_offset,
        shape=shape,
        dtype=np.dtype("?" if kind == "b" else f"{kind}{tensor.bits // 8}"),
        owner=capsule,
        stream=None,
    )


def _require_whole(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> None:
    expected = 1
    for size, stride in reversed(list(zip(shape, strides or (), strict=False))):
        if size != 1 and stride != expected:
            raise UsageError(
                f"The images, of shape {shape}, have gaps or another order in memory (strides {strides}); call "
                ".contiguous() on them first."
            )
        expected *= size


# what capsules that were given away need until their takers free them
_given: dict[int, tuple[object, ...]] = {}


def _forget(managed: Any) -> None:
    _given.pop(ctypes.addressof(managed.contents), None)


def _forget_untaken(capsule: int) -> None:
    """Free what a capsule holds that nobody took."""
    if _is_valid(capsule, _NAME):
        _given.pop(int(_get_pointer(capsule, _NAME) or 0), None)


_delete, _destroy = _DELETER(_forget), ctypes.PYFUNCTYPE(None, c_void_p)(_forget_untaken)


def _capsule(array: DeviceArray) -> object:
    sizes = (c_int64 * max(1, len(array.shape)))(*array.shape)
    managed = _Managed(
        tensor=_Tensor(
            data=array.pointer,
            device_type=array._device,
            device_id=0,
            ndim=len(array.shape),
            code=_CODES[array.dtype.kind],
            bits=8 * array.dtype.itemsize,
            lanes=1,
            shape=ctypes.cast(sizes, POINTER(c_int64)),
            strides=None,
            byte_offset=0,
        ),
        context=None,
        deleter=_delete,
    )
    address = ctypes.addressof(managed)
    _given[address] = (array, managed, sizes)
    return _python.PyCapsule_New(address, _NAME, ctypes.cast(_destroy, c_void_p))
