"""The side that is compared with a reference: a model on any runtime, in parts that are cut out of it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rexport._errors import UsageError
from rexport._files import file_sha256
from rexport.engine_file import is_engine, read_facts
from rexport.evaluation.tensors import ActivationGraph
from rexport.model_file import load
from rexport.runtimes import open_runtime
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import onnx
    import onnx_ir as ir

    from rexport.engine import BuildOptions

__all__ = ["Candidate", "Compile", "candidate_of", "engine_compiler"]

Compile: TypeAlias = "Callable[[Path], Path]"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model on a runtime.

    Attributes:
        model: With one image input.
        runtime: Its name in :data:`rexport.runtimes.RUNTIMES`.
        images: The model's inputs, ``(N, ...)``.
        threads: By default the usable cores.
        compile: Compiles an ONNX file into the file that the runtime loads, where that is another.
    """

    model: ir.Model
    runtime: str
    images: np.ndarray
    threads: int | None = None
    compile: Compile | None = None

    @property
    def batch(self) -> int:
        """The number of images."""
        return len(self.images)

    @cached_property
    def graph(self) -> ActivationGraph:
        """Its tensors, and how to cut them out."""
        return ActivationGraph(self.model)

    def run(self, part: onnx.ModelProto, inputs: np.ndarray) -> np.ndarray:
        """Run a part of the model (see ``tensors``) on inputs of shape ``(N, numbers)``; return its outputs likewise.

        Raises:
            ModelFileError: The runtime refuses the part.
            UnavailableError: It can't be used here.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "part.onnx"
            path.write_bytes(part.SerializeToString())
            if self.compile is not None:
                path = self.compile(path)
            with open_runtime(self.runtime, Source(path=path), threads=self.threads) as runtime:
                return runtime.run(inputs)


def candidate_of(
    path: Path, images: np.ndarray, *, runtime: str, reference: Path, threads: int | None = None
) -> Candidate:
    """Return a file on a runtime; for an engine, the ONNX file that it was built from, which is built in parts.

    Args:
        path: The file.
        images: Its inputs, ``(N, ...)``.
        runtime: The runtime's name.
        reference: The ONNX file to compare it with; for an engine, the one that it was built from.
        threads: By default the usable cores.

    Raises:
        UsageError: An engine was built from another file.
    """
    if not is_engine(path):
        return Candidate(model=load(path), runtime=runtime, images=images, threads=threads)
    from rexport.engine import BuildOptions
    from rexport.engine_file import BackendName

    facts = read_facts(path)
    if file_sha256(reference) != facts.onnx_sha256:
        raise UsageError(
            f"{path} does not expose its tensors, so parts of it are rebuilt from {facts.onnx}, and "
            f"{reference} is another file; pass the file that it was built from as --reference."
        )
    backend = BackendName(facts.backend)
    # TensorRT's engine states the GPU that it was built on, which is no option
    capabilities = facts.capabilities if backend is BackendName.RTX else ()
    compiler = engine_compiler(BuildOptions(backend=backend, capabilities=capabilities))
    return Candidate(model=load(reference), runtime=runtime, images=images, threads=threads, compile=compiler)


def engine_compiler(options: BuildOptions) -> Compile:
    """Return a function that builds an engine beside an ONNX file."""
    from rexport.engine import build_engine

    def build(path: Path) -> Path:
        engine = path.with_suffix(".engine")
        build_engine(path, options).save(engine)
        return engine

    return build
