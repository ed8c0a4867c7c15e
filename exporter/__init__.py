"""rexport takes a residual network from PyTorch to the device.

The steps of the ``rexport`` command from Python, each loaded when it is first used::

    import rexport

    preprocessing = rexport.Preprocessing(size=32)
    network = rexport.build("cifar_resnet20", weights="cifar_resnet20.th")
    model = rexport.export(network, preprocessing=preprocessing).model
    images = rexport.open_dataset(Path("calibration"), preprocessing)
    table = rexport.calibrate(model, (batch.images for batch in images.batches(16)))
    int8 = rexport.quantize(model, table, target=rexport.target_for("x86")).model
    rexport.save(int8, Path("cifar_resnet20.int8.onnx"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rexport._errors import (
    DataError,
    GateError,
    InputError,
    ModelFileError,
    OutputError,
    RexportError,
    UnavailableError,
    UsageError,
    VerificationError,
    WeightsError,
)

if TYPE_CHECKING:
    from rexport.benchmarks import bench
    from rexport.calibration import CalibrationTable, calibrate, open_dataset
    from rexport.evaluation import evaluate
    from rexport.exporting import export
    from rexport.model_file import Head, Metadata, load, save
    from rexport.models import build
    from rexport.passes import fuse
    from rexport.preprocessing import Preprocessing
    from rexport.quantization import Target, quantize, target_for
    from rexport.runtimes import open_runtime
    from rexport.runtimes.source import Source
    from rexport.tuning import regroup

__all__ = [
    "CalibrationTable",
    "DataError",
    "GateError",
    "Head",
    "InputError",
    "Metadata",
    "ModelFileError",
    "OutputError",
    "Preprocessing",
    "RexportError",
    "Source",
    "Target",
    "UnavailableError",
    "UsageError",
    "VerificationError",
    "WeightsError",
    "bench",
    "build",
    "calibrate",
    "evaluate",
    "export",
    "fuse",
    "load",
    "open_dataset",
    "open_runtime",
    "quantize",
    "regroup",
    "save",
    "target_for",
]

_HOMES = {
    "CalibrationTable": "calibration",
    "Head": "model_file",
    "Metadata": "model_file",
    "Preprocessing": "preprocessing",
    "Source": "runtimes.source",
    "Target": "quantization",
    "bench": "benchmarks",
    "build": "models",
    "calibrate": "calibration",
    "evaluate": "evaluation",
    "export": "exporting",
    "fuse": "passes",
    "load": "model_file",
    "open_dataset": "calibration",
    "open_runtime": "runtimes",
    "quantize": "quantization",
    "regroup": "tuning",
    "save": "model_file",
    "target_for": "quantization",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
