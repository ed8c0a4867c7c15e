"""``--peak``, ``--remeasure-peak`` and ``--layers``, and what is printed of them."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Annotated

import typer

from rexport.cli._reports import listed, or_dash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.benchmarks.document import Peak
    from rexport.benchmarks.profiling.profiled import LayerProfile

__all__ = ["Layers", "PeakOption", "RemeasurePeak", "print_layers", "print_peaks"]

_PANEL = "Where the time goes"
PeakOption = Annotated[
    bool,
    typer.Option(
        "--peak/--no-peak",
        help="Show the share of this machine's peak: that of large convolutions and matrix products, measured once and "
        "remembered.",
        rich_help_panel=_PANEL,
    ),
]
RemeasurePeak = Annotated[
    bool, typer.Option("--remeasure-peak", help="Measure the peak again.", rich_help_panel=_PANEL)
]
Layers = Annotated[
    bool,
    typer.Option("--layers", help="Profile the layers of files on ONNX Runtime and OpenVINO.", rich_help_panel=_PANEL),
]

_SHOWN = 15  # layers in the text


def print_peaks(peaks: Sequence[Peak]) -> None:
    """Print the peaks to stderr; where one is not reliable, with what to type."""
    from rexport.cli._console import note, say

    for peak in peaks:
        subject = f"{peak.precision} {peak.kind} on {peak.runtime}, {peak.threads} threads"
        if peak.at_least:
            note(
                f"the peak of {subject} is at least {peak.gmacs_per_second:.0f} GMAC/s, which {peak.load} reached, so "
                "no share of it is shown; pass --remeasure-peak on a quiet machine."
            )
            continue
        origin = "remembered" if peak.remembered else "measured"
        say(f"peak, {subject}: {peak.gmacs_per_second:.0f} GMAC/s ({peak.load}; {origin})")
        if not peak.steady:
            note(f"the peak of {subject} was measured while other programs ran, and may be higher.")


def print_layers(profiles: Sequence[LayerProfile]) -> None:
    """Print the slowest layers of each profile, the time of each operator, and advice."""
    from rexport.cli._console import note

    for profile in profiles:
        _print_profile(profile)
    for remark in dict.fromkeys(f"{profile.model}: {text}" for profile in profiles for text in profile.remarks):
        note(remark)


def _print_profile(profile: LayerProfile) -> None:
    from rexport.cli._console import note, print_table

    title = f"{profile.model} on {profile.runtime}, batch {profile.batch}, {profile.threads} threads"
    ranked = sorted(profile.layers, key=lambda layer: -layer.seconds)
    rows = []
    for layer in ranked[:_SHOWN]:
        macs = or_dash(layer.macs and layer.macs / 1e6, ",.1f", none="")
        rate = _speed(layer.gmacs_per_second)
        rows.append((layer.name, layer.op_type, layer.precision, macs, _ms(layer.seconds), _share(layer.share), rate))
    columns = ("layer", "operator", "type", "MMACs", "ms", "share", "GMAC/s")
    print_table(columns, rows, title=title, left=(0, 1, 2))
    print_table(("operator", "type", "layers", "ms", "share"), _operators(profile), left=(0, 1), keys=2)
    said: dict[str, list[str]] = defaultdict(list)
    for layer in ranked:
        if layer.advice is not None:
            said[layer.advice].append(layer.name)
    for advice, names in said.items():
        note(f"{listed(names)}: {advice}")


def _operators(profile: LayerProfile) -> list[tuple[str, ...]]:
    groups = defaultdict(list)
    for layer in profile.layers:
        groups[layer.op_type, layer.precision].append(layer)
    totals = {key: math.fsum(layer.seconds for layer in layers) for key, layers in groups.items()}
    return [
        (*key, str(len(groups[key])), _ms(seconds), _share(math.fsum(layer.share for layer in groups[key])))
        for key, seconds in sorted(totals.items(), key=lambda item: -item[1])
    ]


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3f}"


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"


def _speed(gmacs_per_second: float | None) -> str:
    """Return a cell with 10⁹ multiply-accumulates per second; empty where they are unknown."""
    if gmacs_per_second is None:
        return ""
    return f"{gmacs_per_second:.0f}" if gmacs_per_second >= 10 else f"{gmacs_per_second:.2g}"
