"""One calibration in a process of its own, or what it is compared with; prints its seconds and memory as JSON.

python -m benchmarks.studies._calibrate bare|rexport|onnxruntime|onnxruntime-2048 MODEL.onnx DATA SAMPLES
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rexport._cpu import this_cpu
from rexport.calibration import Calibrator, calibrate_dataset, choose_range, open_dataset
from rexport.calibration.workers import LocalWorkers
from rexport.model_file import Metadata, load, to_bytes
from rexport.model_inputs import image_input
from rexport.runtimes.onnxruntime import open_session

__all__ = ["main"]

_BATCH = 4


def main(work: str, model: Path, data: Path, samples: int) -> None:
    """Do it and print what it took."""
    start = time.perf_counter()
    works: dict[str, Callable[[Path, Path, int], None]] = {
        "bare": _run,
        "rexport": _calibrate,
        "onnxruntime": partial(_calibrate_with_onnxruntime, bins=128),  # its default
        "onnxruntime-2048": partial(_calibrate_with_onnxruntime, bins=2048),
    }
    works[work](model, data, samples)
    print(json.dumps({"seconds": time.perf_counter() - start, "peak_memory_mib": _peak_memory_mib()}))


def _batches(model: Path, data: Path, samples: int) -> Iterator[np.ndarray]:
    preprocessing = Metadata.of(load(model)).preprocessing
    assert preprocessing is not None
    return (batch.images for batch in open_dataset(data, preprocessing).batches(_BATCH, samples=samples))


def _run(model: Path, data: Path, samples: int) -> None:
    loaded = load(model)
    session, name = open_session(to_bytes(loaded)), image_input(loaded).name
    for images in _batches(model, data, samples):
        session.run(None, {name: images})


def _calibrate(model: Path, data: Path, samples: int) -> None:
    loaded = load(model)
    preprocessing = Metadata.of(loaded).preprocessing
    assert preprocessing is not None
    with TemporaryDirectory() as folder:
        table = calibrate_dataset(
            loaded,
            open_dataset(data, preprocessing),
            batch=_BATCH,
            samples=samples,
            workers=LocalWorkers(threads=this_cpu().cores),
            checkpoints=Path(folder),
        ).table
    for tensor in table.tensors.values():
        choose_range(tensor, Calibrator.ENTROPY, steps=255, symmetric=False)


def _calibrate_with_onnxruntime(model: Path, data: Path, samples: int, *, bins: int) -> None:
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import CalibrationDataReader, create_calibrator

    batches, name = _batches(model, data, samples), image_input(load(model)).name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({name: images} for images in batches), None)

    with TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            str(model),
            augmented_model_path=f"{folder}/augmented.onnx",
            calibrate_method=CalibrationMethod.Entropy,
            extra_options={"num_bins": bins},
        )
        calibrator.collect_data(Reader())
        calibrator.compute_data()


def _peak_memory_mib() -> float:
    # not ru_maxrss, which in a child starts at the size of its parent
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) / 1024


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
