"""``rexport quickstart``: the whole way on real handwritten digits, in a minute or two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rexport.cli._options import Json
from rexport.cli._paths import WRITE

if TYPE_CHECKING:
    import numpy as np
    import torch

    from rexport.benchmarks import BenchResult
    from rexport.evaluation import Evaluation
    from rexport.preprocessing import Preprocessing

__all__ = ["quickstart"]

_NETWORK = "cifar_resnet8"
_HELD_OUT = 360
_SEED = 0
_CALIBRATION_IMAGES = 512
_RECOVERY_IMAGES = 128  # as `rexport quantize` looks at
_LEAST_TOP1 = 0.97
_MOST_DROP = 0.005


def quickstart(
    folder: Annotated[Path, WRITE, typer.Option("--dir", help="Where the files go.")] = Path("rexport-quickstart"),
    as_json: Json = False,
) -> None:
    """Train a small ResNet on real handwritten digits, export, fuse, quantize, evaluate and measure it.

    The digits are scikit-learn's: nothing is downloaded. Everything is seeded, so every run on a machine gives the
    same network. If the INT8 file loses more than half a point of accuracy, the exit code is 4.
    """
    from rexport._errors import GateError, OutputError
    from rexport.cli._console import print_json

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} can't be made: {error.strerror}; choose another with --dir.") from error
    say = _Steps(quiet=as_json)
    files = _Files(folder)
    module, preprocessing = _train(files, say)
    _convert(files, module, preprocessing, say)
    evaluations = _evaluate(files, preprocessing, say)
    speeds = _measure(files, say)
    say.total()

    rows = _rows(files, evaluations, speeds)
    if as_json:
        print_json({"schema": "rexport.quickstart/1", "folder": str(folder), "seconds": say.seconds, "rows": rows})
    else:
        _print(files, rows)
    float_top1, int8_top1 = rows[0]["top1"], rows[-1]["top1"]
    if float_top1 < _LEAST_TOP1 or float_top1 - int8_top1 > _MOST_DROP:
        raise GateError(
            f"Top-1 is {100 * float_top1:.2f} % in float and {100 * int8_top1:.2f} % in INT8; expected at least "
            f"{100 * _LEAST_TOP1:.0f} % and a loss of at most {100 * _MOST_DROP} points. Please report this."
        )


@dataclass(frozen=True)
class _Files:
    folder: Path

    @property
    def digits(self) -> Path:
        return self.folder / "digits"

    @property
    def weights(self) -> Path:
        return self.folder / f"{_NETWORK}.safetensors"

    @property
    def fp32(self) -> Path:
        return self.folder / f"{_NETWORK}.onnx"

    @property
    def int8(self) -> Path:
        return self.folder / f"{_NETWORK}.int8.onnx"


class _Steps:
    """Says on stderr what was done and how long it took."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._start = self._last = perf_counter()

    def done(self, what: str) -> None:
        from rexport.cli._console import say

        now = perf_counter()
        if not self._quiet:
            say(f"{now - self._last:5.1f} s  {what}")
        self._last = now

    def total(self) -> None:
        self._last = self._start
        self.done("in all")

    @property
    def seconds(self) -> float:
        return perf_counter() - self._start


def _train(files: _Files, say: _Steps) -> tuple[torch.nn.Module, Preprocessing]:
    from rexport._errors import UnavailableError
    from rexport.cli._console import progress

    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UnavailableError(
            "The digits come with scikit-learn, which is not installed: pip install 'rexport[quickstart]'."
        ) from error
    import numpy as np
    import torch

    from rexport._cpu import this_cpu
    from rexport.models import build, find
    from rexport.models.weights_facts import WeightsFacts, save_weights
    from rexport.preprocessing import Preprocessing
    from rexport.training import OneCycleRecipe, PicturesInMemory, train

    preprocessing = Preprocessing(size=find(_NETWORK).input_size)
    digits = load_digits()
    pixels = _upscale(digits.images, preprocessing.size)
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(_SEED).permutation(len(labels))
    parts = {"train": order[:-_HELD_OUT], "test": order[-_HELD_OUT:]}
    _write_pictures(files.digits, pixels, labels, parts)
    say.done(f"{len(labels)} handwritten digits, {_HELD_OUT} of them held out")

    torch.set_num_threads(this_cpu().cores)
    module = build(_NETWORK, seed=_SEED)
    recipe = OneCycleRecipe(epochs=8, learning_rate=0.2, seed=_SEED)
    chosen = parts["train"]
    train(module, PicturesInMemory(pixels[chosen], labels[chosen], preprocessing), recipe=recipe, progress=progress)
    save_weights(module, files.weights, WeightsFacts(preprocessing=preprocessing, classes=tuple(map(str, range(10)))))
    say.done(f"trained {_NETWORK} for {recipe.epochs} epochs")
    return module, preprocessing


def _convert(files: _Files, module: torch.nn.Module, preprocessing: Preprocessing, say: _Steps) -> None:
    from rexport._cpu import this_cpu
    from rexport.cli._console import progress
    from rexport.exporting import export
    from rexport.jobs.quantize import QuantizeRequest, run
    from rexport.model_file import save
    from rexport.quantization import target_for

    with progress("exporting", None):
        exported = export(
            module, preprocessing=preprocessing, network=_NETWORK, classes=[str(digit) for digit in range(10)]
        )
        save(exported.model, files.fp32)
    fused = {report.name: report.changed for report in exported.reports}
    say.done(
        f"exported, {fused['FuseConvBatchNorm']} BatchNormalizations fused, equal to PyTorch within "
        f"{exported.parity.difference:.0e}"
    )
    request = QuantizeRequest(
        model=files.fp32,
        output=files.int8,
        target=target_for("x86", this_cpu()),
        data=files.digits / "train",
        samples=_CALIBRATION_IMAGES,
        batch=32,
    )
    result = run(request, progress=progress)
    integer = sum(layer.precision == "int8" for layer in result.layers)
    assert result.proof is not None
    say.done(
        f"quantized {integer} of {len(result.layers)} layers to INT8 on {result.table.images} images, "
        f"{result.recovery.recovered}"
    )
    say.done(f"the INT8 file is {result.proof.verdict}: {result.proof}")


def _evaluate(files: _Files, preprocessing: Preprocessing, say: _Steps) -> dict[str, Evaluation]:
    from rexport.calibration import open_dataset
    from rexport.cli._console import progress
    from rexport.evaluation import evaluate
    from rexport.runtimes import open_runtime
    from rexport.runtimes.source import Source

    dataset = open_dataset(files.digits / "test", preprocessing)
    results = {}
    sources = {
        "torch": Source(network=_NETWORK, weights=files.weights),
        "fp32": Source(path=files.fp32),
        "int8": Source(path=files.int8),
    }
    for name, source in sources.items():
        with (
            open_runtime("cpu" if source.path else "torch", source) as runtime,
            open_runtime("cpu", sources["fp32"]) as reference,
        ):
            results[name] = evaluate(runtime, dataset, reference=reference, progress=progress)
    say.done(f"evaluated on the {len(dataset)} held-out digits")
    return results


def _measure(files: _Files, say: _Steps) -> BenchResult:
    from rexport.benchmarks import bench
    from rexport.cli._console import progress
    from rexport.runtimes.source import Source

    result = bench(
        [Source(network=_NETWORK, weights=files.weights), files.fp32, files.int8],
        batches=(1, 32),
        min_seconds=1.0,
        launches=1,
        progress=progress,
    )
    say.done("measured, each model in a process of its own, in turns")
    return result


def _rows(files: _Files, evaluations: dict[str, Evaluation], speeds: BenchResult) -> list[dict[str, Any]]:
    measured = {(row.model, row.batch): row for row in speeds.measured}
    rows = []
    for name, file, model in (
        ("torch", files.weights, _NETWORK),
        ("fp32", files.fp32, str(files.fp32)),
        ("int8", files.int8, str(files.int8)),
    ):
        evaluation = evaluations[name]
        assert evaluation.comparison is not None
        one, many = measured[model, 1], measured[model, 32]
        rows.append(
            {
                "model": name,
                "file": str(file),
                "bytes": file.stat().st_size,
                "top1": evaluation.top1,
                "agreement": evaluation.comparison.agreement,
                "latency_ms_batch1": one.latency_ms["p50"],
                "images_per_second_batch32": many.images_per_second,
                "speedup_batch32": many.speedup,
            }
        )
    return rows


def _print(files: _Files, rows: list[dict[str, Any]]) -> None:
    from rexport.cli._console import print_table
    from rexport.cli._reports import percent

    names = {"torch": "PyTorch, eager", "fp32": "ONNX FP32, fused", "int8": "ONNX INT8"}
    print_table(
        ["model", "size KiB", "top-1", "same as FP32", "ms at batch 1", "img/s at batch 32", "speed-up"],
        [
            [
                names[row["model"]],
                f"{row['bytes'] / 1024:.0f}",
                percent(row["top1"]),
                percent(row["agreement"]),
                f"{row['latency_ms_batch1']:.2f}",
                f"{row['images_per_second_batch32']:.0f}",
                f"{row['speedup_batch32']:.2f} ×",
            ]
            for row in rows
        ],
    )
    print(f"weights   {files.weights}")
    print(f"FP32      {files.fp32}")
    print(f"INT8      {files.int8}")
    print(f"pictures  {files.digits}/train and {files.digits}/test")
    print(f"next: rexport eval {files.int8} --data {files.digits / 'test'} --reference {files.fp32}")


def _upscale(images: np.ndarray, size: int) -> np.ndarray:
    """Turn 8×8 digits of 0 … 16 into RGB pictures, uint8 of shape ``(count, size, size, 3)``."""
    import numpy as np
    from PIL import Image

    grey = (images * (255 / 16)).round().astype(np.uint8)
    bicubic = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(one).resize((size, size), bicubic).convert("RGB")) for one in grey])


def _write_pictures(folder: Path, pixels: np.ndarray, labels: np.ndarray, parts: dict[str, np.ndarray]) -> None:
    from PIL import Image

    for part, indices in parts.items():
        for index in indices:
            target = folder / part / str(labels[index]) / f"{index:04d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[index]).save(target, compress_level=1)
