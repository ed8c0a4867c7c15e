"""The options of building an engine, as typed choices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rexport._apart import WRITE
from rexport._errors import UnavailableError, UsageError
from rexport.engine_file import BackendName

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx_ir as ir

__all__ = ["BatchRange", "BuildOptions", "batch_of", "check_capabilities"]

# What TensorRT for RTX 1.7 compiles for; Turing apart, since in one engine with others it turns convolutions to float.
RTX_CAPABILITIES = (75, 80, 86, 89, 120, 121)
TURING = 75
_DEFAULT_RTX = (80, 86, 89, 120)
_JETSON = {53, 62, 72, 87, 101, 110}
_HOPPER = 90


@dataclass(frozen=True, kw_only=True)
class BatchRange:
    """The batches that an engine takes, from ``least`` to ``most``, and the ``best`` that it is tuned for."""

    least: int
    best: int
    most: int

    @classmethod
    def parse(cls, text: str) -> BatchRange:
        """Read ``8``, or ``1:8:32`` for the least, the best and the most.

        Raises:
            UsageError: It is neither, or not in this order.
        """
        try:
            numbers = [int(part) for part in text.split(":")]
        except ValueError:
            numbers = []
        if len(numbers) == 1:
            numbers *= 3
        if len(numbers) != 3 or not 1 <= numbers[0] <= numbers[1] <= numbers[2]:
            raise UsageError(f"--batch {text}: name a batch such as 8, or the least, best and most, such as 1:8:32.")
        return cls(least=numbers[0], best=numbers[1], most=numbers[2])

    def __str__(self) -> str:
        """Return what :meth:`parse` reads."""
        return str(self.least) if self.least == self.most else f"{self.least}:{self.best}:{self.most}"


_SINGLE = BatchRange(least=1, best=1, most=1)


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How to build.

    Attributes:
        backend: Whose compiler.
        capabilities: The GPUs' compute capabilities times ten, such as 86; empty for the GPU that is here.
        batch: ``None`` for the model's fixed batch, or 1.
        workspace_mib: The most scratch memory that a layer may take on the GPU, in MiB; by default all of it.
        optimization_level: From 0 to 5: how long TensorRT searches for faster kernels.
        timing_cache: A file of measured times, read and written, that makes the next build faster.
        version_compatible: Whether later versions of TensorRT may run the engine.
        hardware_compatible: Whether other GPUs of Ampere and later may.
        refittable: Whether its weights can be exchanged.
        strip: Whether its weights are left out, to be filled in from the ONNX file where it is loaded.
    """

    backend: BackendName
    capabilities: tuple[int, ...] = ()
    batch: BatchRange | None = None
    workspace_mib: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = field(default=None, metadata=WRITE)
    version_compatible: bool = False
    hardware_compatible: bool = False
    refittable: bool = False
    strip: bool = False

    @property
    def batches(self) -> tuple[int, int, int]:
        """The least, the best and the most images of ``batch``."""
        batch = self.batch or _SINGLE
        return batch.least, batch.best, batch.most

    def __post_init__(self) -> None:
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UsageError(f"--workspace {self.workspace_mib}: must be at least 1 MiB.")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise UsageError(f"--optimization-level {self.optimization_level}: must be from 0 to 5.")
        if self.backend is BackendName.ONNXRUNTIME:
            self._check_onnxruntime()

    def _check_onnxruntime(self) -> None:
        """Refuse options that ONNX Runtime's provider does not have, or that don't fit one ONNX file."""
        refused = {
            "--timing-cache": self.timing_cache is not None,
            "--version-compatible": self.version_compatible,
            "--refittable": self.refittable,
            "--strip": self.strip,
        }
        options = [option for option, is_set in refused.items() if is_set]
        if options:
            raise UsageError(
                f"ONNX Runtime does not support {' and '.join(options)}; leave it out, or build with "
                "--backend tensorrt."
            )


def batch_of(model: ir.Model, batch: BatchRange | None) -> BatchRange:
    """Return the batches of an engine of ``model``: those of ``batch``, or the one that the model fixes.

    Raises:
        UsageError: The model fixes another one.
    """
    inputs = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    sizes = [value.shape[0] for value in inputs if value.shape]
    fixed = next((size for size in sizes if isinstance(size, int)), None)
    if fixed is None:
        return batch or _SINGLE
    only = BatchRange(least=fixed, best=fixed, most=fixed)
    if batch not in (None, only):
        raise UsageError(
            f"--batch {batch}: the file takes batches of {fixed} only; leave --batch out, or export the "
            "file with `--batch dynamic`."
        )
    return only


def check_capabilities(backend: BackendName, capabilities: Sequence[int]) -> tuple[int, ...]:
    """Return the capabilities to build for, sorted; by default those of RTX that one engine can hold.

    Raises:
        UnavailableError: The backend does not compile for one of them; the message says what does.
        UsageError: They can't be in one engine, or the backend builds for the GPU that is here alone.
    """
    if backend is not BackendName.RTX:
        if capabilities:
            raise UsageError(
                "TensorRT builds for the GPU that it runs on; leave --sm out, and build on a machine that has the GPU."
            )
        return ()
    targets = tuple(sorted(set(capabilities or _DEFAULT_RTX)))
    for capability in targets:
        if capability not in RTX_CAPABILITIES:
            raise UnavailableError(_instead(capability))
    if TURING in targets and len(targets) > 1:
        raise UsageError(
            "An engine for Turing (75) and other GPUs at once computes its convolutions in float; build two: one with "
            f"--sm {TURING}, one with --sm {','.join(str(target) for target in targets if target != TURING)}."
        )
    return targets


def _instead(capability: int) -> str:
    compiles = f"TensorRT for RTX compiles for {', '.join(map(str, RTX_CAPABILITIES))}, not for {capability}"
    if capability in _JETSON:
        return (
            f"{compiles}, a Jetson; deploy the ONNX file and let the device build its engine, with "
            "`rexport engine --backend tensorrt` there."
        )
    if capability >= _HOPPER and capability // 10 in (9, 10):
        return f"{compiles}, a data-center GPU; build there with `rexport engine --backend tensorrt`."
    return f"{compiles}; name one of these with --sm, or build with --backend tensorrt where the GPU is."
