"""What a measurement ran on: without it, no time means anything."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

from rexport._cpu import this_cpu
from rexport._documents import Finite, Natural  # noqa: TC001 - msgspec reads the fields' types
from rexport._words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Machine", "load_average", "machine_facts", "version_of"]

# the distributions that hold a package: onnxruntime comes under several names
_DISTRIBUTIONS = {
    "rexport": ("rexport",),
    "torch": ("torch",),
    "onnx": ("onnx",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "numpy": ("numpy",),
    "openvino": ("openvino",),
}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The facts that a time depends on; empty, 0 or ``None`` where an old document does not tell.

    Attributes:
        cpu: The processor's name.
        architecture: ``x86_64``, ``aarch64`` …
        cores: Those this process can keep busy.
        int8: The instructions that INT8 convolutions run on, in words.
        vnni: Whether the processor has VNNI.
        memory_gib: Main memory in GiB; ``None`` where the system does not tell.
        os: The operating system and its version.
        python: The version of Python.
        packages: Versions of the packages that matter; ``None`` where one is not installed.
        load_average: Processes that wanted to run in the last minute, before measuring; ``None`` on Windows.
        cpu_quota: The container's CPU quota in cores; ``None`` without one.
        other: In words, the facts of a document that only some machines have, such as a GPU.
    """

    cpu: str
    architecture: str = ""
    cores: Natural = 0
    int8: str = ""
    vnni: bool = False
    memory_gib: Finite | None = None
    os: str = ""
    python: str = ""
    packages: dict[str, str | None] = field(default_factory=dict)
    load_average: Finite | None = None
    cpu_quota: Finite | None = None
    other: dict[str, str] = field(default_factory=dict)

    @property
    def is_busy(self) -> bool:
        """Whether other programs took more than a quarter of the cores when the facts were gathered."""
        return self.load_average is not None and self.cores > 0 and self.load_average > self.cores / 4

    @property
    def load(self) -> str:
        """Its load in words: ``load 3.1 on 2 cores``."""
        return f"load {self.load_average or 0:g} on {counted(self.cores, 'core')}"

    def __str__(self) -> str:
        """Return the facts that a table's title needs."""
        version = self.packages.get("onnxruntime")
        facts = (self.cpu, self.cores and counted(self.cores, "core"), self.int8, version and f"onnxruntime {version}")
        return ", ".join(str(fact) for fact in facts if fact)

    def to_json(self) -> dict[str, Any]:
        """Return the facts as a JSON object."""
        facts = asdict(self)
        return {**facts, **facts.pop("other")}

    def with_others(self, facts: Mapping[str, Any]) -> Machine:
        """Return the machine with those ``facts`` of a document, put into words, that are none of its fields."""
        names = {attribute.name for attribute in fields(self)}
        words = {True: "yes", False: "no"}
        extra = {
            name: words[value] if isinstance(value, bool) else str(value)
            for name, value in facts.items()
            if name not in names and isinstance(value, str | int | float)
        }
        return replace(self, other=extra)


def machine_facts() -> Machine:
    """Gather the facts of this machine; loads none of the packages whose versions it tells."""
    cpu = this_cpu()
    return Machine(
        cpu=cpu.name,
        architecture=cpu.architecture,
        cores=cpu.cores,
        int8=cpu.int8,
        vnni=cpu.has_vnni,
        memory_gib=_memory_gib(),
        os=f"{platform.system()} {platform.release().partition('-')[0]}",
        python=platform.python_version(),
        packages={name: version_of(*distributions) for name, distributions in _DISTRIBUTIONS.items()},
        load_average=load_average(),
        cpu_quota=cpu.quota,
    )


def load_average() -> float | None:
    """Return how many processes wanted to run in the last minute; ``None`` on Windows."""
    if not hasattr(os, "getloadavg"):
        return None
    return round(os.getloadavg()[0], 2)


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def version_of(*distributions: str) -> str | None:
    """Return the version of the first of these distributions that is installed; ``None`` without any."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None
