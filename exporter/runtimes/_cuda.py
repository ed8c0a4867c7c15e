"""CUDA's driver, as far as running an engine takes it: memory, one stream, events, and graphs.

The driver's own interface, by ``ctypes``: it is there wherever there is a GPU, also beside a PyTorch for the CPU, and
on devices without PyTorch. TensorRT computes in the GPU's primary context, which is the one used here. Not run on a GPU
yet; a stand-in for the driver, with the machine's own memory, runs all of it in the tests.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import contextmanager, suppress
from ctypes import byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rexport._errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LEGACY_STREAM", "Cuda", "DeviceBytes", "Gpu", "Graph", "PinnedBytes", "find_gpu"]

LEGACY_STREAM = 1
"""The handle of the stream that work goes to of which nobody says otherwise."""
_DRIVER = "libcuda.so.1" if sys.platform != "win32" else "nvcuda.dll"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the legacy stream by itself
_NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating
# every function that is called; the arguments are pointers and sizes, which have to be told from 32-bit integers
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (c_void_p,),
    "cuDeviceGetCount": (c_void_p,),
    "cuDeviceGet": (c_void_p, c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (c_void_p, c_int, c_int),
    "cuDevicePrimaryCtxRetain": (c_void_p, c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemAlloc_v2": (c_void_p, c_size_t),
    "cuMemFree_v2": (c_ulonglong,),
    "cuMemHostAlloc": (c_void_p, c_size_t, c_uint),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_ulonglong, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_ulonglong, c_size_t, c_void_p),
    "cuStreamCreate": (c_void_p, c_uint),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamWaitEvent": (c_void_p, c_void_p, c_uint),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, c_void_p),
    "cuEventCreate": (c_void_p, c_uint),
    "cuEventDestroy_v2": (c_void_p,),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventElapsedTime": (c_void_p, c_void_p, c_void_p),
    "cuGraphInstantiateWithFlags": (c_void_p, c_void_p, c_ulonglong),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphDestroy": (c_void_p,),
    "cuGraphExecDestroy": (c_void_p,),
}


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The first GPU: its ``name``, and its compute ``capability`` times ten; ``cuda``: the driver's newest version."""

    name: str
    capability: int
    cuda: str


class _Driver:
    """The driver's functions, each of which raises what it returns."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(_DRIVER)
        except OSError:
            raise UnavailableError(f"There is no NVIDIA driver: {_DRIVER} can't be loaded.") from None
        self._library = library

    def __call__(self, name: str, *arguments: Any) -> None:
        function = getattr(self._library, name, None)
        if function is None:
            raise UnavailableError(f"The NVIDIA driver is too old: it has no {name}.")
        function.argtypes, function.restype = _FUNCTIONS[name], c_int
        status = function(*arguments)
        if status:
            raise UnavailableError(f"The NVIDIA driver reports error {status} ({name}).")


def find_gpu() -> Gpu:
    """Return the GPU that engines run on: the first one that ``CUDA_VISIBLE_DEVICES`` leaves.

    Raises:
        UnavailableError: There is no driver, it does not work, or sees no GPU.
    """
    driver = _Driver()
    driver("cuInit", 0)
    count, device, version = c_int(), c_int(), c_int()
    driver("cuDeviceGetCount", byref(count))
    if count.value == 0:
        raise UnavailableError("The NVIDIA driver sees no GPU.")
    driver("cuDeviceGet", byref(device), 0)
    name = ctypes.create_string_buffer(256)
    driver("cuDeviceGetName", name, len(name), device)
    major, minor = c_int(), c_int()
    driver("cuDeviceGetAttribute", byref(major), _MAJOR, device)
    driver("cuDeviceGetAttribute", byref(minor), _MINOR, device)
    driver("cuDriverGetVersion", byref(version))
    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=10 * major.value + minor.value,
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


class Cuda:
    """One stream of the first GPU, in its primary context, which becomes the current one of this thread.

    Raises:
        UnavailableError: There is no GPU, or a call fails.
    """

    def __init__(self) -> None:
        self.gpu = find_gpu()
        self._call = _Driver()
        device, self._context = c_int(), c_void_p()
        self._call("cuDeviceGet", byref(device), 0)
        # kept until the process ends, as other libraries do: a context that is made anew loses their memory
        self._call("cuDevicePrimaryCtxRetain", byref(self._context), device)
        self.enter()
        stream = c_void_p()
        self._call("cuStreamCreate", byref(stream), _NON_BLOCKING)
        self.stream = int(stream.value or 0)

    def enter(self) -> None:
        """Make the context the current one of the thread that calls."""
        self._call("cuCtxSetCurrent", self._context)

    def close(self) -> None:
        """Wait for what is going on and free the stream."""
        if self.stream:
            self.enter()
            self.synchronize()
            self._call("cuStreamDestroy_v2", self.stream)
            self.stream = 0

    def synchronize(self) -> None:
        """Wait until everything in the stream is done."""
        self._call("cuStreamSynchronize", self.stream)

    def allocate(self, size: int) -> DeviceBytes:
        """Return memory of the GPU."""
        pointer = c_ulonglong()
        self._call("cuMemAlloc_v2", byref(pointer), max(1, size))
        return DeviceBytes(self, pointer.value, size)

    def allocate_pinned(self, size: int) -> PinnedBytes:
        """Return memory of this machine that the GPU reads and writes by itself."""
        pointer = c_void_p()
        self._call("cuMemHostAlloc", byref(pointer), max(1, size), 0)
        return PinnedBytes(self, int(pointer.value or 0), size)

    def upload(self, to: DeviceBytes, data: PinnedBytes) -> None:
        """Queue a copy to the GPU."""
        self._call("cuMemcpyHtoDAsync_v2", to.pointer, data.pointer, to.size, self.stream)

    def download(self, to: PinnedBytes, data: DeviceBytes) -> None:
        """Queue a copy from the GPU."""
        self._call("cuMemcpyDtoHAsync_v2", to.pointer, data.pointer, data.size, self.stream)

    def wait_for(self, stream: int) -> None:
        """Let what is queued from now on wait for what is in another stream by now."""
        with self.events(1, timed=False) as (event,):
            self._call("cuEventRecord", event, stream)
            self._call("cuStreamWaitEvent", self.stream, event, 0)

    @contextmanager
    def events(self, count: int, *, timed: bool = True) -> Iterator[list[int]]:
        """Make events, and free them at the end."""
        self.enter()
        events: list[int] = []
        try:
            for _ in range(count):
                event = c_void_p()
                self._call("cuEventCreate", byref(event), 0 if timed else _NO_TIMING)
                events.append(int(event.value or 0))
            yield events
        finally:
            for one in events:
                self._call("cuEventDestroy_v2", one)

    def record(self, event: int) -> None:
        """Put an event into the stream."""
        self._call("cuEventRecord", event, self.stream)

    def seconds_between(self, before: int, after: int) -> float:
        """Return the time between two events that have happened, in seconds."""
        milliseconds = c_float()
        self._call("cuEventElapsedTime", byref(milliseconds), before, after)
        return milliseconds.value / 1e3

    def capture(self, work: Callable[[], None]) -> Graph:
        """Return what ``work`` queues as a graph, without doing it.

        Raises:
            UnavailableError: It can't be captured.
        """
        graph, ready = c_void_p(), c_void_p()
        self._call("cuStreamBeginCapture_v2", self.stream, _THREAD_LOCAL)
        try:
            work()
        finally:  # also ends a capture that failed, so that the stream can be used again
            self._call("cuStreamEndCapture", self.stream, byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", byref(ready), graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)
        return Graph(self, int(ready.value or 0))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver, for what is handed out."""
        self._call(name, *arguments)


class _Handle:
    """Something of the driver's that is freed once: by :meth:`free`, or when nobody knows it any more."""

    FREE = ""

    def __init__(self, cuda: Cuda, pointer: int) -> None:
        self._cuda, self.pointer = cuda, pointer

    def free(self) -> None:
        """Give it back."""
        if self.pointer:
            self._cuda.enter()
            self._cuda.call(self.FREE, self.pointer)
            self.pointer = 0

    def __del__(self) -> None:
        if not sys.is_finalizing():
            with suppress(UnavailableError):  # the driver has failed before, and said so
                self.free()


class DeviceBytes(_Handle):
    """Memory of the GPU: its address (``pointer``), and its ``size`` in bytes."""

    FREE = "cuMemFree_v2"

    def __init__(self, cuda: Cuda, pointer: int, size: int) -> None:
        super().__init__(cuda, pointer)
        self.size = size


class PinnedBytes(_Handle):
    """Memory of this machine that stays where it is."""

    FREE = "cuMemFreeHost"

    def __init__(self, cuda: Cuda, pointer: int, size: int) -> None:
        super().__init__(cuda, pointer)
        self.size = size

    def view(self) -> memoryview:
        """Return the bytes, to be read and written as long as this lives."""
        return memoryview((ctypes.c_ubyte * self.size).from_address(self.pointer)).cast("B")


class Graph(_Handle):
    """Work that was captured, to be done as often as wanted."""

    FREE = "cuGraphExecDestroy"

    def launch(self) -> None:
        """Queue it."""
        self._cuda.call("cuGraphLaunch", self.pointer, self._cuda.stream)
