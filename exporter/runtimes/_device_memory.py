"""The input and output of a session in the device's own memory, allocated once per shape.

ONNX Runtime's ``run`` on NumPy arrays would allocate and copy at each call, from memory that the system may page out.
Here a call is three steps, upload, compute and download, that can be timed apart: by CUDA's events in the very stream
that ONNX Runtime computes in, where PyTorch is there to make them, and by the host's clock otherwise.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import onnxruntime
import torch

from rexport.runtimes import Phases

__all__ = ["DeviceMemory", "OrtMemory", "TorchMemory", "cuda_stream"]

_CUDA: Any = torch.cuda  # its classes' constructors are not typed


class DeviceMemory(Protocol):
    """The input and the output of one session for one shape of images."""

    def upload(self, images: np.ndarray) -> None:
        """Copy the images to the device."""
        ...

    def compute(self) -> None:
        """Run the model on what was uploaded."""
        ...

    def download(self) -> np.ndarray:
        """Return the output; everything is done by then."""
        ...

    def phases(self, images: np.ndarray) -> Phases:
        """Do the three steps and time each."""
        ...


class OrtMemory:
    """ONNX Runtime's own buffers on any of its devices; the host's clock."""

    def __init__(self, session: onnxruntime.InferenceSession, images: np.ndarray, device: str) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._images = onnxruntime.OrtValue.ortvalue_from_shape_and_type(images.shape, images.dtype, device, 0)
        self._binding.bind_ortvalue_input(session.get_inputs()[0].name, self._images)
        output = session.get_outputs()[0].name
        self._binding.bind_output(output, device)
        self.upload(images)
        self.compute()
        # what the first run allocated takes the results of all later ones
        self._logits = self._binding.get_outputs()[0]
        self._binding.bind_ortvalue_output(output, self._logits)

    def upload(self, images: np.ndarray) -> None:
        """Copy the images to the device and wait for it."""
        self._images.update_inplace(np.ascontiguousarray(images))
        self._binding.synchronize_inputs()

    def compute(self) -> None:
        """Run the model on what was uploaded and wait for it."""
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def download(self) -> np.ndarray:
        """Return a copy of the output."""
        return np.array(self._logits.numpy())  # on the CPU, numpy() is a view of what the next call overwrites

    def phases(self, images: np.ndarray) -> Phases:
        """Do the three steps and time each by the host's clock."""
        start = time.perf_counter()
        self.upload(images)
        uploaded = time.perf_counter()
        self.compute()
        computed = time.perf_counter()
        self.download()
        end = time.perf_counter()
        return Phases(upload=uploaded - start, compute=computed - uploaded, download=end - computed, clock="host")


class TorchMemory:
    """Pinned memory and CUDA's events, by PyTorch, in the stream that the session computes in.

    The session must have been given ``stream`` as its ``user_compute_stream``; nothing waits before the end of a call.
    """

    def __init__(self, session: onnxruntime.InferenceSession, images: np.ndarray, stream: Any) -> None:
        self._session = session
        self._stream = stream
        self._binding = session.io_binding()
        self._pinned = torch.empty(images.shape, dtype=_torch_type(images.dtype), pin_memory=True)
        self._images = torch.empty(images.shape, dtype=self._pinned.dtype, device="cuda")
        name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
        self._binding.bind_input(name, "cuda", 0, images.dtype, list(images.shape), self._images.data_ptr())
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._binding.bind_output(output, "cuda")
        self.upload(images)
        self.compute()
        stream.synchronize()
        first = self._binding.get_outputs()[0].numpy()  # tells the shape and type
        self._logits = torch.empty(first.shape, dtype=_torch_type(first.dtype), device="cuda")
        self._result = torch.empty(first.shape, dtype=self._logits.dtype, pin_memory=True)
        self._binding.bind_output(output, "cuda", 0, first.dtype, list(first.shape), self._logits.data_ptr())

    def upload(self, images: np.ndarray) -> None:
        """Copy the images into pinned memory, and queue their way to the device."""
        self._stream.synchronize()  # the last upload may still read the pinned memory
        self._pinned.copy_(torch.from_numpy(np.ascontiguousarray(images)))
        with torch.cuda.stream(self._stream):
            self._images.copy_(self._pinned, non_blocking=True)

    def compute(self) -> None:
        """Queue the model's run on what was uploaded."""
        self._session.run_with_iobinding(self._binding, self._options)

    def download(self) -> np.ndarray:
        """Queue the output's way back, wait for everything, and return a copy."""
        self._queue_download()
        self._stream.synchronize()
        return np.array(self._result.numpy())

    def phases(self, images: np.ndarray) -> Phases:
        """Do the three steps, an event before and after each, and ask the events once all is done."""
        events = [_CUDA.Event(enable_timing=True) for _ in range(4)]
        events[0].record(self._stream)
        self.upload(images)
        events[1].record(self._stream)
        self.compute()
        events[2].record(self._stream)
        self._queue_download()
        events[3].record(self._stream)
        self._stream.synchronize()
        milliseconds = (before.elapsed_time(after) for before, after in pairwise(events))
        upload, compute, download = (elapsed / 1e3 for elapsed in milliseconds)
        return Phases(upload=upload, compute=compute, download=download, clock="device")

    def _queue_download(self) -> None:
        with torch.cuda.stream(self._stream):
            self._result.copy_(self._logits, non_blocking=True)


def cuda_stream() -> Any:
    """Return a stream of PyTorch's for ONNX Runtime to compute in; ``None`` if there can be none.

    That takes a PyTorch with CUDA, of the same major version as ONNX Runtime's.
    """
    of_onnxruntime, of_torch = str(getattr(onnxruntime, "cuda_version", "")), str(torch.version.cuda)
    if of_torch.split(".")[0] != of_onnxruntime.split(".")[0] or not torch.cuda.is_available():
        return None
    return _CUDA.Stream()


def _torch_type(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
