"""``rexport models``: the named networks and their cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rexport.cli._options import Json, complete_network

if TYPE_CHECKING:
    from rexport.models import Network, Summary

__all__ = ["EXAMPLES", "models"]

EXAMPLES = (
    "rexport models",
    "rexport models resnet50",
    "rexport models torchvision:fcn_resnet50",
    "rexport models 'resnext[depth=29,stages=3,cardinality=8,base_width=4]' --json",
)


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Show this network stage by stage: a name, a spec, torchvision:NAME, timm:NAME, or your own "
            "package.module:callable.",
            show_default=False,
            autocompletion=complete_network,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the networks with depth, parameters, multiply-accumulates (MACs), input size and paper."""
    from rexport.cli._console import print_json
    from rexport.models import find, networks

    rows = [(network, network.summary()) for network in ([find(name)] if name else networks())]
    if as_json:
        described = [_document(network, summary, stages=name is not None) for network, summary in rows]
        print_json({"schema": "rexport.models/1", "networks": described})
    elif name:
        _print_stages(*rows[0])
    else:
        _print_networks(rows)


def _document(network: Network, summary: Summary, *, stages: bool) -> dict[str, Any]:
    from dataclasses import asdict

    document: dict[str, Any] = {
        "name": network.name,
        "depth": network.depth,
        "parameters": summary.parameters,
        "macs": summary.macs,
        "input_size": network.input_size,
        "paper": network.paper,
    }
    if stages:
        document["stages"] = [asdict(stage) for stage in summary.stages]
    return document


def _print_networks(rows: list[tuple[Network, Summary]]) -> None:
    from rexport.cli._console import print_table

    print_table(
        ("network", "depth", "parameters", "MACs", "input", "arXiv"),
        [
            (
                network.name,
                str(network.depth or "–"),
                _count(summary.parameters),
                _count(summary.macs),
                _size(network),
                network.paper.partition("(")[2].rstrip(")"),
            )
            for network, summary in rows
        ],
        left=(0, 5),
    )


def _print_stages(network: Network, summary: Summary) -> None:
    from rexport.cli._console import print_table

    rows = [
        (
            stage.name,
            "×".join(str(size) for size in stage.output_shape),
            str(stage.blocks or ""),
            _count(stage.parameters),
            _count(stage.macs),
        )
        for stage in summary.stages
    ]
    print_table(
        ("stage", "output", "blocks", "parameters", "MACs"),
        [*rows, ("total", "", "", _count(summary.parameters), _count(summary.macs))],
        title=f"{network.name}: {network.paper}, input 3×{_size(network)}",
    )


def _size(network: Network) -> str:
    return f"{network.input_size}×{network.input_size}"


def _count(number: int) -> str:
    """Write a count as the papers do: 4.09G, 25.56M, 0.27M; below a hundred thousand in full."""
    if number >= 10**9:
        return f"{number / 1e9:.2f}G"
    if number >= 10**5:
        return f"{number / 1e6:.2f}M"
    return f"{number:,}"
