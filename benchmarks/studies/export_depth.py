"""What an export costs per layer, from 20 layers to 1,202: it is to grow with the depth, and not with its square.

    python -m rexport.benchmarks.studies.export_depth [--rounds 3]

Each network is exported, fused and proven by ``rexport onnx`` in a process of its own, in turns. The cost per layer is
what comes on top of the 20-layer network, so that starting PyTorch does not flatter the deep ones:

    (seconds(network) − seconds(cifar_resnet20)) / (depth − 20)

Of ResNet-1202 it is to be at most 1.5 times that of ResNet-110.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from rexport.benchmarks.studies._commands import REXPORT, run
from rexport.benchmarks.studies._results import JsonFile, write_results
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
    per_layer = {
        name: (median(seconds[name]) - base) / (depths[name] - depths[_BASE]) for name in _NETWORKS if name != _BASE
    }
    for name, cost in per_layer.items():
        print(f"{name:24} {median(seconds[name]):6.1f} s, {1000 * cost:5.1f} ms a layer")
    ratio = per_layer[_DEEP] / per_layer[_SHALLOW]
    print(f"a layer of {_DEEP} costs {ratio:.2f} times one of {_SHALLOW} (at most {_TARGET} is asked for)")
    write_results(json_file, "export-depth", target=_TARGET, ratio=ratio, per_layer_seconds=per_layer, seconds=seconds)


if __name__ == "__main__":
    typer.run(main)
