"""The package's surface: public names, versions, what is installed, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import rexport

_ROOT = Path(__file__).parents[1]


def test_public_names() -> None:
    assert sorted(rexport.__all__) == [
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


def test_every_public_name_is_there() -> None:
    for name in set(rexport.__all__) - {"__version__"}:
        assert callable(getattr(rexport, name)), name
    assert rexport.__version__ == version("rexport")


def test_importing_the_parts_does_not_shadow_the_functions() -> None:
    import rexport.calibration
    import rexport.evaluation
    import rexport.exporting
    import rexport.passes.fuse

    assert all(callable(getattr(rexport, name)) for name in ("calibrate", "evaluate", "export", "fuse"))


def test_importing_rexport_loads_nothing_heavy() -> None:
    code = "import rexport, sys; print(sorted({'torch', 'numpy', 'onnx', 'onnxruntime', 'onnx_ir'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_folder_with_code_is_packaged() -> None:
    settings = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    homes = {"exporter": "rexport", "calibration": "rexport.calibration", "benchmarks": "rexport.benchmarks"}
    found = {
        ".".join([homes[folder], *file.parent.relative_to(_ROOT / folder).parts])
        for folder in homes
        for file in (_ROOT / folder).rglob("__init__.py")
    }
    in_the_repository_alone = {"rexport.benchmarks.peers", "rexport.benchmarks.studies"}
    assert sorted(found - in_the_repository_alone) == settings["packages"]


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    assert version("rexport") == project["version"]
