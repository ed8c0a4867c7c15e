"""The software and hardware here to run engines on: packages, their versions, a lean runtime, and the GPU.

Importing the packages runs NVIDIA's code, and so does asking the driver: :func:`find_installed` belongs into a process
that may crash. None of it looks at an engine.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rexport._errors import UnavailableError
from rexport.engine_file import Installed
from rexport.runtimes._cuda import find_gpu

__all__ = ["PACKAGES", "find_installed", "import_backend", "lean_library"]

PACKAGES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
"""The Python package of each backend."""
_LEAN = ("tensorrt_lean", "tensorrt_lean_cu13", "tensorrt_lean_cu12")
_LEAN_LIBRARIES = "tensorrt_lean_libs"


def find_installed(backend: str) -> Installed:
    """Return what is installed for a backend, ``tensorrt`` or ``rtx``.

    Raises:
        UnavailableError: Its package is there and can't be imported.
    """
    package = PACKAGES[backend]
    version = None if find_spec(package) is None else str(import_backend(backend).__version__)
    lean = None
    if backend == "tensorrt" and lean_library() is not None:
        lean = next(filter(None, map(_version, _LEAN)), None)
    try:
        gpu = find_gpu()
    except UnavailableError as error:
        return Installed(backend=backend, version=version, lean=lean, why_no_device=str(error))
    return Installed(backend=backend, version=version, lean=lean, device=gpu.name, capability=gpu.capability)


def import_backend(backend: str) -> Any:
    """Return the module of a backend.

    Raises:
        UnavailableError: It can't be imported.
    """
    package = PACKAGES[backend]
    try:
        return importlib.import_module(package)
    except Exception as error:  # a library that is missing or broken raises what it likes
        raise UnavailableError(
            f"The package {package} can't be imported ({' '.join(str(error).split())}); "
            f"`pip install 'rexport[{backend}]'` brings it."
        ) from error


def lean_library() -> Path | None:
    """Return the library of TensorRT's lean runtime, where its package is installed."""
    spec = find_spec(_LEAN_LIBRARIES)
    if spec is None or not spec.submodule_search_locations:
        return None
    folders = map(Path, spec.submodule_search_locations)
    return next((file for folder in folders for file in sorted(folder.glob("*nvinfer_lean*"))), None)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
