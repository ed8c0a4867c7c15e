"""``rexport doctor``: what works on this machine."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rexport.cli._options import Json

if TYPE_CHECKING:
    from rexport.benchmarks import Machine
    from rexport.jobs.doctor import DoctorResult

__all__ = ["EXAMPLES", "doctor"]

EXAMPLES = ("rexport doctor", "rexport doctor --json")


def doctor(as_json: Json = False) -> None:
    """Show which runtimes work on this machine, what is installed, and what to type for the rest.

    Each runtime runs a small model in a process of its own, since an installed one need not work. The exit code is 5
    if ONNX Runtime on the CPU or PyTorch, which rexport needs, does not work.
    """
    from rexport._progress import progress_bar
    from rexport.cli import _console
    from rexport.jobs.doctor import run

    result = run(progress=progress_bar)
    if as_json:
        _console.print_json(result.to_json())
    else:
        _print(result)
    result.require()


def _print(result: DoctorResult) -> None:
    from rexport.cli._console import note, print_facts, print_table
    from rexport.jobs.doctor import EXTRAS

    print_facts(_facts(result.machine))
    print()
    findings = [*result.runtimes, result.rtx_build]
    runtimes = [(f.name, "yes" if f.usable else "no", (f.version or "").partition("-")[0], f.what) for f in findings]
    print_table(("runtime", "works", "version", "what it is"), runtimes, left=(0, 1, 2, 3))
    extras = [(extra.name, "yes" if extra.installed else extra.command, extra.purpose) for extra in EXTRAS]
    print_table(("extra", "installed", "for"), extras, left=(0, 1, 2))
    broken = defaultdict(list)
    for finding in findings:
        if not finding.usable:
            broken[f"{finding.reason} Try: {finding.advice}"].append(finding.name)
    for reason, names in broken.items():
        note(f"{', '.join(names)}: {reason}")


def _facts(machine: Machine) -> list[tuple[str, str]]:
    cores = f"{machine.cores} usable cores"
    if machine.cpu_quota is not None:
        cores += f", CPU quota of {machine.cpu_quota:g}"
    return [
        ("processor", f"{machine.cpu} ({machine.architecture}, {cores})"),
        ("INT8", _int8(machine)),
        ("memory", "unknown" if machine.memory_gib is None else f"{machine.memory_gib:g} GiB"),
        ("system", f"{machine.os}, Python {machine.python}"),
        *((name, version or "not installed") for name, version in machine.packages.items()),
    ]


def _int8(machine: Machine) -> str:
    """Say what the processor's INT8 instructions mean for a quantized model."""
    if machine.architecture not in ("x86_64", "AMD64"):
        return f"{machine.architecture}: quantize with --target arm; files for x86 may be slow here"
    if machine.vnni:
        return f"{machine.int8}: 32-bit sums, so weights get all 8 bits"
    return f"{machine.int8}: 16-bit sums saturate, so weights get 7 bits"
