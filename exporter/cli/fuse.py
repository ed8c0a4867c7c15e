"""``rexport fuse``: the graph passes on any ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rexport.cli._options import Json, Mean, Output, Std, Threads
from rexport.cli._paths import READ
from rexport.cli._tuning import ForBatch, Regrouping, Stem, StemChoice

__all__ = ["fuse"]


def _list(asked: bool) -> None:
    if not asked:
        return
    from rexport.cli._console import print_table
    from rexport.passes import available_passes

    rows = [[name, one_pass.summary] for name, one_pass in available_passes().items()]
    print_table(["pass", "what it does"], rows, left=(0, 1))
    raise typer.Exit


def fuse(
    model: Annotated[Path, READ, typer.Argument(metavar="MODEL.onnx", help="Any ONNX file.", show_default=False)],
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
    from rexport._errors import ModelFileError, UsageError
    from rexport._files import check_writable
    from rexport.cli._console import print_json, progress
    from rexport.cli._options import model_preprocessing
    from rexport.cli._reports import passes_json, print_passes, size_of
    from rexport.cli._tuning import parse_forms, print_forms
    from rexport.jobs.layer_forms import choose_forms
    from rexport.model_file import load, save
    from rexport.passes import Reference, choose_passes
    from rexport.passes import fuse as run_passes
    from rexport.passes.raw_image import with_raw_images

    check_writable(output)
    forms = parse_forms(regroup, stem, batch=for_batch, threads=threads)
    passes = choose_passes(only=_names(only), skip=_names(skip))
    if not raw_image and (mean, std) != (None, None):
        raise UsageError("--mean and --std say how raw images are normalised; pass --raw-image with them.")
    original = load(model)
    preprocessing = model_preprocessing(original, model, resize=None, mean=mean, std=std) if raw_image else None
    with progress(f"fusing {model.name}", None):
        try:
            reference = Reference(original, preprocessing=preprocessing) if verify else None
        except ModelFileError as error:
            raise ModelFileError(f"{error} Pass --no-verify to go without the comparison.") from error
        result = run_passes(original, passes=passes, reference=reference)
        fused = result.model if preprocessing is None else with_raw_images(result.model, preprocessing)
    tuned = choose_forms(fused, forms, verify=verify, progress=progress)
    difference = reference.difference(tuned.model) if reference is not None else None
    save(tuned.model, output)
    before, after = len(original.graph), len(tuned.model.graph)
    if as_json:
        print_json(
            {
                "schema": "rexport.fuse/1",
                "file": str(output),
                "nodes_before": before,
                "nodes": after,
                "difference": difference,
                "passes": passes_json(result.reports),
                **tuned.to_json(),
            }
        )
        return
    print(f"{output}: {size_of(output)}, {before} nodes became {after}")
    if difference is not None:
        print(f"equal to {model} on random inputs: the outputs differ by {difference:.1e} of their scale")
    print_passes(result.reports, explain=explain)
    print_forms(tuned, explain=explain)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
