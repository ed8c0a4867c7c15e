"""The quickstart: a small ResNet trained on real handwritten digits, exported, quantized, evaluated and measured.

The digits are scikit-learn's, so nothing is downloaded. All is seeded: every run on a machine gives the same network.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rexport._apart import WRITE
from rexport._cpu import this_cpu
from rexport._errors import GateError, InputError, OutputError, UnavailableError
from rexport._progress import Note, Progress, silent, unsaid
from rexport.benchmarks import reports
from rexport.jobs import bench, evaluate, export, quantize, train
from rexport.model_file import load
from rexport.models import find, read_state_dict
from rexport.quantization import target_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rexport.benchmarks import Row
    from rexport.evaluation import Evaluation

__all__ = ["QuickstartRequest", "QuickstartResult", "QuickstartRow", "run"]

_NETWORK = "cifar_resnet8"
_HELD_OUT = 360
_SEED = 0
_EPOCHS = 8
_LEAST_TOP1 = 0.97
_MOST_DROP = 0.005


@dataclass(frozen=True, kw_only=True)
class QuickstartRequest:
    """The ``folder`` that the files go to; with ``restart``, those of an earlier run are made again."""

    folder: Path = field(default=Path("rexport-quickstart"), metadata=WRITE)
    restart: bool = False

    @property
    def digits(self) -> Path:
        """The pictures: the folders ``train`` and ``test``, with one per class."""
        return self.folder / "digits"


@dataclass(frozen=True, kw_only=True)
class QuickstartRow:
    """A model, ``torch``, ``fp32`` or ``int8``; its agreement is with ``fp32``, and its speed-up over ``torch``."""

    model: str
    file: str
    bytes: int
    top1: float | None
    agreement: float
    latency_ms_batch1: float | None
    images_per_second_batch32: float | None
    speedup_batch32: float | None


@dataclass(frozen=True, kw_only=True)
class QuickstartResult:
    """The ``rows``, one per model, how many ``seconds`` all took, and the ``report`` on speed."""

    request: QuickstartRequest
    rows: tuple[QuickstartRow, ...]
    seconds: float
    report: Path

    def to_json(self) -> dict[str, Any]:
        """Return the document ``rexport.quickstart/1``."""
        return {
            "schema": "rexport.quickstart/1",
            "folder": str(self.request.folder),
            "seconds": self.seconds,
            "report": str(self.report),
            "rows": [asdict(row) for row in self.rows],
        }

    def require(self) -> None:
        """Do nothing if the network is as good as expected, in INT8 too.

        Raises:
            GateError: It is not.
        """
        float_top1, int8_top1 = self.rows[0].top1 or 0.0, self.rows[-1].top1 or 0.0
        if float_top1 < _LEAST_TOP1 or float_top1 - int8_top1 > _MOST_DROP:
            raise GateError(
                f"Top-1 is {100 * float_top1:.2f} % in float and {100 * int8_top1:.2f} % in INT8; expected at least "
                f"{100 * _LEAST_TOP1:.0f} % and a loss of at most {100 * _MOST_DROP} points. Please report this."
            )


def run(
    request: QuickstartRequest, *, progress: Progress = silent, note: Note = unsaid, say: Note = unsaid
) -> QuickstartResult:
    """Go the whole way; files of an earlier run that are whole are not made again, and a stopped training resumes.

    Raises:
        OutputError: The folder can't be made, or written to.
        UnavailableError: scikit-learn is not installed, or a model can't be measured here.
        VerificationError: A step is not what it should be.
    """
    started = perf_counter()
    folder, digits = request.folder, request.digits
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} can't be made: {error.strerror}; choose another with --dir.") from error
    weights, fp32, int8 = (folder / f"{_NETWORK}{suffix}" for suffix in (".safetensors", ".onnx", ".int8.onnx"))
    steps = (
        _Step(weights, read_state_dict, lambda: _train(request, weights, progress, note, say)),
        _Step(fp32, load, lambda: _export(weights, fp32, progress, note, say)),
        _Step(int8, load, lambda: _quantize(fp32, digits / "train", int8, progress, note, say)),
    )
    _make(steps, restart=request.restart, say=say)
    models = (_NETWORK, str(fp32), str(int8))
    requests = [
        evaluate.EvaluateRequest(model=model, weights=trained, data=digits / "test", reference=fp32)
        for model, trained in zip(models, (weights, None, None), strict=True)
    ]
    evaluations = [
        evaluate.evaluate_classifier(request, progress=progress, note=note).evaluation for request in requests
    ]
    say(f"evaluated on the {_HELD_OUT} held-out digits")
    report, speeds = _measure(models, folder, progress, note)
    say("measured, each model in a process of its own, in turns")
    rows = map(_row, ("torch", "fp32", "int8"), (weights, fp32, int8), evaluations, speeds[:3], speeds[3:])
    return QuickstartResult(request=request, rows=tuple(rows), seconds=perf_counter() - started, report=report)


@dataclass(frozen=True)
class _Step:
    """``make`` writes the file at ``path``, which ``read`` can read if it is whole."""

    path: Path
    read: Callable[[Path], object]
    make: Callable[[], None]

    @property
    def done(self) -> bool:
        """Whether the file is there and whole."""
        try:
            self.read(self.path)
        except InputError:
            return False
        return True


def _make(steps: Sequence[_Step], *, restart: bool, say: Note) -> None:
    """Make the files from the first that is missing on, or all with ``restart``; each is made from the one before."""
    for step in steps:
        restart = restart or not step.done
        if restart:
            step.make()
        else:
            say(f"{step.path} is of an earlier run (--restart makes it again)")


def _measure(models: tuple[str, ...], folder: Path, progress: Progress, note: Note) -> tuple[Path, tuple[Row, ...]]:
    """Measure the models, and return the report: a page, or without the extra for that, a table in Markdown."""
    request = bench.BenchRequest(models=models, batches=(1, 32), min_seconds=1.0, launches=1)
    try:
        reports.require_extra()
        report = folder / "report.html"
        request = replace(request, html=report)
    except UnavailableError:
        report = folder / "report.md"
        request = replace(request, markdown=report)
    return report, bench.run(request, progress=progress, note=note).rows


def _train(request: QuickstartRequest, weights: Path, progress: Progress, note: Note, say: Note) -> None:
    """Write the digits, and the network's weights, trained on them from the last finished epoch on."""
    pixels, labels = _load_digits(find(_NETWORK).input_size)
    order = np.random.default_rng(_SEED).permutation(len(labels))
    for part, indices in (("train", order[:-_HELD_OUT]), ("test", order[-_HELD_OUT:])):
        for index in indices:
            picture = request.digits / part / str(labels[index]) / f"{index:04d}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[index]).save(picture, compress_level=1)
    say(f"{len(labels)} handwritten digits, {_HELD_OUT} of them held out")
    training = train.TrainRequest(
        network=_NETWORK,
        data=request.digits,
        output=weights,
        epochs=_EPOCHS,
        learning_rate=0.2,
        seed=_SEED,
        augment=False,  # the changes flip pictures, and a flipped digit is another
        device="cpu",
        restart=request.restart,
    )
    train.run(training, progress=progress, note=note, say=say)


def _load_digits(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return RGB pictures, uint8 of shape ``(count, size, size, 3)``, of 8×8 digits of 0 … 16, and int64 labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UnavailableError(
            "The digits come with scikit-learn, which is not installed: pip install 'rexport[quickstart]'."
        ) from error
    digits = load_digits()
    grey = (digits.images * (255 / 16)).round().astype(np.uint8)
    bicubic = Image.Resampling.BICUBIC
    pictures = [Image.fromarray(digit).resize((size, size), bicubic).convert("RGB") for digit in grey]
    return np.stack([np.asarray(picture) for picture in pictures]), digits.target.astype(np.int64)


def _export(weights: Path, output: Path, progress: Progress, note: Note, say: Note) -> None:
    request = export.ExportRequest(network=_NETWORK, weights=weights, output=output)
    exported = export.run(request, progress=progress, note=note).exported
    fused = next(report.changed for report in exported.reports if report.name == "FuseConvBatchNorm")
    say(f"exported, {fused} BatchNormalizations fused, equal to PyTorch within {exported.parity.difference:.0e}")


def _quantize(model: Path, pictures: Path, output: Path, progress: Progress, note: Note, say: Note) -> None:
    target = target_for("x86", this_cpu())
    request = quantize.QuantizeRequest(model=model, output=output, target=target, data=pictures, batch=32)
    result = quantize.run(request, progress=progress, note=note)
    integer = sum(layer.precision == "int8" for layer in result.layers)
    say(
        f"quantized {integer} of {len(result.layers)} layers to INT8 on {result.table.images} images, "
        f"{result.recovery.recovered}"
    )
    assert result.proof is not None
    say(f"the INT8 file is {result.proof.verdict}: {result.proof}")


def _row(name: str, file: Path, evaluation: Evaluation, single: Row, many: Row) -> QuickstartRow:
    for row in (single, many):
        if row.reason is not None:
            raise UnavailableError(f"{row.model} could not be measured: {row.reason}")
    assert evaluation.comparison is not None
    return QuickstartRow(
        model=name,
        file=str(file),
        bytes=file.stat().st_size,
        top1=evaluation.top1,
        agreement=evaluation.comparison.agreement,
        latency_ms_batch1=single.latency_ms.p50,
        images_per_second_batch32=many.images_per_second,
        speedup_batch32=many.speedup,
    )
