"""All of it in one command.

    sudo python -m tests.faults --json benchmarks/results/reliability.json

Parts that can't run on a machine say why, and the others run. Figures of parts that were not asked for stay in the
file.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.studies._results import write_results
from rexport._errors import InputError, RexportError, UsageError
from tests.faults._part import NotHereError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults._part import Part

    Run = Callable[[Path, bool, Path | None, Callable[[int], None]], Part]

__all__ = ["PARTS", "main"]

_QUICK_CASES = 24


def _system_calls(folder: Path, quick: bool, keep: Path | None, done: Callable[[int], None]) -> Part:
    from tests.faults import system_calls

    if quick:
        return system_calls.run(folder, every=30, only=("install",), done=done)
    return system_calls.run(folder, done=done)


def _power_cuts(folder: Path, quick: bool, keep: Path | None, done: Callable[[int], None]) -> Part:
    from tests.faults import power_cuts

    return power_cuts.run(folder, cuts=6 if quick else power_cuts.CUTS, done=done)


def _concurrency(folder: Path, quick: bool, keep: Path | None, done: Callable[[int], None]) -> Part:
    from tests.faults import concurrency

    return concurrency.run(folder, rounds=3 if quick else concurrency.ROUNDS, done=done)


def _mutations(folder: Path, quick: bool, keep: Path | None, done: Callable[[int], None]) -> Part:
    from tests.faults import mutations

    return mutations.run(folder, cases=_QUICK_CASES if quick else mutations.CASES, keep=keep, done=done)


def _self_checks(folder: Path, quick: bool, keep: Path | None, done: Callable[[int], None]) -> Part:
    from tests.faults import self_checks

    few = ("the weights of another model", "a runtime that dies of SIGSEGV, after the switch")
    return self_checks.run(
        folder, repetitions=1 if quick else self_checks.REPETITIONS, only=few if quick else (), done=done
    )


def _tampering(folder: Path, quick: bool, keep: Path | None, done: Callable[[int], None]) -> Part:
    from tests.faults import tampering

    return tampering.run(folder, every=301 if quick else 1, done=done)


def _attacks(folder: Path, quick: bool, keep: Path | None, done: Callable[[int], None]) -> Part:
    from tests.faults import attacks

    return attacks.run(folder, devices=tuple(attacks.DEVICES)[1:2] if quick else tuple(attacks.DEVICES), done=done)


def _ssh(folder: Path, quick: bool, keep: Path | None, done: Callable[[int], None]) -> Part:
    from tests.faults import ssh

    if quick:
        return ssh.run(folder, every=31, devices=ssh.DEVICES[1:], done=done)
    return ssh.run(folder, done=done)


PARTS: dict[str, Run] = {
    "system-calls": _system_calls,
    "power-cuts": _power_cuts,
    "concurrency": _concurrency,
    "mutations": _mutations,
    "self-checks": _self_checks,
    "tampering": _tampering,
    "attacks": _attacks,
    "ssh": _ssh,
}
"""The kinds of faults, by the name of ``--only``."""


def main(
    only: Annotated[str, typer.Option(metavar="NAME,...", help=f"Only these of {', '.join(PARTS)}.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="A few cases of each, to see that it works.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results to this file.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Keep the files of failed mutations in this folder.")] = None,
    scratch: Annotated[
        Path | None, typer.Option(help="Folder to work in.", show_default="in memory where possible")
    ] = None,
) -> None:
    """Inject every kind of fault, and count the failures."""
    names = [name.strip() for name in only.split(",") if name.strip()] or list(PARTS)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise UsageError(f"There is no part {unknown[0]!r}; choose from {', '.join(PARTS)}.")
    parts = _earlier(json_file)
    held = True
    for name in names:
        parts[name] = _run(name, quick=quick, keep=keep, scratch=scratch)
        held = held and parts[name]["status"] != "failed"
        write_results(json_file, "reliability", parts={one: parts[one] for one in PARTS if one in parts})
    if not held:
        raise typer.Exit(1)


def _run(name: str, *, quick: bool, keep: Path | None, scratch: Path | None) -> dict[str, Any]:
    """Run a part, say what came of it, and return it as JSON."""
    memory = Path("/dev/shm")
    place = scratch or (memory if memory.is_dir() else None)
    start, count = time.monotonic(), 0

    def done(cases: int) -> None:
        nonlocal count
        count += cases
        if sys.stderr.isatty():
            print(f"\r{name}: {count}", end="", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(dir=place) as folder:
        try:
            part = PARTS[name](Path(folder), quick, keep, done)
        except NotHereError as why:
            print(f"{name}: not run. {why}", flush=True)
            return {"status": "not run", "reason": str(why)}
        document = part.to_json(Path(folder))
    document = {**document, "quick": quick, "seconds": round(time.monotonic() - start, 1)}
    print(f"{name}: {document['failures'] or 'no'} failures in {document['cases']:,} runs", flush=True)
    for sentence in document["failed"]:
        print(f"  {sentence}", flush=True)
    return document


def _earlier(path: Path | None) -> dict[str, Any]:
    """Return the parts that the file has from before."""
    if path is None or not path.exists():
        return {}
    try:
        parts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["parts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no figures of reliability; name another file.") from error
    return parts


if __name__ == "__main__":
    try:
        typer.run(main)
    except RexportError as error:
        raise SystemExit(f"error: {error}") from None
