"""What is compared with a reference: a model on any runtime, in parts that are cut out of it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rexport._errors import UsageError
from rexport._files import file_sha256
from rexport.engine_file import is_engine, read_facts
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
        images: What the model takes, ``(N, ...)``.
        threads: By default the usable cores.
        compile: What makes of an ONNX file the file that the runtime loads, where that is another.
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

    def run(self, part: onnx.ModelProto, given: np.ndarray) -> np.ndarray:
        """Run a part of the model (see ``tensors``) on numbers of shape ``(N, numbers)``, and return others.

        Raises:
            ModelFileError: The runtime refuses the part.
            UnavailableError: It can't be used here.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "part.onnx"
            path.write_bytes(part.SerializeToString())
            path = path if self.compile is None else self.compile(path)
            with open_runtime(self.runtime, Source(path=path), threads=self.threads) as runtime:
                return runtime.run(given)


def candidate_of(
    path: Path, images: np.ndarray, *, runtime: str, reference: Path, threads: int | None = None
) -> Candidate:
    """Return a file on a runtime; in place of an engine, the ONNX file that it was built from, to be built in parts.

    Args:
        path: The file.
        images: What it takes, ``(N, ...)``.
        runtime: What runs it.
        reference: The ONNX file that it is compared with; of an engine, the one that it was built from.
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
            f"{path} can't be asked for its tensors, so parts of it are built anew from {facts.onnx}, and {reference} "
            "is another file; pass the one that it was built from as --reference."
        )
    backend = BackendName(facts.backend)
    # an engine of TensorRT says what it was built on, which is not to be chosen
    capabilities = facts.capabilities if backend is BackendName.RTX else ()
    compiler = engine_compiler(BuildOptions(backend=backend, capabilities=capabilities))
    return Candidate(model=load(reference), runtime=runtime, images=images, threads=threads, compile=compiler)


def engine_compiler(options: BuildOptions) -> Compile:
    """Return what builds an engine from an ONNX file, beside it, with the options of another engine."""
    from rexport.engine import build_engine

    def build(path: Path) -> Path:
        engine = path.with_suffix(".engine")
        build_engine(path, options).save(engine)
        return engine

    return build
