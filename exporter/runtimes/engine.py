"""Engine files of TensorRT, 10.3 to 11, and of TensorRT for RTX (``rexport engine --backend tensorrt`` and ``rtx``).

TensorRT: the work of each shape is captured as a CUDA graph and started as a whole; where that fails, it is queued
piece by piece and ``why_no_graph`` says why. A version-compatible engine of another version runs on that version's lean
runtime.

TensorRT for RTX: kernels are compiled for the GPU while loading and at the first call of a shape, all of them at once
(``EAGER``): by default, better ones would take over amid later calls. It captures CUDA graphs itself.

An engine's bytes are read once and hashed, and those are the bytes that TensorRT gets. They go to a process of their
own first (``engine_trial``), so that neither a crash nor a hang is the caller's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rexport._errors import UnavailableError, UsageError
from rexport.engine_file import is_engine, read_facts, read_intact
from rexport.feeds import filled_up, one_array
from rexport.runtimes import ENGINE_RUNTIMES, Phases
from rexport.runtimes._engine_shapes import EngineShapes
from rexport.runtimes._last_shapes import LastShapes
from rexport.runtimes.engine_trial import Limits, load, try_out

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cuda.core.utils import StridedMemoryView

    from rexport.engine_file import EngineFacts
    from rexport.feeds import Feed
    from rexport.runtimes._tensorrt import EngineMemory
    from rexport.runtimes.source import Source

__all__ = ["EngineRuntime", "RtxEngine", "TensorRtEngine"]


class EngineRuntime:
    """An engine file on the GPU.

    Args:
        source: The file, with its facts beside it.
        threads: Ignored: the GPU computes.
        cuda_graph: Whether the work of a shape is captured once and then started as a whole.
        try_first: Whether the engine is first loaded and run in another process.
        limits: The limits of that process.

    Raises:
        UnavailableError: The source is no engine, or of another backend, or can't be run here.
        EngineFileError: The file is damaged, or nothing lies beside it.
    """

    BACKEND: ClassVar[str]

    def __init__(
        self,
        source: Source,
        *,
        threads: int | None = None,  # noqa: ARG002 (every runtime takes it)
        cuda_graph: bool = True,
        try_first: bool = True,
        limits: Limits | None = None,
    ) -> None:
        self.path = _file(source, self.BACKEND)
        self.facts = _facts(self.path, self.BACKEND)
        self.shapes = EngineShapes.of_facts(self.facts)
        data = read_intact(self.path, self.facts)
        if try_first:
            try_out(self.path, data, self.facts, limits)
        self._engine = load(self.path, data, self.facts, cuda_graph=cuda_graph)
        self._memories = LastShapes[int, "EngineMemory"]()
        self._kept: EngineMemory | None = None

    def __enter__(self) -> EngineRuntime:
        return self

    def __exit__(self, *exception: object) -> None:
        for memory in filter(None, (*self._memories.values(), self._kept)):
            memory.free()
        self._memories.clear()
        self._kept = None
        self._engine.close()

    @property
    def why_no_graph(self) -> str | None:
        """Why the last shape's work is no CUDA graph of ours; ``None`` if it is, or nothing was run."""
        return next((memory.why_no_graph for memory in reversed(self._memories.values())), None)

    def run(self, feed: Feed) -> np.ndarray:
        """Run images of the engine's type, along the first axis; return the first output, floats as float32.

        More than the engine takes at a time are run in parts, fewer are filled up.
        """
        return self.run_all(one_array(feed), first_only=True)[self.shapes.outputs[0].name]

    def run_all(self, images: np.ndarray, *, first_only: bool = False) -> dict[str, np.ndarray]:
        """Run images as :meth:`run` does, and return all outputs by their names."""
        parts: list[dict[str, np.ndarray]] = []
        first = self.shapes.outputs[0].name
        for memory, full, count in self._parts(images):
            memory.upload(full)
            memory.compute()
            outputs = {first: memory.download()} if first_only else memory.download_all()
            parts.append({name: output[:count] for name, output in outputs.items()})
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def run_phases(self, images: np.ndarray) -> Phases:
        """Run a batch as :meth:`run` does, and return the time of each phase by the GPU's own clock."""
        return Phases.sum_of([memory.phases(full) for memory, full, _ in self._parts(images)])

    def keep(self, images: np.ndarray) -> None:
        """Put a batch into the GPU's memory, from where :meth:`run_kept` runs it.

        Raises:
            UnavailableError: The engine does not take so many at a time.
        """
        self.shapes.require(images)
        profile = self.shapes.profile_for(len(images))
        self._kept = self._engine.memory(len(images), profile.index)
        self._kept.upload(images)

    def run_kept(self) -> np.ndarray:
        """Run the batch that was kept and return its logits; only they are moved.

        Raises:
            UsageError: Nothing was kept.
        """
        if self._kept is None:
            raise UsageError("No pictures are on the device yet; call keep(images) first.")
        self._kept.compute()
        return self._kept.download()

    def run_there(self, images: Any) -> StridedMemoryView:
        """Run images that lie on the GPU, such as a tensor of PyTorch, and return the first output there, uncopied.

        Args:
            images: Of the engine's shape and type, in C order, with ``__dlpack__`` or ``__cuda_array_interface__``.

        Returns:
            What ``torch.from_dlpack`` takes; all is done by then.

        Raises:
            UsageError: The images lie elsewhere, or have gaps.
            UnavailableError: They are not what the engine takes.
        """
        batch = int(images.shape[0])
        return self._memory(batch, self.shapes.profile_for(batch).index).run_there(images)

    def _parts(self, images: np.ndarray) -> Iterator[tuple[EngineMemory, np.ndarray, int]]:
        """Yield the memory to run each part of the images in, the part filled up, and its number of real images."""
        if not len(images):
            raise UsageError("There are no images to run.")
        self.shapes.require(images)
        for part in self.shapes.parts(len(images)):
            full = filled_up(images[part.start : part.stop], part.batch)
            yield self._memory(part.batch, part.profile), full, part.stop - part.start

    def _memory(self, batch: int, profile: int) -> EngineMemory:
        return self._memories.at(batch, lambda: self._engine.memory(batch, profile), free=lambda memory: memory.free())


class TensorRtEngine(EngineRuntime):
    """An engine file of TensorRT."""

    BACKEND: ClassVar[str] = "tensorrt"


class RtxEngine(EngineRuntime):
    """An engine file of TensorRT for RTX."""

    BACKEND: ClassVar[str] = "rtx"


def _file(source: Source, backend: str) -> Path:
    name = ENGINE_RUNTIMES[backend]
    if source.path is None or not is_engine(source.path):
        file = source.path or f"{source}.onnx"
        commands = f"`rexport engine {file} --backend {backend} -o …`"
        if source.path is None:
            commands = f"`rexport onnx {source} -o {file}`, then {commands}"
        raise UnavailableError(f"{name} runs engine files, and {source} isn't one; make one with {commands}.")
    return source.path


def _facts(path: Path, backend: str) -> EngineFacts:
    facts = read_facts(path)
    if facts.backend != backend:
        raise UnavailableError(
            f"{path} was built with --backend {facts.backend}, so that {ENGINE_RUNTIMES[facts.backend]} runs it and "
            f"{ENGINE_RUNTIMES[backend]} does not."
        )
    return facts
