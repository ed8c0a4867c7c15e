"""What a GPU makes of a network: parity, accuracy and speed, in every precision, on everything that runs there.

    python -m benchmarks.studies.gpu --data DIR [--json benchmarks/results/GPU.json]

DIR has labelled pictures, calibrated from and judged on, a folder per class. The network is exported, proven equal to
PyTorch, converted to float16 and quantized for TensorRT; engines are built of all three. Then each file is evaluated
on each runtime against ONNX Runtime's CPU provider, and measured by ``rexport bench``, its runtimes interleaved. Rows
of fp32 are float32 as such (``NVIDIA_TF32_OVERRIDE=0``), those of tf32 the same file with TensorFloat-32. What can't
run has a row that says why; if nothing can, the exit code is 5. Not run on a GPU yet.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.studies._commands import REXPORT, last_line
from benchmarks.studies._gpu_facts import gpu_facts
from benchmarks.studies._results import JsonFile, write_results
from rexport.benchmarks.suite import bench
from rexport.runtimes import NETWORK_RUNTIMES
from rexport.runtimes.probes import probe_all
from rexport.runtimes.source import Source

__all__ = ["PRECISIONS", "RUNTIMES", "main"]

PRECISIONS = ("fp32", "tf32", "fp16", "int8")
RUNTIMES = {
    "torch-cuda": "torch-cuda",
    "torch-compile-cuda": "torch-cuda",
    "cuda": "cuda",
    "tensorrt": "tensorrt",
    "tensorrt-engine": "tensorrt-engine",
    "tensorrt-rtx-engine": "tensorrt-rtx-engine",
}
"""What runs on a GPU, and the probe that says whether it does."""
_BACKENDS = {"tensorrt-engine": "tensorrt", "tensorrt-rtx-engine": "rtx"}
_NOTHING_USABLE = 5
_IN_FLOAT32 = "It computes float32 without TensorFloat-32."
_NOT_DONE = {
    ("torch-cuda", "tf32"): _IN_FLOAT32,
    ("torch-compile-cuda", "tf32"): _IN_FLOAT32,
    ("cuda", "tf32"): _IN_FLOAT32,
    ("torch-cuda", "fp16"): "It runs a network in float32.",
    ("torch-compile-cuda", "fp16"): "It runs a network in float32.",
    ("torch-cuda", "int8"): "It runs float networks.",
    ("torch-compile-cuda", "int8"): "It runs float networks.",
    ("cuda", "int8"): "The CUDA provider has no INT8 convolutions.",
}
_TF32 = "NVIDIA_TF32_OVERRIDE"


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A precision on a runtime: the file that it runs, or the reason why it can't."""

    precision: str
    runtime: str
    file: str
    reason: str | None

    def to_json(self, **keys: Any) -> dict[str, Any]:
        row = {"precision": self.precision, "runtime": self.runtime}
        if self.reason is not None:
            row |= {"status": "unavailable", "reason": self.reason}
        return {**row, **keys}


def main(
    data: Annotated[Path, typer.Option(help="Labelled pictures, a folder per class.", exists=True, file_okay=False)],
    network: Annotated[str, typer.Option(help="A network.")] = "resnet50",
    weights: Annotated[
        Path | None, typer.Option(help="Its weights; without them, accuracy means nothing.", exists=True)
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8,32",
    samples: Annotated[int, typer.Option(min=1, help="Pictures to calibrate from, and to be judged on.")] = 256,
    min_seconds: Annotated[float, typer.Option(min=0, help="The least time to measure each row.")] = 5.0,
    json_file: JsonFile = None,
) -> None:
    """Measure this machine's GPU."""
    facts = gpu_facts()
    print(facts["name"] or "No NVIDIA GPU")
    why_not = _why_not()
    usable = any(reason is None for reason in why_not.values())
    parity, accuracy, rows = None, [], [cell.to_json() for cell in _planned(why_not, {})]
    if usable:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            file_names = {cell.file for cell in _planned(why_not, {}) if cell.reason is None}
            parity, refused = _make_files(folder, file_names, network, weights, data.resolve(), samples)
            cells = _planned(why_not, refused)
            accuracy = [_evaluated(folder, cell, data.resolve(), samples) for cell in cells]
            rows = _measured(folder, cells, [int(size) for size in batch.split(",")], min_seconds)
    for row in rows:
        print(_in_words(row))
    write_results(json_file, "gpu", gpu=facts, network=network, parity=parity, accuracy=accuracy, rows=rows)
    if not usable:
        raise typer.Exit(_NOTHING_USABLE)


def _why_not() -> dict[str, str | None]:
    """Return why each runtime can't be used here, and ``None`` for those that can."""
    names = list(dict.fromkeys(RUNTIMES.values()))
    probes = dict(zip(names, probe_all(names), strict=True))
    return {
        runtime: None if probes[name].usable else f"{probes[name].reason} To use it: {probes[name].advice}"
        for runtime, name in RUNTIMES.items()
    }


def _planned(why_not: dict[str, str | None], refused: dict[str, str]) -> list[_Cell]:
    """Return all precisions on all runtimes; ``refused`` says of files why they were not made."""
    cells = []
    for precision in PRECISIONS:
        for runtime in RUNTIMES:
            stem = precision.replace("tf32", "fp32")
            file = f"{stem}-{_BACKENDS[runtime]}.engine" if runtime in _BACKENDS else f"{stem}.onnx"
            reason = _NOT_DONE.get((runtime, precision)) or why_not[runtime] or refused.get(file)
            cells.append(_Cell(precision=precision, runtime=runtime, file=file, reason=reason))
    return cells


def _make_files(
    folder: Path, file_names: set[str], network: str, weights: Path | None, data: Path, samples: int
) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """Write the files that are wanted, and those that they are made of.

    Returns:
        The proof that the export is equal to PyTorch, and why files could not be made.
    """
    refused: dict[str, str] = {}
    stems = {file.removesuffix(".onnx").partition("-")[0] for file in file_names}

    def make(file: str, *arguments: str) -> dict[str, Any] | None:
        document, reason = _rexport(*arguments, "-o", file, cwd=folder)
        if reason is not None:
            refused[file] = reason
        return document

    stored = ("--weights", str(weights.resolve())) if weights else ()
    exported = make("fp32.onnx", "onnx", network, *stored)
    if "fp16" in stems:
        make("fp16.onnx", "onnx", network, *stored, "--precision", "fp16")
    if "int8" in stems:
        calibration = ("--data", str(data), "--samples", str(samples))
        make("int8.onnx", "quantize", "fp32.onnx", *calibration, "--target", "tensorrt")
    for backend in _BACKENDS.values():
        for stem in sorted(stem for stem in stems if f"{stem}-{backend}.engine" in file_names):
            make(f"{stem}-{backend}.engine", "engine", f"{stem}.onnx", "--backend", backend, "--batch", "1:8:64")
    return exported and exported["parity"], refused


def _rexport(*arguments: str, cwd: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Run ``rexport`` and return its document, or why there is none."""
    finished = subprocess.run([*REXPORT, *arguments, "--json"], cwd=cwd, capture_output=True, text=True)
    if finished.returncode:
        return None, last_line(finished).removeprefix("error: ")
    document: dict[str, Any] = json.loads(finished.stdout)
    return document, None


def _evaluated(folder: Path, cell: _Cell, data: Path, samples: int) -> dict[str, Any]:
    """Return the accuracy of a file on a runtime, and how closely it follows float32 on the CPU."""
    if cell.reason is not None:
        return cell.to_json()
    if cell.runtime in NETWORK_RUNTIMES:
        return cell.to_json(status="unavailable", reason="It runs the network that the file was proven equal to.")
    with _tensor_float(allowed=cell.precision != "fp32"):
        document, why = _rexport(
            *("eval", cell.file, "--data", str(data), "--samples", str(samples)),
            *("--on", cell.runtime, "--reference", "fp32.onnx"),
            cwd=folder,
        )
    if document is None:
        return cell.to_json(status="failed", reason=why)
    kept = ("images", "top1", "top1_interval", "reference_top1", "agreement", "sqnr_db")
    return cell.to_json(status="ok", **{key: document.get(key) for key in kept})


def _measured(folder: Path, cells: list[_Cell], batches: list[int], min_seconds: float) -> list[dict[str, Any]]:
    """Measure what can be; speed-ups are over the first row of the same file and batch."""
    rows: dict[_Cell, list[dict[str, Any]]] = {}
    for strict in (True, False):
        part = [cell for cell in cells if (cell.precision == "fp32") is strict and cell.reason is None]
        with _tensor_float(allowed=not strict):
            for file in dict.fromkeys(cell.file for cell in part):
                of_file = [cell for cell in part if cell.file == file]
                measured = bench(
                    [Source(path=folder / file)],
                    runtimes=[cell.runtime for cell in of_file],
                    batches=batches,
                    min_seconds=min_seconds,
                    timeout=900.0,  # an engine of ONNX Runtime's is built at the first call
                )
                for cell in of_file:
                    own_rows = [row.to_json() for row in measured.rows if row.runtime == cell.runtime]
                    rows[cell] = [cell.to_json(**_without_folder(row, folder)) for row in own_rows]
    return [row for cell in cells for row in rows.get(cell, [cell.to_json()])]


def _without_folder(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a row that names files without the temporary folder that they were in."""
    return {
        key: value.replace(f"{folder}{os.sep}", "") if isinstance(value, str) else value for key, value in row.items()
    }


@contextmanager
def _tensor_float(*, allowed: bool) -> Iterator[None]:
    """Let processes that start meanwhile compute float32 in TensorFloat-32, or not."""
    before = os.environ.pop(_TF32, None)
    try:
        if not allowed:
            os.environ[_TF32] = "0"
        yield
    finally:
        os.environ.pop(_TF32, None)
        if before is not None:
            os.environ[_TF32] = before


def _in_words(row: dict[str, Any]) -> str:
    subject = f"{row['precision']:5} {row['runtime']:20}"
    if row["status"] != "ok":
        return f"{subject} {row['reason']}"
    return f"{subject} batch {row['batch']:3}: {row['images_per_second']:.0f} images/s"


if __name__ == "__main__":
    typer.run(main)
