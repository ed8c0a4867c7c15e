"""A deserialized engine, through the interface that ``tensorrt`` 10.3 to 11 and ``tensorrt_rtx`` share.

Each shape of images gets an execution context of its own, with its addresses and its CUDA graph: a graph keeps the
addresses and shapes that it was captured with, and contexts must not change under it. Memory is allocated once per
shape.

Host code in engines stays forbidden (``engine_host_code_allowed`` is false and never set): an engine that needs it does
not load. Not run on a GPU yet; the tests run it on a stand-in for the packages, which computes on the CPU.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport._errors import UnavailableError
from rexport.runtimes import Phases
from rexport.runtimes._cuda import Cuda
from rexport.runtimes._engine_shapes import EngineShapes, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cuda.core.graph import Graph
    from cuda.core.utils import StridedMemoryView

    from rexport.runtimes._engine_shapes import Profile

__all__ = ["EngineMemory", "LoadedEngine"]


class LoadedEngine:
    """An engine on the GPU, with the stream that it computes in.

    Args:
        trt: The package, ``tensorrt`` or ``tensorrt_rtx``.
        data: The engine file's bytes, which were checked.
        lean: The library of the lean runtime to run it with; by default the package's own runtime.
        captures: Whether its work is captured as a CUDA graph, once per shape.
        configure: Returns the arguments of ``create_execution_context`` for TensorRT's engine.

    Raises:
        UnavailableError: There is no GPU, or TensorRT can't load the engine, or it is no network of images.
    """

    def __init__(
        self,
        trt: Any,
        data: bytes,
        *,
        lean: Path | None = None,
        captures: bool = True,
        configure: Callable[[Any], tuple[Any, ...]] = lambda _: (),
    ) -> None:
        self.cuda = Cuda()  # first: TensorRT may crash without a GPU
        self.captures = captures
        self._trt, self._configure = trt, configure
        self._errors = _logger(trt)
        self._runtime = self._outer = trt.Runtime(self._errors)
        if lean is not None:
            self._runtime = self._outer.load_runtime(str(lean))  # the outer one has to live as long
            if self._runtime is None:
                raise UnavailableError(f"The lean runtime {lean} can't be loaded{self._errors.last()}.")
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise UnavailableError(f"{trt.__name__} {trt.__version__} can't load the engine{self._errors.last()}.")
        self.shapes = self._shapes()

    def close(self) -> None:
        """Free the engine; the results of :meth:`memory` can't be used any more."""
        self.cuda.synchronize()
        self._engine = self._runtime = self._outer = None
        self.cuda.close()

    def memory(self, batch: int, profile: int) -> EngineMemory:
        """Return inputs and outputs for so many images, ready to run."""
        return EngineMemory(self, batch, self.shapes.profiles[profile])

    def context(self, batch: int, profile: Profile) -> Any:
        """Return an execution context whose input has its shape.

        Raises:
            UnavailableError: TensorRT refuses the shape, or has no memory.
        """
        context = self._engine.create_execution_context(*self._configure(self._engine))
        if context is None:
            raise UnavailableError(f"There is no memory on the GPU for the engine{self._errors.last()}.")
        if len(self.shapes.profiles) > 1 and not context.set_optimization_profile_async(
            profile.index, self.cuda.stream
        ):
            raise UnavailableError(f"The engine's profile {profile.index} can't be used{self._errors.last()}.")
        shape = self.shapes.images.at(batch)
        if not context.set_input_shape(self.shapes.images.name, shape):
            raise UnavailableError(f"The engine refuses images of shape {shape}{self._errors.last()}.")
        if missing := context.infer_shapes():
            raise UnavailableError(f"The engine's {', '.join(missing)} have no shape yet.")
        return context

    def execute(self, context: Any) -> None:
        """Queue a run in the stream.

        Raises:
            UnavailableError: TensorRT reports an error.
        """
        if not context.execute_async_v3(self.cuda.stream):
            raise UnavailableError(f"The engine failed while running{self._errors.last()}.")

    def _shapes(self) -> EngineShapes:
        engine, trt = self._engine, self._trt
        inputs: list[Tensor] = []
        outputs: list[Tensor] = []
        for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
            if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
                raise UnavailableError(f"The engine's {name} lies on the host; expected images and their logits.")
            kind = str(engine.get_tensor_dtype(name)).rpartition(".")[2]
            tensor = Tensor.of(name, kind, engine.get_tensor_shape(name))
            if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                inputs.append(tensor)
            else:
                outputs.append(tensor)
        batches = [
            [shape[0] for shape in engine.get_tensor_profile_shape(inputs[0].name, index)]
            for index in range(engine.num_optimization_profiles)
            if inputs
        ]
        return EngineShapes.checked(inputs, outputs, batches)


class EngineMemory:
    """Input and outputs of an engine for one number of images, and the graph of its work where there is one.

    Attributes:
        why_no_graph: Why the work is queued piece by piece; ``None`` if it is a graph.
    """

    def __init__(self, engine: LoadedEngine, batch: int, profile: Profile) -> None:
        self._engine, self._cuda = engine, engine.cuda
        self._context = engine.context(batch, profile)
        self._tensors = (engine.shapes.images, *engine.shapes.outputs)
        self._shapes = {tensor.name: tensor.at(batch) for tensor in self._tensors}
        sizes = {tensor.name: tensor.bytes_at(batch) for tensor in self._tensors}
        self._device = {name: self._cuda.allocate(size) for name, size in sizes.items()}
        self._pinned = {name: self._cuda.allocate_pinned(size) for name, size in sizes.items()}
        self._arrays = {
            tensor.name: np.from_dlpack(self._pinned[tensor.name]).view(tensor.dtype).reshape(self._shapes[tensor.name])
            for tensor in self._tensors
        }
        self._address({name: buffer.handle for name, buffer in self._device.items()})
        self._queue_upload(np.zeros((), self._tensors[0].dtype))
        engine.execute(self._context)  # once before capturing: what is set up at the first run stays out of the graph
        self._cuda.synchronize()
        self._graph, self.why_no_graph = self._captured()

    def upload(self, images: np.ndarray) -> None:
        """Copy the images into pinned memory, and queue their way to the device."""
        self._cuda.enter()
        self._cuda.synchronize()  # the last upload may still read the pinned memory
        self._queue_upload(images)

    def compute(self) -> None:
        """Queue the engine's run on what was uploaded."""
        self._cuda.enter()
        if self._graph is not None:
            self._cuda.launch(self._graph)
        else:
            self._engine.execute(self._context)

    def download(self) -> np.ndarray:
        """Queue the first output's way back, wait for everything, and return a copy."""
        return self._download(self._tensors[1:2])[0]

    def download_all(self) -> dict[str, np.ndarray]:
        """Return copies of all outputs by their names; everything is done by then."""
        tensors = self._tensors[1:]
        return dict(zip([tensor.name for tensor in tensors], self._download(tensors), strict=True))

    def phases(self, images: np.ndarray) -> Phases:
        """Upload, compute and download, an event before and after each, and ask the events once all is done."""
        events = [self._cuda.record()]
        self.upload(images)
        events.append(self._cuda.record())
        self.compute()
        events.append(self._cuda.record())
        self._queue_download(self._tensors[1:2])
        events.append(self._cuda.record())
        self._cuda.synchronize()
        upload, compute, download = ((after - before) / 1e3 for before, after in pairwise(events))
        return Phases(upload=upload, compute=compute, download=download, clock="device")

    def run_there(self, images: Any) -> StridedMemoryView:
        """Run images that are on the device already, and return the first output there; nothing is copied.

        Args:
            images: Something with ``__dlpack__`` or ``__cuda_array_interface__``, of the engine's shape and type.

        Raises:
            UsageError: They lie elsewhere, or have gaps.
            UnavailableError: They are of another shape or type.
        """
        self._cuda.enter()
        view = self._cuda.view(images)
        tensor = self._tensors[0]
        if (view.shape, view.dtype) != (self._shapes[tensor.name], tensor.dtype):
            raise UnavailableError(
                f"The engine takes {tensor.dtype} of shape {self._shapes[tensor.name]} here, not {view.dtype} of shape "
                f"{view.shape}."
            )
        results = {output.name: self._cuda.allocate(self._device[output.name].size) for output in self._tensors[1:]}
        try:  # the graph has the addresses that it was captured with, so that the work is queued piece by piece
            self._address({tensor.name: view.ptr} | {name: buffer.handle for name, buffer in results.items()})
            self._engine.execute(self._context)
            self._cuda.synchronize()
        finally:
            self._address({name: buffer.handle for name, buffer in self._device.items()})
        first = self._tensors[1]
        return self._cuda.hand_out(results[first.name], self._shapes[first.name], first.dtype)

    def free(self) -> None:
        """Give the memory back."""
        self._cuda.enter()
        self._cuda.synchronize()
        self._graph = self._context = None
        for buffers in (self._arrays, self._device, self._pinned):
            buffers.clear()

    def _address(self, pointers: dict[str, int]) -> None:
        for name, pointer in pointers.items():
            if not self._context.set_tensor_address(name, pointer):
                raise UnavailableError(f"TensorRT refuses the memory of {name}.")

    def _captured(self) -> tuple[Graph | None, str | None]:
        if not self._engine.captures:
            return None, "it was not asked for."
        try:
            return self._cuda.capture(lambda: self._engine.execute(self._context)), None
        except UnavailableError as error:
            return None, str(error)

    def _queue_upload(self, images: np.ndarray) -> None:
        tensor = self._tensors[0]
        np.copyto(self._arrays[tensor.name], images, casting="same_kind")
        self._cuda.copy(self._device[tensor.name], self._pinned[tensor.name])

    def _queue_download(self, tensors: tuple[Tensor, ...]) -> None:
        for tensor in tensors:
            self._cuda.copy(self._pinned[tensor.name], self._device[tensor.name])

    def _download(self, tensors: tuple[Tensor, ...]) -> list[np.ndarray]:
        self._cuda.enter()
        self._queue_download(tensors)
        self._cuda.synchronize()
        return [
            np.array(self._arrays[tensor.name], np.float32 if tensor.dtype.kind == "f" else None) for tensor in tensors
        ]


def _logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.errors.append(" ".join(message.split()).rstrip("."))

        def last(self) -> str:
            return f": {self.errors[-1]}" if self.errors else ", and gives no reason"

    return Logger()
