"""The quantizers that are compared, each in its settings: the command that runs one, and what it is to be beaten in."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from benchmarks.studies._commands import REXPORT

__all__ = ["GROUPS", "RIVALS", "SETTINGS", "Setting", "nncf_environment", "versions_of"]

GROUPS = ("x86", "arm")  # rexport's targets that are compared, each with the peers of RIVALS
RIVALS = {"x86": ("onnxruntime U8S8", "NNCF"), "arm": ("onnxruntime S8S8",)}
_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A quantizer as it is called: ``tool``, ``name`` of the setting, and the ``arguments`` that ask for it."""

    tool: str
    name: str
    arguments: tuple[str, ...]

    @property
    def is_peer(self) -> bool:
        """Whether it is another project's."""
        return self.tool != "rexport"

    def command(self, model: str, output: str, *, pictures: str, arrays: str, nncf: str) -> list[str]:
        """Return the command that quantizes ``model``.

        Args:
            model: The float ONNX file.
            output: The file to write.
            pictures: The folder to calibrate with, which rexport reads itself.
            arrays: The same pictures, ready for the network, in an .npy file, which the peers are given.
            nncf: The interpreter of an environment with NNCF.
        """
        if not self.is_peer:
            return [*REXPORT, "quantize", model, "--data", pictures, "-o", output, *self.arguments]
        python, script = (nncf, "_quantize_nncf.py") if self.tool == "NNCF" else (sys.executable, _ONNXRUNTIME)
        return [python, str(_HERE / script), model, arrays, output, *self.arguments]


_ONNXRUNTIME = "_quantize_onnxruntime.py"
_NNCF = (
    ("default", "performance", "fast"),
    ("mixed", "mixed", "fast"),
    ("accurate bias correction", "performance", "accurate"),
    ("mixed, accurate bias correction", "mixed", "accurate"),
    ("no bias correction", "performance", "none"),
)
SETTINGS = (
    *(
        Setting(tool=f"onnxruntime {types.upper()}", name=method.lower(), arguments=(types, method))
        for types in ("u8s8", "s8s8")
        for method in ("MinMax", "Entropy", "Percentile")
    ),
    # the estimator is NNCF's own default; min-max keeps all that was seen, and several dB of SQNR with it
    *(
        Setting(tool="NNCF", name=f"{name}{suffix}", arguments=(preset, bias_correction, ranges))
        for ranges, suffix in (("MEAN_MINMAX", ""), ("MINMAX", ", min-max ranges"))
        for name, preset, bias_correction in _NNCF
    ),
    *(Setting(tool="rexport", name=target, arguments=("--target", target)) for target in GROUPS),
)


def nncf_environment(folder: Path) -> str:
    """Make a virtual environment with NNCF in ``folder`` and return its interpreter."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "nncf", "onnx", "onnxruntime"], check=True, stdout=sys.stderr)
    return python


def versions_of(python: str, *packages: str) -> dict[str, str]:
    """Return the versions of packages in an interpreter's environment."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    finished = subprocess.run([python, "-c", code, *packages], check=True, capture_output=True, text=True)
    return dict(zip(packages, finished.stdout.split(), strict=True))
