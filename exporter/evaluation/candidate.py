"""What is compared with a reference: a model on any runtime, in parts that are cut out of it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rexport.runtimes import open_runtime
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import onnx
    import onnx_ir as ir

    from rexport.engine import BuildOptions

__all__ = ["Candidate", "Compile", "engine_compiler"]

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


def engine_compiler(options: BuildOptions) -> Compile:
    """Return what builds an engine from an ONNX file, beside it, with the options of another engine."""
    from rexport.engine import build_engine

    def build(path: Path) -> Path:
        engine = path.with_suffix(".engine")
        build_engine(path, options).save(engine)
        return engine

    return build
