"""The little of CUDA's driver that running an engine takes, by ctypes, so that it needs no package.

From the CUDA Driver API's reference: Initialization, Device, Primary Context, Memory and Stream Management.
"""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = ["Cuda", "DeviceArray"]

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


class Cuda:
    """The first GPU, its primary context, and a stream.

    Attributes:
        capability: The compute capability times ten.
        stream: Its handle.

    Raises:
        OSError: There is no driver, no GPU, or a call failed.
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise OSError("there is no NVIDIA driver (libcuda.so.1) on this device") from error
        self.call("cuInit", 0)
        device, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.capability = 10 * self._attribute(_MAJOR, device) + self._attribute(_MINOR, device)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        self.call("cuStreamCreate", ctypes.byref(stream), 0)
        self.stream = int(stream.value or 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call the driver.

        Raises:
            OSError: It returned an error.
        """
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise OSError(f"the NVIDIA driver failed: {name} gave error {code}")

    def array(self, size: int) -> DeviceArray:
        """Allocate ``size`` bytes."""
        return DeviceArray(self, size)

    def wait(self) -> None:
        """Wait for everything in the stream."""
        self.call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def _attribute(self, number: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), number, device)
        return value.value


class DeviceArray:
    """Some bytes on the GPU, for as long as the process lives."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        self._cuda, self._size = cuda, ctypes.c_size_t(size)
        address = ctypes.c_uint64()
        cuda.call("cuMemAlloc_v2", ctypes.byref(address), self._size)
        self.address = address.value

    def upload(self, host: int) -> None:
        """Copy from an address of the host."""
        self._cuda.call("cuMemcpyHtoD_v2", ctypes.c_uint64(self.address), ctypes.c_void_p(host), self._size)

    def download(self, host: int) -> None:
        """Copy to an address of the host."""
        self._cuda.call("cuMemcpyDtoH_v2", ctypes.c_void_p(host), ctypes.c_uint64(self.address), self._size)
