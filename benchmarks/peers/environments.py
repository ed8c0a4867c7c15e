"""The virtual environments of the peers: they can't share one, for each pins other versions of onnx and onnxruntime.

An environment is made once in a folder that is kept. Beside its packages lies the list that it was made from; where
that is another one, packages are installed again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.studies._commands import last_line
from rexport._errors import UnavailableError, UsageError
from rexport._files import write_text

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ENVIRONMENTS", "Environment", "environment_named"]

_STAMP = "rexport-peer.txt"
# PyTorch's CPU build is enough: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu spares gigabytes of CUDA
_TORCH = "torch==2.13.*"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A peer's packages.

    Attributes:
        name: Of its folder.
        distribution: The peer's name on PyPI.
        requirements: What pip installs, in this order, the peer's version pinned like those that its results rest on.
    """

    name: str
    distribution: str
    requirements: tuple[str, ...]

    def install(self, folder: Path) -> Path:
        """Make the environment in ``folder / name``, unless it is there, and return its interpreter.

        Raises:
            UnavailableError: pip can't install it here.
        """
        home = (folder / self.name).absolute()  # not resolved: the interpreter in it is a link to another
        python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
        stamp, requirements = home / _STAMP, "\n".join(self.requirements) + "\n"
        if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == requirements:
            return python
        if not python.exists():
            venv.create(home, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *self.requirements]
        finished = subprocess.run(pip, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
        if finished.returncode:
            raise UnavailableError(f"{self.distribution} can't be installed in {home.name}: {last_line(finished)}")
        write_text(stamp, requirements)
        return python

    def versions(self, python: Path) -> dict[str, str]:
        """Return the versions that were installed of the peer and of what its results depend on."""
        code = (
            "import sys; from importlib.metadata import distributions as all;"
            "print(*(f'{d.name}=={d.version}' for d in all() if d.name in sys.argv), sep='\\n')"
        )
        distributions = (self.distribution, "onnx", "onnxruntime", "onnxruntime-gpu", "torch")
        finished = subprocess.run([str(python), "-c", code, *distributions], check=True, capture_output=True, text=True)
        return dict(sorted(line.split("==") for line in finished.stdout.split()))


ENVIRONMENTS = (
    Environment(
        name="onnxruntime",
        distribution="onnxruntime",
        # sympy is for the pre-processing that its documentation asks for
        requirements=("onnxruntime==1.32.0", "onnx==1.23.2", "sympy"),
    ),
    Environment(
        name="nncf",
        distribution="nncf",
        requirements=("nncf==3.4.0", "onnx==1.23.2", "onnxruntime==1.32.0"),
    ),
    Environment(
        name="quark",
        distribution="amd-quark",
        requirements=(_TORCH, "amd-quark==0.13", "onnx==1.22.0", "onnxruntime==1.32.0"),
    ),
    Environment(
        name="olive",
        distribution="olive-ai",
        # it imports requests without asking for it
        requirements=(_TORCH, "olive-ai==0.13.0", "requests", "onnx==1.23.2", "onnxruntime==1.32.0"),
    ),
    Environment(
        name="modelopt",
        distribution="nvidia-modelopt",
        requirements=(_TORCH, "nvidia-modelopt[onnx]==0.47.0"),
    ),
    Environment(name="onnxslim", distribution="onnxslim", requirements=("onnxslim==0.1.98", "onnxruntime==1.32.0")),
    Environment(name="onnxsim", distribution="onnxsim", requirements=("onnxsim==0.8.1", "onnxruntime==1.32.0")),
)


def environment_named(name: str) -> Environment:
    """Return one of :data:`ENVIRONMENTS`.

    Raises:
        UsageError: None has that name.
    """
    environments = {environment.name: environment for environment in ENVIRONMENTS}
    if name not in environments:
        raise UsageError(f"There is no peer {name!r}; choose from {', '.join(environments)}.")
    return environments[name]
