"""What is compared: every tool in each of its settings, as the command that makes a file from a float model.

The settings are those that can differ in speed; where a network has trained weights, those that differ in accuracy
alone are added, from the study of INT8 accuracy. Nothing that a peer offers for these runtimes is left out because it
is good: of its settings the fastest that is not broken counts, on each runtime anew.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.studies._commands import REXPORT
from benchmarks.studies._int8_settings import SETTINGS as STUDIED

__all__ = ["ACCURACY", "INPUTS", "OURS", "SPEED", "Setting"]

OURS = "rexport"
INPUTS = ("fused", "plain")  # rexport's float file, and what PyTorch's exporter makes of the network by itself
_HERE = Path(__file__).parent
_STUDIES = _HERE.with_name("studies")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A tool as it is called.

    Attributes:
        tool: Its name in tables.
        name: Of the setting; together they are unique.
        environment: The name of its environment; ``None`` for rexport, which is measured as installed.
        program: What stands behind the environment's interpreter; an empty one is rexport itself.
        arguments: What follows; ``{model}``, ``{images}`` (an .npy file, ready for the network) and ``{output}`` stand
            for files.
        precision: Of the file that it makes: ``int8``, or ``fp32`` for tools that simplify graphs.
        inputs: The float files that it is given, the next one where it fails on the one before.
        runtimes: Those that its file is for; ``None`` for all.
    """

    tool: str
    name: str
    environment: str | None
    program: tuple[str, ...]
    arguments: tuple[str, ...]
    precision: str = "int8"
    inputs: tuple[str, ...] = INPUTS
    runtimes: tuple[str, ...] | None = None

    @property
    def is_peer(self) -> bool:
        """Whether it is another project's."""
        return self.tool != OURS

    @property
    def file(self) -> str:
        """The name of the file that it makes."""
        return re.sub(r"[\W_]+", "-", f"{self.tool}-{self.name}".lower()).strip("-") + ".onnx"

    def command(self, python: Path | None, *, model: str, images: str, output: str) -> list[str]:
        """Return the command; ``python`` is the interpreter of the environment."""
        arguments = [argument.format(model=model, images=images, output=output) for argument in self.arguments]
        if python is None:
            return [*REXPORT, *self.program, *arguments]
        return [str(python), *self.program, *arguments]


def _script(tool: str, environment: str, file: Path, name: str, *arguments: str) -> Setting:
    return Setting(
        tool=tool,
        name=name,
        environment=environment,
        program=(str(file),),
        arguments=("{model}", "{images}", "{output}", *arguments),
    )


def _onnxruntime(name: str, *arguments: str) -> Setting:
    return _script("onnxruntime.quantization", "onnxruntime", _STUDIES / "_quantize_onnxruntime.py", name, *arguments)


def _nncf(name: str, *arguments: str) -> Setting:
    return _script("NNCF", "nncf", _STUDIES / "_quantize_nncf.py", name, *arguments)


def _quark(name: str, *arguments: str) -> Setting:
    return _script("AMD Quark", "quark", _HERE / "quantize_quark.py", name, *arguments)


def _olive(name: str, *arguments: str) -> Setting:
    return _script("Olive", "olive", _HERE / "quantize_olive.py", name, *arguments)


def _modelopt(name: str, *arguments: str) -> Setting:
    files = ("--onnx_path", "{model}", "--calibration_data_path", "{images}", "--output_path", "{output}")
    return Setting(
        tool="NVIDIA ModelOpt",
        name=name,
        environment="modelopt",
        program=("-m", "modelopt.onnx.quantization"),
        arguments=(*files, "--quantize_mode", "int8", "--calibration_eps", "cpu", *arguments),
    )


def _simplifier(name: str, program: str, *arguments: str) -> Setting:
    return Setting(
        tool=name,
        name="default",
        environment=name,
        program=("-m", program),
        arguments=("{model}", "{output}", *arguments),
        precision="fp32",
        inputs=("plain",),
    )


def _rexport(name: str, *arguments: str, runtimes: tuple[str, ...]) -> Setting:
    return Setting(
        tool=OURS,
        name=name,
        environment=None,
        program=("quantize",),
        arguments=("{model}", "--data", "{images}", "-o", "{output}", *arguments),
        inputs=("fused",),
        runtimes=runtimes,
    )


_MEASURED = ("--target", "x86", "--stem", "measure", "--regroup", "measure", "--for-batch")

SPEED = (
    _onnxruntime("U8S8, minmax", "u8s8", "MinMax"),
    _onnxruntime("S8S8, minmax", "s8s8", "MinMax"),
    _nncf("default", "performance", "fast", "MEAN_MINMAX"),
    _nncf("mixed", "mixed", "fast", "MEAN_MINMAX"),
    _quark("U8S8, minmax", "u8s8", "MinMax"),
    _quark("A8W8", "a8w8", "preset"),
    _quark("XINT8", "xint8", "preset"),
    _olive("default", "default", "MinMax"),
    _olive("U8S8, minmax", "u8s8", "MinMax"),
    _modelopt("default"),
    _modelopt("max, float32 elsewhere", "--calibration_method", "max", "--high_precision_dtype", "fp32"),
    _simplifier("onnxslim", "onnxslim"),
    _simplifier("onnxsim", "onnxsim"),
    Setting(
        tool=OURS,
        name="fuse",
        environment=None,
        program=("fuse",),
        arguments=("{model}", "-o", "{output}"),
        precision="fp32",
        inputs=("plain",),
    ),
    _rexport("x86, measured at batch 1", *_MEASURED, "1", runtimes=("cpu",)),
    _rexport("x86, measured at batch 8", *_MEASURED, "8", runtimes=("cpu",)),
    _rexport("openvino", "--target", "openvino", runtimes=("openvino",)),
    _rexport("openvino, stem in blocks", "--target", "openvino", "--stem", "on", runtimes=("openvino",)),
)

# of these files, the speed is that of one above
ACCURACY = (
    *(
        _onnxruntime(f"{types.upper()}, {method.lower()}", types, method)
        for types in ("u8s8", "s8s8")
        for method in ("Entropy", "Percentile")
    ),
    *(
        _nncf(setting.name, *setting.arguments)
        for setting in STUDIED
        if setting.tool == "NNCF" and setting.name not in ("default", "mixed")
    ),
    _quark("U8S8, its own percentile", "u8s8", "preset"),
    _quark("S8S8, its own percentile", "s8s8", "preset"),
    _olive("U8S8, entropy", "u8s8", "Entropy"),
    _olive("U8S8, percentile", "u8s8", "Percentile"),
    _modelopt("entropy, float32 elsewhere", "--calibration_method", "entropy", "--high_precision_dtype", "fp32"),
)
