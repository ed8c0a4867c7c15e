"""Whether a bundle is for this device, and which of its runtimes are there.

Nothing heavy is imported here: versions come from the packages' metadata. A runtime that is there in name only is
found out in the self-check.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import sys
from contextlib import suppress
from importlib import metadata
from typing import TYPE_CHECKING

from ._errors import UnusableError
from ._manifest import RUNTIMES
from ._worker_process import Bounds, WorkerError, ask_worker

if TYPE_CHECKING:
    from ._manifest import Manifest, Target

__all__ = ["installed_runtimes", "machine", "require_target", "usable_runtimes"]

MODULES = {"onnxruntime": "onnxruntime", "tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
_PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
}
# The newest packages of ONNX Runtime on PyPI for older Pythons.
_NEWEST_FOR_PYTHON = {(3, 8): "1.19.2", (3, 9): "1.19.2", (3, 10): "1.23.2"}
_PROBE = Bounds(seconds=60, memory_mib=4096, data_limit=False)


def machine() -> tuple[str, str]:
    """Return the system and the machine, as a manifest names them: ``("linux", "aarch64")``."""
    return platform.system().lower(), platform.machine()


def installed_runtimes() -> dict[str, str]:
    """Return the version of each runtime that is installed, by its name in manifests."""
    versions = {}
    for name in RUNTIMES:
        version = _version(name)
        if version is not None:
            versions[name] = version
    return versions


def require_target(target: Target) -> dict[str, str]:
    """Return the installed runtimes that a bundle can run on, the first to be tried first, and their versions.

    Raises:
        UnusableError: It is for other devices, or needs a runtime that is not here.
    """
    system, kind = machine()
    if target.system != system or kind not in target.machines:
        raise UnusableError(
            f"The bundle is for {target.system} on {' or '.join(target.machines)}, and this device is {system} on "
            f"{kind}; make one for it with `rexport bundle --machine {kind}`."
        )
    installed = installed_runtimes()
    fitting = {
        name: installed[name]
        for name in RUNTIMES
        if name in target.runtimes
        and name in installed
        and all(_meets(installed[name], spec) for spec in target.runtimes[name])
    }
    if not fitting:
        required = " or ".join(f"{name}{','.join(specs)}" for name, specs in sorted(target.runtimes.items()))
        present = ", ".join(f"{name} {version}" for name, version in installed.items()) or "none of these"
        raise UnusableError(
            f"The bundle needs {required}, and Python {platform.python_version()} has {present} on this device; "
            f"{_advice(target, sys.version_info[:2])}."
        )
    return fitting


def _advice(target: Target, python: tuple[int, ...]) -> str:
    """Say what to do where no runtime fits; ``python`` is the version of Python here, two numbers."""
    newest = _NEWEST_FOR_PYTHON.get((python[0], python[1]))
    if newest is None or all(_meets(newest, spec) for spec in target.runtimes.get("onnxruntime", [])):
        return "install it"
    return (
        f"for this Python, ONNX Runtime {newest} is the newest there is, so install a newer Python, or make a "
        "bundle that asks for less: of a model that was exported with a lower --opset, or with another --runtime"
    )


def usable_runtimes(manifest: Manifest) -> list[dict[str, str]]:
    """Return what :func:`require_target` does, without the GPUs' runtimes where there is no GPU to be had.

    Each is its ``name``, its ``version`` and, of a GPU, the ``capability`` times ten as text.

    Raises:
        UnusableError: None is left.
    """
    usable, reasons = [], []
    for name, version in require_target(manifest.target).items():
        if name == "onnxruntime":
            usable.append({"name": name, "version": version})
            continue
        try:
            probe = ask_worker({"task": "probe", "runtime": name}, _PROBE)
            usable.append({"name": name, "version": probe["version"], "capability": str(probe["capability"])})
        except WorkerError as error:
            reasons.append(f"{name} {version}: {error}")
    if not usable:
        raise UnusableError(f"No runtime of the bundle can be used here ({'; '.join(reasons)}).")
    return usable


def _version(name: str) -> str | None:
    for package in _PACKAGES[name]:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(package)
    if importlib.util.find_spec(MODULES[name]) is None:
        return None
    try:  # a module without metadata, such as one that was compiled on the device
        return str(ask_worker({"task": "version", "runtime": name}, _PROBE)["version"])
    except WorkerError:
        return None


def _meets(version: str, spec: str) -> bool:
    """Say whether a version meets ``>=1.20``, ``<2`` or ``==1.20``; what is missing at the end counts as 0."""
    match = re.match(r"\d+(\.\d+)*", version)
    operator, bound = spec.rstrip("0123456789."), spec.lstrip(">=<")
    if match is None:
        return False
    installed, required = ([int(part) for part in text.split(".")] for text in (match.group(), bound))
    length = max(len(installed), len(required))
    installed, required = ([*part, *[0] * (length - len(part))] for part in (installed, required))
    return {">=": installed >= required, "<": installed < required, "==": installed == required}[operator]
