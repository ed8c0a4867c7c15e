"""The JSON files that studies write, and the options that name them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rexport._files import write_text
from rexport.benchmarks.machine import machine_facts
from rexport.benchmarks.results import speedup

__all__ = ["JsonFile", "rounds_of", "speedup_of", "write_results"]

JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")]


def write_results(path: Path | None, study: str, **fields: Any) -> None:
    """Write a study's figures and the facts of this machine, if there is a file to write them to."""
    if path is not None:
        document = {"schema": f"rexport.study.{study}/1", **fields, "machine": machine_facts().to_json()}
        write_text(path, json.dumps(document, indent=1) + "\n")


def rounds_of(row: dict[str, Any]) -> list[list[float]]:
    """Return the seconds of a row of ``rexport bench --json``, round by round."""
    seconds = iter(row["seconds"])
    return [[next(seconds) for _ in range(calls)] for calls in row["calls_per_round"]]


def speedup_of(first: dict[str, Any], second: dict[str, Any]) -> tuple[float, tuple[float, float]]:
    """Return how many times as fast as a row of ``rexport bench --json`` another one is, and the 95 % interval."""
    return speedup(rounds_of(first), rounds_of(second), launches=second["rounds_per_launch"])
