"""``rexport fuse`` beside onnxslim and onnxsim on the same files: time, nodes, results, and the speed of the outcome.

    python -m benchmarks.studies.fusion_peers

The peers are installed from PyPI, each into a virtual environment of its own. All are timed as whole processes, in
turns; ``rexport fuse`` both with its proof, which runs the model, and without.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.studies._commands import REXPORT, rexport, run
from benchmarks.studies._results import JsonFile, write_results

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_PEERS = ("onnxslim", "onnxsim")
_NETWORKS = (
    "resnet50",
    "resnext50_32x4d",
    "preact_resnet50",
    "resnext[depth=29,stages=3,cardinality=8,base_width=16,form=a,stem_width=64,input_size=32]",
)


def main(
    networks: Annotated[list[str] | None, typer.Option("--network", help="Networks, by default four.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 5,
    min_seconds: Annotated[float, typer.Option(min=0, help="The least time to measure each result.")] = 3.0,
    json_file: JsonFile = None,
) -> None:
    """Fuse the same files with all of them."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tools, versions = _install(folder)
        for network in networks or _NETWORKS:
            rexport("onnx", network, "--no-fuse", "-o", "exported.onnx", cwd=folder)
            seconds = _timed(tools, folder, rounds)
            files = ["exported.onnx", *(f"{tool}.onnx" for tool in tools)]
            speeds = rexport("bench", *files, "--batch", "1", "--min-seconds", str(min_seconds), cwd=folder)["rows"]
            for tool, speed in zip(("exported", *tools), speeds, strict=True):
                nodes, difference = _examine(folder / "exported.onnx", folder / f"{tool}.onnx")
                row = {
                    "network": network,
                    "tool": tool,
                    "seconds": seconds.get(tool),
                    "nodes": nodes,
                    "difference": difference,
                    "speedup": speed["speedup"],
                    "speedup_interval": speed["speedup_interval"],
                }
                rows.append(row)
                print(_in_words(row))
    write_results(json_file, "fusion-peers", versions=versions, rows=rows)


def _install(folder: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the command of each tool, which takes an input and an output, and the versions of the peers."""
    tools = {"rexport": [*REXPORT, "fuse"], "rexport --no-verify": [*REXPORT, "fuse", "--no-verify"]}
    versions = {}
    for peer in _PEERS:
        venv.create(folder / peer, with_pip=True)
        python = str(folder / peer / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "-q", peer, "onnxruntime"], check=True, stdout=sys.stderr)
        version = f"from importlib.metadata import version; print(version({peer!r}))"
        versions[peer] = subprocess.run(
            [python, "-c", version], check=True, capture_output=True, text=True
        ).stdout.strip()
        tools[peer] = [str(folder / peer / "bin" / peer)]
    return tools, versions


def _timed(tools: dict[str, list[str]], folder: Path, rounds: int) -> dict[str, list[float]]:
    """Run all tools in turns, after one run of each, and return their times."""
    seconds: dict[str, list[float]] = {tool: [] for tool in tools}
    for turn in range(rounds + 1):
        for tool, command in tools.items():
            elapsed = run([*command, *_files(tool)], cwd=folder).seconds
            if turn:
                seconds[tool].append(elapsed)
    return seconds


def _files(tool: str) -> Sequence[str]:
    output = f"{tool}.onnx"
    if tool.startswith("rexport"):
        return ("exported.onnx", "-o", output)
    return ("exported.onnx", output)


def _examine(original: Path, result: Path) -> tuple[int, float]:
    """Return the number of nodes of a result, and how far its outputs are from the original's, of their scale."""
    from rexport.model_file import load
    from rexport.passes import Reference

    model = load(result)
    return len(model.graph), Reference(load(original)).difference(model, tolerance=float("inf"))


def _in_words(row: dict[str, Any]) -> str:
    duration = f"{median(row['seconds']):.1f} s, " if row["seconds"] else ""
    return (
        f"{row['network']}, {row['tool']}: {duration}{row['nodes']} nodes, outputs differ by {row['difference']:.1e}, "
        f"{row['speedup']:.2f} times as fast as exported"
    )


if __name__ == "__main__":
    typer.run(main)
