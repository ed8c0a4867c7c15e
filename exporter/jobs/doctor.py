"""What works on this machine: runtimes, the optional packages, and building engines."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rexport._errors import UnavailableError
from rexport._progress import Progress, silent
from rexport._words import first_line
from rexport.benchmarks import machine_facts
from rexport.engine_file import BackendName
from rexport.runtimes.probes import Finding, probe_all, probe_model

if TYPE_CHECKING:
    from rexport.benchmarks import Machine

__all__ = ["EXTRAS", "DoctorResult", "Extra", "run"]

_REQUIRED = ("cpu", "torch")


@dataclass(frozen=True, kw_only=True)
class Extra:
    """Optional packages: their ``modules``, and what they are for."""

    name: str
    purpose: str
    modules: tuple[str, ...]

    @property
    def installed(self) -> bool:
        """Whether all of its packages are there."""
        return all(find_spec(module) for module in self.modules)

    @property
    def command(self) -> str:
        """What installs it."""
        return f"pip install 'rexport[{self.name}]'"

    def to_json(self) -> dict[str, Any]:
        """Return the extra as a JSON object."""
        return {"name": self.name, "purpose": self.purpose, "installed": self.installed, "command": self.command}


_RTX = Extra(name="rtx", purpose="engines for RTX GPUs", modules=("tensorrt_rtx",))
EXTRAS = (
    Extra(name="quickstart", purpose="`rexport quickstart`", modules=("sklearn",)),
    Extra(name="hub", purpose="weights from Hugging Face", modules=("huggingface_hub",)),
    Extra(name="openvino", purpose="running models on OpenVINO", modules=("openvino",)),
    Extra(name="cuda", purpose="running engines on NVIDIA GPUs", modules=("cuda",)),
    Extra(name="tensorrt", purpose="engines for this machine's GPU", modules=("tensorrt",)),
    _RTX,
    Extra(name="ray", purpose="calibration on several machines", modules=("ray",)),
    Extra(name="report", purpose="HTML reports and charts", modules=("matplotlib", "jinja2")),
    Extra(name="loadgen", purpose="MLPerf's load generator", modules=("mlperf_loadgen",)),
    Extra(name="deploy", purpose="devices, and signed bundles", modules=("asyncssh", "cryptography")),
)


@dataclass(frozen=True, kw_only=True)
class DoctorResult:
    """The ``machine``, a finding for each of its ``runtimes``, and one for building TensorRT for RTX engines."""

    machine: Machine
    runtimes: tuple[Finding, ...]
    rtx_build: Finding

    def to_json(self) -> dict[str, Any]:
        """Return the document ``rexport.doctor/1``."""
        return {
            "schema": "rexport.doctor/1",
            "machine": self.machine.to_json(),
            "runtimes": [finding.to_json() for finding in self.runtimes],
            "extras": [extra.to_json() for extra in EXTRAS],
            "rtx_build": self.rtx_build.to_json(),
        }

    def require(self) -> None:
        """Do nothing if ONNX Runtime on the CPU and PyTorch work, which rexport needs.

        Raises:
            UnavailableError: One of them does not.
        """
        for finding in self.runtimes:
            if finding.name in _REQUIRED and not finding.usable:
                raise UnavailableError(f"{finding.what} does not work here: {finding.reason} Try: {finding.advice}")


def run(*, progress: Progress = silent) -> DoctorResult:
    """Try every runtime, and building an engine, each in a process of its own."""
    machine = machine_facts()
    with progress("trying the runtimes", None):
        return DoctorResult(machine=machine, runtimes=tuple(probe_all()), rtx_build=_try_rtx_build())


def _try_rtx_build() -> Finding:
    """Build an engine of one convolution, for a GPU that need not be here."""
    name, what = "rtx-build", "building engines for RTX GPUs, without a GPU"
    try:
        # where these packages are broken, that is what is to be found out
        import onnx
        import onnx_ir as ir

        from rexport.engine import BuildOptions, compile_model

        model = ir.from_proto(onnx.load_model_from_string(probe_model()))
        compiled = compile_model(model, BuildOptions(backend=BackendName.RTX, capabilities=(86,)))
    except Exception as error:  # each package raises its own
        return Finding(name=name, what=what, usable=False, reason=first_line(error), advice=_RTX.command)
    return Finding(name=name, what=what, usable=True, version=str(compiled.reply["version"]))
