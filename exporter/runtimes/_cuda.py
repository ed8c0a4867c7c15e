"""The first GPU through NVIDIA's ``cuda-core``: its memory, one stream, events and graphs.

It works wherever there is a driver, also beside a PyTorch for the CPU. TensorRT computes in the GPU's primary context,
which is the one that cuda-core uses. Not run on a GPU yet; the tests run it on a stand-in for the driver.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rexport._errors import RexportError, UnavailableError, UsageError
from rexport._words import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from cuda.core import Buffer, Event
    from cuda.core.graph import Graph
    from cuda.core.utils import StridedMemoryView

__all__ = ["Cuda", "Gpu", "find_gpu"]

_ON_GPU = 2  # kDLCUDA in dlpack.h


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The first GPU: its ``name``, and its compute ``capability`` times ten; ``cuda``: the driver's newest version."""

    name: str
    capability: int
    cuda: str


def find_gpu() -> Gpu:
    """Return the GPU that engines run on: the first one that ``CUDA_VISIBLE_DEVICES`` leaves.

    Raises:
        UnavailableError: There is no driver, it does not work, or sees no GPU.
    """
    driver = _driver()
    if _value(driver.cuDeviceGetCount()) == 0:
        raise UnavailableError("The NVIDIA driver sees no GPU.")
    device = _value(driver.cuDeviceGet(0))
    attribute = driver.CUdevice_attribute
    major = _value(driver.cuDeviceGetAttribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device))
    minor = _value(driver.cuDeviceGetAttribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device))
    version = _value(driver.cuDriverGetVersion())
    return Gpu(
        name=_value(driver.cuDeviceGetName(256, device)).rstrip(b"\0").decode(errors="replace"),
        capability=10 * major + minor,
        cuda=f"{version // 1000}.{version % 1000 // 10}",
    )


class Cuda:
    """One stream of the first GPU, in its primary context, which becomes the current one of this thread.

    Raises:
        UnavailableError: There is no GPU, or a call fails.
    """

    def __init__(self) -> None:
        self.gpu = find_gpu()
        from cuda.core import Device, EventOptions, LegacyPinnedMemoryResource

        self._timed = EventOptions(timing_enabled=True)
        with _reported():
            self._device = Device(0)
            self._device.set_current()
            self._stream = self._device.create_stream()  # does not wait for the legacy stream by itself
            self._host_memory = LegacyPinnedMemoryResource()

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return int(self._stream.handle)

    def enter(self) -> None:
        """Make the context the current one of the thread that calls."""
        self._device.set_current()

    def close(self) -> None:
        """Wait for what is going on and free the stream."""
        if not self._stream.is_closed:
            self.enter()
            self.synchronize()
            self._stream.close()

    def synchronize(self) -> None:
        """Wait until everything in the stream is done."""
        with _reported():
            self._stream.sync()

    def allocate(self, size: int) -> Buffer:
        """Return ``size`` bytes of the GPU's memory, which are freed with the last reference to them."""
        with _reported():
            return self._device.allocate(size, stream=self._stream)

    def allocate_pinned(self, size: int) -> Buffer:
        """Return memory of this machine that the GPU reads and writes by itself; ``numpy.from_dlpack`` views it."""
        with _reported():
            return self._host_memory.allocate(size)

    def copy(self, to: Buffer, data: Buffer) -> None:
        """Queue a copy to or from the GPU."""
        with _reported():
            to.copy_from(data, stream=self._stream)

    def record(self) -> Event:
        """Put an event into the stream; the difference of two that have happened is in milliseconds."""
        with _reported():
            return self._stream.record(options=self._timed)

    def capture(self, work: Callable[[], None]) -> Graph:
        """Return what ``work`` queues as a graph, without doing it.

        Raises:
            UnavailableError: It can't be captured.
        """
        builder = self._stream.create_graph_builder()
        try:
            with _reported():
                builder.begin_building("thread_local")  # other threads may go on allocating
                work()
                return builder.end_building().complete()
        finally:  # also ends a capture that failed, so that the stream can be used again
            builder.close()

    def launch(self, graph: Graph) -> None:
        """Queue a graph."""
        with _reported():
            graph.launch(self._stream)

    def hand_out(self, data: Buffer, shape: tuple[int, ...], dtype: np.dtype[Any]) -> StridedMemoryView:
        """Return an array, with ``__dlpack__``, of memory that somebody else may use from now on; all is done by then.

        It is freed after what the legacy stream, which PyTorch computes in by default, does with it.
        """
        from cuda.core import LEGACY_DEFAULT_STREAM
        from cuda.core.utils import StridedMemoryView

        self.synchronize()
        data.set_deallocation_stream(LEGACY_DEFAULT_STREAM)
        return StridedMemoryView.from_buffer(data, shape, dtype=dtype)

    def view(self, array: Any) -> StridedMemoryView:
        """Return where somebody's array lies; the stream waits for what computes it.

        Args:
            array: On the GPU, with ``__dlpack__`` or ``__cuda_array_interface__``, whole and in C order.

        Raises:
            UsageError: It lies elsewhere, has neither, or is not whole and in C order.
        """
        from cuda.core.utils import StridedMemoryView

        if hasattr(array, "__dlpack_device__") and (where := int(array.__dlpack_device__()[0])) != _ON_GPU:
            raise UsageError(
                f"The images are on DLPack device {where}, not on the GPU ({_ON_GPU}); call run() with "
                "NumPy arrays, or move them there first."
            )
        try:
            view = StridedMemoryView.from_any_interface(array, stream_ptr=self.stream)
        except BufferError:
            raise UsageError(
                f"{type(array).__name__} has neither __dlpack__ nor __cuda_array_interface__; pass a tensor of the GPU."
            ) from None
        except NotImplementedError as error:
            raise UsageError(f"NumPy has no such type as the images' ({error}); cast them to float32.") from error
        _require_whole(view)
        return view


def _driver() -> Any:
    """Return ``cuda.bindings.driver``, which loads NVIDIA's library at the first call, initialized."""
    try:
        from cuda.bindings import driver
    except ImportError:
        raise UnavailableError("The package cuda-core is not installed; `pip install 'rexport[cuda]'`.") from None
    try:
        result = driver.cuInit(0)
    except RuntimeError as error:
        raise UnavailableError("There is no NVIDIA driver: its library can't be loaded.") from error
    if result[0] == driver.CUresult.CUDA_ERROR_NO_DEVICE:
        raise UnavailableError("The NVIDIA driver sees no GPU.")
    _value(result)
    return driver


def _value(result: tuple[Any, ...]) -> Any:
    """Return what a function of the driver returns beside its status, which is 0."""
    status, *values = result
    if int(status):
        raise UnavailableError(f"The NVIDIA driver reports error {int(status)} ({status.name}).")
    return values[0] if values else None


@contextmanager
def _reported() -> Iterator[None]:
    """Report what cuda-core raises, whose errors have no public class, as ours."""
    try:
        yield
    except RexportError:
        raise
    except Exception as error:
        raise UnavailableError(f"The NVIDIA driver reports {first_line(error)}") from error


def _require_whole(view: StridedMemoryView) -> None:
    expected = 1
    for size, stride in reversed(list(zip(view.shape, view.strides or (), strict=False))):
        if size != 1 and stride != expected:
            raise UsageError(
                f"The images, of shape {view.shape}, have gaps or another order in memory (strides {view.strides}); "
                "call .contiguous() on them first."
            )
        expected *= size
