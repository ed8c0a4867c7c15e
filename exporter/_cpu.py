"""What the processor of this machine is and which INT8 instructions it has."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rexport.device._cores import throttling_quota, usable_cores

__all__ = ["Cpu", "this_cpu"]

_VNNI = {"avx512_vnni", "avx_vnni"}


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """A processor.

    Attributes:
        name: As it calls itself.
        architecture: ``x86_64``, ``aarch64`` …
        cores: Those that this process can keep busy: it may run on them, and its CPU quota reaches for them.
        flags: The instruction sets that Linux lists; empty on other systems, which do not tell.
        quota: The time on all cores together that the process's container may take, in cores; ``None`` if as much as
            the cores that it may run on.
    """

    name: str
    architecture: str
    cores: int
    flags: frozenset[str]
    quota: float | None = None

    @property
    def has_vnni(self) -> bool:
        """Whether uint8 × int8 products are summed in 32 bits (VNNI) rather than saturated in 16."""
        return bool(self.flags & _VNNI)

    @property
    def int8(self) -> str:
        """The instructions that INT8 convolutions run on, in words."""
        if self.architecture not in ("x86_64", "AMD64"):
            return "not x86"
        if not self.flags:
            return "unknown"
        for flag, words in (
            ("avx512_vnni", "AVX-512 VNNI"),
            ("avx_vnni", "AVX-VNNI"),
            ("avx2", "AVX2, no VNNI"),
        ):
            if flag in self.flags:
                return words
        return "no AVX2"


@cache
def this_cpu() -> Cpu:
    """Return the processor that this process runs on."""
    name, flags = platform.processor() or platform.machine(), frozenset[str]()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            if key == "model name":
                name = value
            elif key in ("flags", "Features"):
                flags = frozenset(value.split())
                break
    return Cpu(name=name, architecture=platform.machine(), cores=usable_cores(), flags=flags, quota=throttling_quota())
