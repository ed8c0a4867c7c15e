"""rexport takes a residual network from PyTorch to the device.

The commands from Python, as functions that take texts or paths::

    import rexport

    rexport.export("cifar_resnet20", weights="best.safetensors", output="model.onnx")
    rexport.quantize("model.onnx", data="pictures", output="int8.onnx")
    print(rexport.evaluate("int8.onnx", data="test", reference="model.onnx"))

``rexport.export`` takes a ``torch.nn.Module`` too. The steps below them, on graphs in memory, are in the packages:
``rexport.exporting.export``, ``rexport.passes.fuse``, ``rexport.calibration.calibrate``,
``rexport.quantization.recover`` and ``quantize``, ``rexport.evaluation.evaluate``, ``rexport.benchmarks.bench``.
Each name is loaded when it is first used.
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
    from rexport._progress import progress_bar
    from rexport._version import __version__
    from rexport.calibration import CalibrationTable, Calibrator, calibrate, calibrate_dataset, open_dataset
    from rexport.evaluation import Classifier, ClassifierFile
    from rexport.functions import (
        bench,
        build_engine,
        bundle,
        deploy_bundle,
        evaluate,
        export,
        fuse,
        predict,
        quantize,
        train,
        tune,
    )
    from rexport.inspection import inspect_file
    from rexport.jobs.bench import BenchReport
    from rexport.jobs.bundle import BundleResult
    from rexport.jobs.deploy import DeployResult
    from rexport.jobs.engine import EngineResult
    from rexport.jobs.evaluate import EvaluateResult
    from rexport.jobs.evaluate_outputs import OutputsResult
    from rexport.jobs.export import ExportReport
    from rexport.jobs.fuse import FuseResult
    from rexport.jobs.predict import PredictResult
    from rexport.jobs.quantize import QuantizeResult
    from rexport.jobs.train import TrainResult
    from rexport.jobs.tune import TuneResult
    from rexport.model_file import Head, Metadata, load, save
    from rexport.models import build
    from rexport.preprocessing import PictureOptions, Preprocessing
    from rexport.quantization import Recovered, Target, recover, target_for
    from rexport.runtimes import open_runtime
    from rexport.runtimes.source import Source
    from rexport.training import fake_quantize
    from rexport.tuning import Exam, mix_precision, regroup

__all__ = [
    "BenchReport",
    "BundleResult",
    "CalibrationTable",
    "Calibrator",
    "Classifier",
    "ClassifierFile",
    "DataError",
    "DeployResult",
    "EngineResult",
    "EvaluateResult",
    "Exam",
    "ExportReport",
    "FuseResult",
    "GateError",
    "Head",
    "InputError",
    "Metadata",
    "ModelFileError",
    "OutputError",
    "OutputsResult",
    "PictureOptions",
    "PredictResult",
    "Preprocessing",
    "QuantizeResult",
    "Recovered",
    "RexportError",
    "Source",
    "Target",
    "TrainResult",
    "TuneResult",
    "UnavailableError",
    "UsageError",
    "VerificationError",
    "WeightsError",
    "__version__",
    "bench",
    "build",
    "build_engine",
    "bundle",
    "calibrate",
    "calibrate_dataset",
    "deploy_bundle",
    "evaluate",
    "export",
    "fake_quantize",
    "fuse",
    "inspect_file",
    "load",
    "mix_precision",
    "open_dataset",
    "open_runtime",
    "predict",
    "progress_bar",
    "quantize",
    "recover",
    "regroup",
    "save",
    "target_for",
    "this_cpu",
    "train",
    "tune",
]

_HOMES = {
    "BenchReport": "jobs.bench",
    "BundleResult": "jobs.bundle",
    "CalibrationTable": "calibration",
    "Calibrator": "calibration",
    "Classifier": "evaluation",
    "ClassifierFile": "evaluation",
    "DeployResult": "jobs.deploy",
    "EngineResult": "jobs.engine",
    "EvaluateResult": "jobs.evaluate",
    "Exam": "tuning",
    "ExportReport": "jobs.export",
    "FuseResult": "jobs.fuse",
    "Head": "model_file",
    "Metadata": "model_file",
    "OutputsResult": "jobs.evaluate_outputs",
    "PictureOptions": "preprocessing",
    "PredictResult": "jobs.predict",
    "Preprocessing": "preprocessing",
    "QuantizeResult": "jobs.quantize",
    "Recovered": "quantization",
    "Source": "runtimes.source",
    "Target": "quantization",
    "TrainResult": "jobs.train",
    "TuneResult": "jobs.tune",
    "__version__": "_version",
    "bench": "functions",
    "build": "models",
    "build_engine": "functions",
    "bundle": "functions",
    "calibrate": "calibration",
    "calibrate_dataset": "calibration",
    "deploy_bundle": "functions",
    "evaluate": "functions",
    "export": "functions",
    "fake_quantize": "training",
    "fuse": "functions",
    "inspect_file": "inspection",
    "load": "model_file",
    "mix_precision": "tuning",
    "open_dataset": "calibration",
    "open_runtime": "runtimes",
    "predict": "functions",
    "progress_bar": "_progress",
    "quantize": "functions",
    "recover": "quantization",
    "regroup": "tuning",
    "save": "model_file",
    "target_for": "quantization",
    "this_cpu": "_cpu",
    "train": "functions",
    "tune": "functions",
}

__getattr__, __dir__ = lazy(__name__, __all__, _HOMES)
