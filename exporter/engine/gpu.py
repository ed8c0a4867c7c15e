"""The GPU that is here, asked of NVIDIA's driver itself, which every process that uses it has loaded anyway."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

__all__ = ["Gpu", "this_gpu"]

_DRIVER = "libcuda.so.1" if sys.platform != "win32" else "nvcuda.dll"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_NAME_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The first GPU: its ``name``, its ``capability`` times ten, and the version of ``cuda`` that its driver knows."""

    name: str
    capability: int
    cuda: str


def this_gpu() -> Gpu | None:
    """Return the first GPU that CUDA sees; ``None`` if there is no driver, or it sees none."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return None
    device, version, major, minor = (ctypes.c_int(0) for _ in range(4))
    name = ctypes.create_string_buffer(_NAME_BYTES)
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetName(name, _NAME_BYTES, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
        or driver.cuDriverGetVersion(ctypes.byref(version))
    )
    if failed:
        return None
    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=10 * major.value + minor.value,
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )
