"""What the processor of this machine is and which INT8 instructions it has."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Cpu", "this_cpu"]

_VNNI = {"avx512_vnni", "avx_vnni"}


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """A processor.

    Attributes:
        name: As it calls itself.
        architecture: ``x86_64``, ``aarch64`` …
        cores: Those that this process may use.
        flags: The instruction sets that Linux lists; empty on other systems, which do not tell.
    """

    name: str
    architecture: str
    cores: int
    flags: frozenset[str]

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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Cpu(name=name, architecture=platform.machine(), cores=cores, flags=flags)
