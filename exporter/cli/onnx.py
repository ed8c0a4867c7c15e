"""``rexport onnx``: a network becomes an ONNX file that is proven equal to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport._errors import UsageError
from rexport.choices import FloatPrecision
from rexport.cli._options import Json, Mean, Output, Resize, Std, Weights

if TYPE_CHECKING:
    from rexport.exporting import Parity
    from rexport.exporting.half import HalfResult
    from rexport.jobs.export import ExportReport
    from rexport.model_file import Head

__all__ = ["onnx"]


def onnx(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK", help="A name from `rexport models`, a spec, or a reference.", show_default=False
        ),
    ],
    output: Output,
    weights: Weights = None,
    num_classes: Annotated[
        int | None, typer.Option(min=1, help="Outputs of the network; by default those of the weights, or its own.")
    ] = None,
    result: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of a network that returns several tensors, the one to give: its key, or its number from 0.",
            show_default="the first",
        ),
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(
            help="A text file with a name per line, in the order of the outputs, or a folder with a folder per "
            "class; by default the names that the weights, or those who publish them, state."
        ),
    ] = None,
    input_size: Annotated[int | None, typer.Option(min=8, help="Height and width of its pictures.")] = None,
    batch: Annotated[str, typer.Option(metavar="dynamic|N", help="The batch sizes that the file takes.")] = "dynamic",
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Let the file take pictures of any height and width.")
    ] = False,
    raw_image: Annotated[
        bool,
        typer.Option("--raw-image", help="Let the file take pixels, uint8 [N, S, S, 3], and normalise them itself."),
    ] = False,
    resize_in_graph: Annotated[
        bool,
        typer.Option("--resize-in-graph", help="Let it take whole pictures, uint8 [N, H, W, 3], and cut them too."),
    ] = False,
    head: Annotated[
        str, typer.Option(metavar="logits|softmax", help="What the file gives: logits, or class probabilities.")
    ] = "logits",
    features: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Give the results of these modules instead, such as layer1,layer4 for a detector.",
            show_default=False,
        ),
    ] = None,
    opset: Annotated[int, typer.Option(help="The version of the ONNX operators.")] = 20,
    precision: Annotated[
        FloatPrecision, typer.Option(metavar="fp32|fp16", help="What the file computes in; it takes float32.")
    ] = FloatPrecision.FP32,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Images, for fp16: layers whose numbers grow too large for it on them stay in float32.",
            show_default=False,
        ),
    ] = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    fuse: Annotated[bool, typer.Option("--fuse/--no-fuse", help="Run the fusion passes.")] = True,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference from PyTorch, as a fraction of an output's largest value.")
    ] = 1e-5,
    as_json: Json = False,
) -> None:
    """Export NETWORK to one ONNX file, fuse it, and prove it equal to PyTorch.

    The proof runs both on random pictures at several batch sizes; if any output differs by more than rounding, no
    file is written and the exit code is 3.
    """
    from rexport.cli._console import note, print_json, progress
    from rexport.jobs.export import ExportRequest, run
    from rexport.preprocessing import PictureOptions

    request = ExportRequest(
        network=network,
        output=output,
        weights=weights,
        num_classes=num_classes,
        result=result,
        class_names=class_names,
        options=PictureOptions.parse(size=input_size, resize=resize, mean=mean, std=std),
        batch=_parse_batch(batch),
        any_size=any_size,
        raw_image=raw_image,
        resize_in_graph=resize_in_graph,
        head=_parse_head(head),
        features=_parse_features(features),
        opset=opset,
        precision=precision,
        data=data,
        fused=fuse,
        tolerance=tolerance,
    )
    report = run(request, progress=progress, note=note)
    if as_json:
        print_json(report.to_json())
    else:
        _print(report)


def _parse_batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch {text}: expected `dynamic` or a number of images.")
    return int(text)


def _parse_head(text: str) -> Head:
    from rexport.model_file import Head

    if text not in (Head.LOGITS, Head.SOFTMAX):
        raise UsageError(f"--head {text}: choose {Head.LOGITS} or {Head.SOFTMAX}.")
    return Head(text)


def _parse_features(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise UsageError(f"--features {text!r}: name modules of the network, such as layer1,layer4.")
    return names


def _print(report: ExportReport) -> None:
    from rexport.cli._reports import in_units, print_passes
    from rexport.model_file import default_opset, tensor_in_words

    model, classes = report.exported.model, report.classes
    (image,) = map(tensor_in_words, model.graph.inputs)
    print(f"{report.request.output}: {in_units(report.size)}, opset {default_opset(model)}, {image}")
    if report.request.features:
        for value in model.graph.outputs:
            print(f"feature {tensor_in_words(value)}")
    if len(classes) > 2:
        print(f"classes: {classes[0]}, {classes[1]} … {classes[-1]}")
    elif classes:
        print(f"classes: {', '.join(classes)}")
    print(_proof(report.exported.parity))
    if report.half is not None:
        _print_half(report.half)
    print_passes(report.exported.reports)


def _proof(parity: Parity) -> str:
    tried = ", ".join(map(str, parity.batches))
    if len(parity.sizes) > 1:
        tried += f" and {' and '.join(f'{height}×{width}' for height, width in parity.sizes)} pixels"
    resized = "" if parity.levels is None else f"; pixels are within {parity.levels} of 255 levels of Pillow's"
    outputs = next(iter(parity.outputs)) if len(parity.outputs) == 1 else "features"
    return (
        f"equal to PyTorch at batch {tried}: {outputs} differ by {parity.difference:.1e} of their scale "
        f"({parity.tolerance:.0e} allowed){resized}"
    )


def _print_half(half: HalfResult) -> None:
    """Say how close it is, what stayed in float32, and which weights became 0."""
    from rexport.cli._console import print_table
    from rexport.exporting.half import FLOAT16_TOLERANCE

    print(
        f"float16: outputs differ from float32 by {half.difference:.1e} of their scale ({FLOAT16_TOLERANCE:.0e} "
        "allowed)"
    )
    kept, vanished = half.conversion.kept, half.conversion.vanished
    if kept:
        rows = [[layer.name, layer.op_type, layer.why] for layer in kept]
        print_table(["float32 layer", "operator", "why"], rows, left=(0, 1, 2))
    if vanished:
        most = max(vanished, key=lambda name: vanished[name])
        print(
            f"{sum(vanished.values()):,} weights are too small for float16 and became 0, most of them in {most} "
            f"({vanished[most]:,})"
        )
