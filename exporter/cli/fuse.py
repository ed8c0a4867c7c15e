"""``rexport fuse``: run the graph passes on any ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rexport._words import in_units
from rexport.cli._console import note, print_json, print_table, print_text
from rexport.cli._options import ADVANCED, TAKES, Json, Mean, Output, Std, Threads, parse_words
from rexport.cli._tuning import ForBatch, Regrouping, Stem, StemChoice

__all__ = ["EXAMPLES", "fuse"]

EXAMPLES = (
    "rexport fuse model.onnx -o fused.onnx --explain",
    "rexport fuse resnext50.onnx -o fused.onnx --regroup measure --for-batch 8",
    "rexport fuse model.onnx -o raw.onnx --raw-image --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
)
_PASSES = "Passes"


def _list(is_given: bool) -> None:
    if not is_given:
        return
    from rexport.passes import available_passes

    rows = [[name, graph_pass.summary] for name, graph_pass in available_passes().items()]
    print_table(["pass", "what it does"], rows, left=(0, 1))
    raise typer.Exit


def fuse(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX file.", show_default=False)],
    output: Output,
    as_json: Json = False,
    only: Annotated[
        str | None,
        typer.Option(metavar="PASS,...", help="Run only these passes.", show_default=False, rich_help_panel=_PASSES),
    ] = None,
    skip: Annotated[
        str | None,
        typer.Option(metavar="PASS,...", help="Skip these passes.", show_default=False, rich_help_panel=_PASSES),
    ] = None,
    list_passes: Annotated[  # noqa: ARG001  # what it does, its callback does
        bool,
        typer.Option(
            "--list", help="List the passes and exit.", callback=_list, is_eager=True, rich_help_panel=_PASSES
        ),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="List every place that a pass refused, and why.", rich_help_panel=_PASSES),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="List the passes that changed nothing too.", rich_help_panel=_PASSES),
    ] = False,
    raw_image: Annotated[
        bool,
        typer.Option(
            "--raw-image",
            help="Take pixels, uint8 [N, H, W, C], and normalise them in the graph.",
            rich_help_panel=TAKES,
        ),
    ] = False,
    mean: Mean = None,
    std: Std = None,
    regroup: Regrouping = "off",
    stem: StemChoice = Stem.OFF,
    for_batch: ForBatch = None,
    threads: Threads = None,
    verify: Annotated[
        bool,
        typer.Option("--verify/--no-verify", help="Compare with MODEL on random inputs.", rich_help_panel=ADVANCED),
    ] = True,
) -> None:
    """Fuse MODEL: the same results from fewer operators.

    After each pass, the model is compared with MODEL on random inputs; a pass that changes the results by more than
    rounding is rolled back. What was changed, and what was refused and why, is printed.

    --raw-image folds mean and standard deviation, as MODEL states them or as given, into the first convolutions.

    --stem and --regroup change no results either. Their measurements are cached for this processor and runtime version.
    """
    from rexport._progress import progress_bar
    from rexport.cli._reports import print_passes
    from rexport.cli._tuning import parse_forms, print_forms
    from rexport.jobs.fuse import FuseRequest, run
    from rexport.preprocessing import PictureOptions

    request = FuseRequest(
        model=model,
        output=output,
        only=parse_words(only) or (),
        skip=parse_words(skip) or (),
        raw_image=raw_image,
        options=PictureOptions.parse(mean=mean, std=std),
        forms=parse_forms(regroup, stem, batch=for_batch, threads=threads),
        verify=verify,
    )
    result = run(request, progress=progress_bar, note=note)
    if as_json:
        print_json(result.to_json())
        return
    print_text(f"{output}: {in_units(result.size)}, {result.nodes_before} → {result.nodes} nodes")
    if result.difference is not None:
        print_text(f"equal to {model} on random inputs: max relative difference {result.difference:.1e}")
    print_passes(result.reports, changed=True, verbose=verbose, explain=explain)
    print_forms(result.forms, explain=explain)
