"""The machine's peak: the most multiply-accumulates per second that a runtime reaches here, measured.

    peak = max over loads of  MACs per call / median seconds of a call

The loads (see ``peak_models``) are large convolutions and matrix products, run through the runtime itself, each in a
process of its own and in turns, as models are. So the peak has what the runtime's kernels lose in it, and not what a
model's other layers do. Peaks are remembered under all that they depend on, unless other programs disturbed them: then
the fastest tenth of the calls of a load took less than 0.8 of the median, where 0.9 and more is usual.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec

from rexport._cpu import this_cpu
from rexport._errors import UnavailableError, UsageError
from rexport._files import cache_folder
from rexport._json_cache import JsonCache
from rexport._progress import silent
from rexport.benchmarks.document import Kind, Peak, PeakPrecision
from rexport.benchmarks.interleave import Failure, Timing, measure
from rexport.benchmarks.jobs import Job
from rexport.benchmarks.machine import version_of
from rexport.benchmarks.peak_models import Load
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport._progress import Progress

__all__ = ["LOADS", "PEAK_RUNTIMES", "measure_peaks"]

_SCHEMA = "rexport.peaks/1"
_SECONDS, _CALLS = 0.6, 20
_STEADY = 0.8
# What is measured, and the distributions whose versions the result depends on.
PEAK_RUNTIMES = {"cpu": ("onnxruntime", "onnxruntime-gpu"), "openvino": ("openvino",)}
LOADS = (
    Load(kind=Kind.CONVOLUTION, kernel=3, channels=64, side=56),
    Load(kind=Kind.CONVOLUTION, kernel=3, channels=128, side=28),
    Load(kind=Kind.CONVOLUTION, kernel=3, channels=256, side=14),
    Load(kind=Kind.CONVOLUTION, kernel=3, channels=512, side=14),
    Load(kind=Kind.CONVOLUTION, kernel=1, channels=512, side=28),
    Load(kind=Kind.CONVOLUTION, kernel=1, channels=1024, side=14),
    Load(kind=Kind.MATRIX_PRODUCT, channels=1024, images=1024),
    Load(kind=Kind.MATRIX_PRODUCT, channels=2048, images=1024, layers=3),
)


def measure_peaks(
    runtime: str,
    precision: PeakPrecision,
    *,
    threads: int | None = None,
    loads: Sequence[Load] = LOADS,
    path: Path | None = None,
    again: bool = False,
    progress: Progress = silent,
) -> tuple[Peak, ...]:
    """Return the peaks of a runtime on this machine, one for each kind of load.

    Args:
        runtime: ``cpu``, which is ONNX Runtime, or ``openvino``.
        precision: Of what is multiplied.
        threads: By default one per usable core.
        loads: What to measure.
        path: The file that peaks are remembered in; by default ``peaks.json`` in rexport's cache folder.
        again: Whether to measure although they are known.
        progress: Told of blocks measured.

    Raises:
        UsageError: There are no threads or loads.
        UnavailableError: The runtime has no peak, or no load runs on it.
    """
    if runtime not in PEAK_RUNTIMES:
        raise UnavailableError(f"The peak of {runtime} can't be measured; choose from {', '.join(PEAK_RUNTIMES)}.")
    if not loads or (threads is not None and threads < 1):
        raise UsageError("A peak needs at least one load and one thread.")
    cores = threads or this_cpu().cores
    cache = JsonCache(path or cache_folder() / "peaks.json", schema=_SCHEMA, check=_read)
    facts = _facts(runtime, precision, cores, loads)
    if not again and (entry := cache.find(facts)) is not None:
        return tuple(replace(peak, remembered=True) for peak in _read(entry))
    peaks = _measured(runtime, precision, cores, loads, progress)
    if all(peak.steady for peak in peaks):
        cache.keep(facts, [peak.to_json() for peak in peaks])
    return peaks


def _measured(
    runtime: str, precision: PeakPrecision, threads: int, loads: Sequence[Load], progress: Progress
) -> tuple[Peak, ...]:
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for index, load in enumerate(loads):
            file = Path(folder) / f"{index}.onnx"
            file.write_bytes(load.to_model(precision))
            jobs.append(Job(source=Source(path=file), runtime=runtime, shape=load.shape, threads=threads))
        outcomes = measure(jobs, min_seconds=_SECONDS, min_calls=_CALLS, progress=progress)
    best: dict[Kind, Peak] = {}
    for load, outcome in zip(loads, outcomes, strict=True):
        if not isinstance(outcome, Timing):
            continue
        seconds = sorted(second for block in outcome.rounds for second in block)
        speed = load.macs / median(seconds) / 1e9
        if load.kind not in best or speed > best[load.kind].gmacs_per_second:
            best[load.kind] = Peak(
                runtime=runtime,
                precision=precision,
                kind=load.kind,
                threads=threads,
                gmacs_per_second=speed,
                load=str(load),
                steady=seconds[len(seconds) // 10] >= _STEADY * median(seconds),
            )
    if not best:
        (reason, *_) = (outcome.reason for outcome in outcomes if isinstance(outcome, Failure))
        raise UnavailableError(f"The peak of {runtime} can't be measured: {reason}")
    return tuple(best.values())


def _facts(runtime: str, precision: PeakPrecision, threads: int, loads: Sequence[Load]) -> dict[str, Any]:
    cpu = this_cpu()
    versions = (f"{name} {version}" for name in PEAK_RUNTIMES[runtime] if (version := version_of(name)))
    return {
        "runtime": runtime,
        "version": next(versions, None),
        "precision": precision,
        "threads": threads,
        "cores": cpu.cores,
        "cpu": f"{cpu.name}, {cpu.architecture}, {cpu.int8}",
        "loads": [load.to_json() for load in loads],
    }


def _read(entry: object) -> tuple[Peak, ...]:
    """Return the peaks that were kept; a ``ValueError`` if there are none."""
    try:
        peaks = msgspec.convert(entry, tuple[Peak, ...])
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    if not peaks:
        raise ValueError("no peaks")
    return peaks
