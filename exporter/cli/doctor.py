"""``rexport doctor``: what this machine can really use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport.cli._options import Json

if TYPE_CHECKING:
    from rexport.benchmarks import Machine

__all__ = ["doctor"]

_REQUIRED = ("cpu", "torch")


def doctor(as_json: Json = False) -> None:
    """Show which runtimes work on this machine and, for each that does not, why and what to do.

    Each runtime is made to run a small model in a process of its own: being installed is not being usable.
    The exit code is 5 where ONNX Runtime on the CPU or PyTorch, which rexport can't do without, does not
    work.
    """
    from rexport._errors import UnavailableError
    from rexport.benchmarks import machine_facts
    from rexport.cli import _console
    from rexport.runtimes import probes

    machine = machine_facts()
    with _console.progress("trying the runtimes", None):
        findings = probes.probe_all()
    if as_json:
        _console.print_json(
            {
                "schema": "rexport.doctor/1",
                "machine": machine.to_json(),
                "runtimes": [finding.to_json() for finding in findings],
            }
        )
    else:
        _print_machine(machine)
        _console.print_table(
            ("runtime", "version", "usable"),
            [(f"{f.name}: {f.what}", f.version or "", "yes" if f.usable else "no") for f in findings],
        )
        for finding in findings:
            if not finding.usable:
                _console.note(f"{finding.name}: {finding.reason} To use it: {finding.advice}")
    broken = [finding for finding in findings if finding.name in _REQUIRED and not finding.usable]
    if broken:
        raise UnavailableError(f"{broken[0].what} does not work here: {broken[0].reason} Try: {broken[0].advice}")


def _print_machine(machine: Machine) -> None:
    memory = "" if machine.memory_gib is None else f"{machine.memory_gib:g} GiB"
    quota = "" if machine.cpu_quota is None else f", CPU quota of {machine.cpu_quota:g}"
    rows = [
        ("processor", f"{machine.cpu} ({machine.architecture}, {machine.cores} usable cores{quota})"),
        ("INT8", _int8(machine)),
        ("memory", memory),
        ("system", f"{machine.os}, Python {machine.python}"),
        *((name, version or "not installed") for name, version in machine.packages.items()),
    ]
    width = max(len(label) for label, _ in rows)
    for label, text in rows:
        print(f"{label:<{width}}  {text}")
    print()


def _int8(machine: Machine) -> str:
    """Say what the processor's INT8 instructions mean for a quantized model."""
    if machine.architecture not in ("x86_64", "AMD64"):
        return f"{machine.architecture}: the INT8 files that rexport makes are for x86 and may be slow here"
    if machine.vnni:
        return f"{machine.int8}: uint8 by int8 products are added in 32 bits, so weights get all 8 bits"
    return (
        f"{machine.int8}: pairs of uint8 by int8 products are added in 16 bits and saturate, "
        "so rexport quantizes weights to 7 bits here"
    )
