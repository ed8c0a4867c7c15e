"""rexport takes a residual network from PyTorch to the device.

The ``rexport`` command from Python, each part loaded when it is first used::

    import rexport

    network = rexport.build("cifar_resnet20", weights="cifar_resnet20.th")
    exported = rexport.export(network, preprocessing=rexport.Preprocessing(size=32))
    rexport.save(exported.model, Path("model.onnx"))
    result = rexport.quantize("model.onnx", data="calibration", output="int8.onnx")
    print(result.proof)

The steps of that last line on graphs in memory are ``fuse``, ``calibrate``, ``recover`` and
``rexport.quantization.quantize``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from rexport._lazy import lazy

if TYPE_CHECKING:
    from rexport._cpu import this_cpu
    from rexport._version import __version__
    from rexport.benchmarks import bench
    from rexport.calibration import CalibrationTable, Calibrator, calibrate, calibrate_dataset, open_dataset
    from rexport.evaluation import Classifier, ClassifierFile
    from rexport.evaluation.evaluate import evaluate
    from rexport.exporting import export
    from rexport.inspection import inspect_file
    from rexport.jobs.quantize import quantize_file as quantize
    from rexport.model_file import Head, Metadata, load, save
    from rexport.models import build
    from rexport.passes import fuse
    from rexport.preprocessing import Preprocessing
    from rexport.quantization import Recovered, Target, recover, target_for
    from rexport.runtimes import open_runtime
    from rexport.runtimes.source import Source
    from rexport.training import fake_quantize
    from rexport.tuning import Exam, mix_precision, regroup

__all__ = [
    "CalibrationTable",
    "Calibrator",
    "Classifier",
    "ClassifierFile",
    "DataError",
    "Exam",
    "GateError",
    "Head",
    "InputError",
    "Metadata",
    "ModelFileError",
    "OutputError",
    "Preprocessing",
    "Recovered",
    "RexportError",
    "Source",
    "Target",
    "UnavailableError",
    "UsageError",
    "VerificationError",
    "WeightsError",
    "__version__",
    "bench",
    "build",
    "calibrate",
    "calibrate_dataset",
    "evaluate",
    "export",
    "fake_quantize",
    "fuse",
    "inspect_file",
    "load",
    "mix_precision",
    "open_dataset",
    "open_runtime",
    "quantize",
    "recover",
    "regroup",
    "save",
    "target_for",
    "this_cpu",
]

_HOMES = {
    "__version__": "_version",
    "CalibrationTable": "calibration",
    "Calibrator": "calibration",
    "Classifier": "evaluation",
    "ClassifierFile": "evaluation",
    "Exam": "tuning",
    "Head": "model_file",
    "Metadata": "model_file",
    "Preprocessing": "preprocessing",
    "Recovered": "quantization",
    "Source": "runtimes.source",
    "Target": "quantization",
    "bench": "benchmarks",
    "build": "models",
    "calibrate": "calibration",
    "calibrate_dataset": "calibration",
    "evaluate": "evaluation",
    "export": "exporting",
    "fake_quantize": "training",
    "fuse": "passes",
    "inspect_file": "inspection",
    "load": "model_file",
    "mix_precision": "tuning",
    "open_dataset": "calibration",
    "open_runtime": "runtimes",
    "quantize": "jobs.quantize:quantize_file",
    "recover": "quantization",
    "regroup": "tuning",
    "save": "model_file",
    "target_for": "quantization",
    "this_cpu": "_cpu",
}

__getattr__, __dir__ = lazy(__name__, __all__, _HOMES)
