"""INT8 of rexport beside that of onnxruntime.quantization and NNCF: what is left of the float model's answers.

    python -m benchmarks.studies.int8_peers NETWORK:WEIGHTS:DATA ...

such as ``cifar_resnet20:cifar_resnet20.th:cifar10``; DATA holds ``calibration/`` and ``test/``, a folder per class in
each. All quantizers get the same pictures, evenly spread over the classes, and all files run on ONNX Runtime's CPU
provider. Each peer is measured in each of its settings, and for every figure anew the best of them on the test images
counts: that favours the peers. One that fails on the fused file is given PyTorch's own export too. NNCF is installed
from PyPI into a virtual environment.

    disagreement   share of test images whose top-1 is another than the float model's
    SQNR           10 log₁₀ (Σ r² / Σ (r − y)²) of the logits, in dB
    drop           the float model's top-1 less the integer one's, in percentage points
    seconds        of the whole command, reading the pictures included for rexport, excluded for the peers
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer

from benchmarks.peers.networks import CALIBRATION, FLOAT, TEST, Network
from benchmarks.studies._commands import rexport, run
from benchmarks.studies._int8_settings import GROUPS, RIVALS, SETTINGS, Setting, nncf_environment, versions_of
from benchmarks.studies._results import JsonFile, write_results

__all__ = ["main"]


def main(
    cases: Annotated[list[str], typer.Argument(metavar="NETWORK:WEIGHTS:DATA...")],
    samples: Annotated[int, typer.Option(min=1, help="Pictures to calibrate with.")] = 512,
    only: Annotated[str | None, typer.Option(metavar="TOOL,...", help="Only these of the tools.")] = None,
    nncf_python: Annotated[
        Path | None, typer.Option(help="An interpreter that has NNCF; by default it is installed.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Quantize and evaluate each network with each tool."""
    settings = [s for s in SETTINGS if only is None or s.tool.split()[0].lower() in only.lower().split(",")]
    if not settings:
        tools = ", ".join(sorted({setting.tool.split()[0].lower() for setting in SETTINGS}))
        raise typer.BadParameter(f"{only} is none of {tools}.", param_hint="--only")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nncf = ""
        versions = versions_of(sys.executable, "rexport", "onnxruntime-gpu")
        if any(setting.tool == "NNCF" for setting in settings):
            nncf = str(Path(nncf_python or nncf_environment(folder / "nncf")).absolute())
            versions |= versions_of(nncf, "nncf")
        for network in map(Network.trained, cases):
            home = network.prepare(folder, samples=samples)
            for setting in settings:
                rows.append({"network": network.label, **_measure(setting, network, samples, home, nncf)})
                print(_in_words(rows[-1]), flush=True)
    summary = [_summary(group, rows) for group in GROUPS]
    for line in summary:
        print(_verdict(line))
    write_results(json_file, "int8-peers", samples=samples, versions=versions, rows=rows, summary=summary)


def _measure(setting: Setting, network: Network, samples: int, folder: Path, nncf: str) -> dict[str, Any]:
    row: dict[str, Any] = {"tool": setting.tool, "setting": setting.name}
    models, extra = [FLOAT["fused"]], ["--samples", str(samples)]
    if setting.is_peer:  # some of which refuse a fused file
        models, extra = [*FLOAT.values()], []
    for model in models:
        command = setting.command(
            model, "int8.onnx", pictures=str(network.data / "calibration"), arrays=CALIBRATION, nncf=nncf
        )
        try:
            measured = run([*command, *extra], cwd=folder)
        except subprocess.CalledProcessError:
            continue
        result = rexport("eval", "int8.onnx", "--data", TEST, "--reference", FLOAT["fused"], cwd=folder)
        return {
            **row,
            "model": model.removesuffix(".onnx"),
            "images": result["images"],
            "top1": result["top1"],
            "fp32_top1": result["reference_top1"],
            "drop_points": 100 * (result["reference_top1"] - result["top1"]),
            "disagreement": 1 - result["agreement"],
            "sqnr_db": result["sqnr_db"],
            "seconds": measured.seconds,
            "peak_memory_mib": measured.peak_memory_mib,
        }
    return {**row, "model": None}


def _summary(group: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare rexport's file for a target with the best of the peers, network by network and on average."""
    compared = []
    measured = [row for row in rows if row["model"] is not None]
    for network in dict.fromkeys(row["network"] for row in measured):
        of_network = [row for row in measured if row["network"] == network]
        ours = [row for row in of_network if row["tool"] == "rexport" and row["setting"] == group]
        peers = [row for row in of_network if row["tool"] in RIVALS[group]]
        if ours and peers:
            compared.append(
                {
                    "network": network,
                    "disagreement": ours[0]["disagreement"],
                    "best_peer_disagreement": min(row["disagreement"] for row in peers),
                    "sqnr_db": ours[0]["sqnr_db"],
                    "best_peer_sqnr_db": max(row["sqnr_db"] for row in peers),
                    "drop_points": ours[0]["drop_points"],
                    "best_peer_drop_points": min(row["drop_points"] for row in peers),
                }
            )
    if not compared:
        return {"target": group, "networks": []}
    of_ours, of_peers = (fmean(row[key] for row in compared) for key in ("disagreement", "best_peer_disagreement"))
    return {
        "target": group,
        "networks": compared,
        "disagreement_of_best_peer": of_ours / of_peers if of_peers else None,
        "least_sqnr_margin_db": min(row["sqnr_db"] - row["best_peer_sqnr_db"] for row in compared),
        "mean_drop_points": fmean(row["drop_points"] for row in compared),
    }


def _in_words(row: dict[str, Any]) -> str:
    name = f"{row['network']:42} {row['tool']:16} {row['setting']:47}"
    if row["model"] is None:
        return f"{name} fails"
    return (
        f"{name} differs on {100 * row['disagreement']:.2f} %, SQNR {row['sqnr_db']:.1f} dB, "
        f"drop {row['drop_points']:+.2f} points, {row['seconds']:.1f} s"
    )


def _verdict(summary: dict[str, Any]) -> str:
    if not summary["networks"]:
        return f"target {summary['target']}: nothing to compare"
    share = summary["disagreement_of_best_peer"]
    return (
        f"target {summary['target']}: disagreement {'?' if share is None else format(share, '.2f')} × the best peer's, "
        f"SQNR at least {summary['least_sqnr_margin_db']:+.1f} dB from the best peer's, "
        f"mean drop {summary['mean_drop_points']:+.2f} points"
    )


if __name__ == "__main__":
    typer.run(main)
