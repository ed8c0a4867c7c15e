"""``rexport fuse``: the graph passes on any ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rexport.cli._options import Json, Mean, Output, Std, Threads, parse_words
from rexport.cli._tuning import ForBatch, Regrouping, Stem, StemChoice

__all__ = ["fuse"]


def _list(is_given: bool) -> None:
    if not is_given:
        return
    from rexport.cli._console import print_table
    from rexport.passes import available_passes

    rows = [[name, graph_pass.summary] for name, graph_pass in available_passes().items()]
    print_table(["pass", "what it does"], rows, left=(0, 1))
    raise typer.Exit


def fuse(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX file.", show_default=False)],
    output: Output,
    only: Annotated[
        str | None, typer.Option(metavar="PASS,...", help="Run these passes alone.", show_default=False)
    ] = None,
    skip: Annotated[
        str | None, typer.Option(metavar="PASS,...", help="Leave these passes out.", show_default=False)
    ] = None,
    raw_image: Annotated[
        bool,
        typer.Option("--raw-image", help="Let the file take pixels, uint8 [N, S, S, 3], and normalise them itself."),
    ] = False,
    mean: Mean = None,
    std: Std = None,
    regroup: Regrouping = "off",
    stem: StemChoice = Stem.OFF,
    for_batch: ForBatch = None,
    threads: Threads = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare with the input model on random inputs.")
    ] = True,
    explain: Annotated[bool, typer.Option("--explain", help="Name every place that a pass refused.")] = False,
    list_passes: Annotated[  # noqa: ARG001  # what it does, its callback does
        bool, typer.Option("--list", help="List the passes and stop.", callback=_list, is_eager=True)
    ] = False,
    as_json: Json = False,
) -> None:
    """Fuse MODEL: what can be computed before deployment is, and the rest takes fewer steps.

    Each pass says what it changed and what it refused, and why. After each, the model is compared with the input
    model on random inputs; a pass that changes the results by more than rounding is taken back, and named.

    With --raw-image, the mean and the standard deviation that the file states, or those given, go into its first
    convolutions, and both models are compared on the same pictures.

    --stem and --regroup change no results either. What a layer takes is remembered for this processor and version of
    the runtime.
    """
    from rexport.cli._console import note, print_json, progress
    from rexport.cli._reports import in_units, print_passes
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
    result = run(request, progress=progress, note=note)
    if as_json:
        print_json(result.to_json())
        return
    print(f"{output}: {in_units(result.size)}, {result.nodes_before} nodes became {result.nodes}")
    if result.difference is not None:
        print(f"equal to {model} on random inputs: the outputs differ by {result.difference:.1e} of their scale")
    print_passes(result.reports, explain=explain)
    print_forms(result.forms, explain=explain)
