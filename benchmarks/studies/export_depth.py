"""What an export costs per layer, from 20 layers to 1,202: it is to grow with the depth, and not with its square.

    python -m benchmarks.studies.export_depth [--rounds 3]

Each network is exported, fused and proven by ``rexport onnx`` in a process of its own, in turns. The cost per layer of
ResNet-1202, seconds / depth, is to be at most 1.5 times that of ResNet-110. Starting PyTorch weighs more on the
shallow networks there; so the cost of each layer beyond the 20 of the smallest is told as well:

    (seconds(network) − seconds(cifar_resnet20)) / (depth − 20)
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.studies._commands import REXPORT, run
from benchmarks.studies._results import JsonFile, write_results
from rexport.models import find

__all__ = ["main"]

_BASE, _SHALLOW, _DEEP = "cifar_resnet20", "cifar_resnet110", "cifar_resnet1202"
_NETWORKS = (_BASE, _SHALLOW, _DEEP, "cifar_preact_resnet1001")
_TARGET = 1.5


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 3,
    json_file: JsonFile = None,
) -> None:
    """Time exports of all depths, and print the cost per layer."""
    seconds: dict[str, list[float]] = {name: [] for name in _NETWORKS}
    with tempfile.TemporaryDirectory() as folder:
        run([*REXPORT, "onnx", _BASE, "-o", "a.onnx"], cwd=Path(folder))  # brings the libraries into memory
        for _ in range(rounds):
            for name in _NETWORKS:
                seconds[name].append(run([*REXPORT, "onnx", name, "-o", "a.onnx"], cwd=Path(folder)).seconds)
    base, depths = median(seconds[_BASE]), {name: find(name).depth or 0 for name in _NETWORKS}
    rows: list[dict[str, Any]] = [
        {
            "network": name,
            "seconds": seconds[name],
            "per_layer": median(seconds[name]) / depths[name],
            "per_further_layer": (median(seconds[name]) - base) / max(1, depths[name] - depths[_BASE]),
        }
        for name in _NETWORKS
    ]
    by_name = {row["network"]: row for row in rows}
    for name, row in by_name.items():
        print(
            f"{name:24} {median(seconds[name]):6.1f} s, {1000 * row['per_layer']:6.1f} ms a layer, "
            f"{1000 * row['per_further_layer']:5.1f} ms a further one"
        )
    ratios = {key: by_name[_DEEP][key] / by_name[_SHALLOW][key] for key in ("per_layer", "per_further_layer")}
    print(
        f"a layer of {_DEEP} costs {ratios['per_layer']:.2f} times one of {_SHALLOW} (at most {_TARGET} is asked for); "
        f"a further one {ratios['per_further_layer']:.2f} times"
    )
    write_results(json_file, "export-depth", target=_TARGET, ratios=ratios, rows=rows)


if __name__ == "__main__":
    typer.run(main)
