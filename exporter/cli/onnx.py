"""``rexport onnx``: export a network to an ONNX file that is verified against PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport._errors import UsageError
from rexport._words import in_units
from rexport.choices import FloatPrecision
from rexport.cli._console import note, print_json, print_table, print_text
from rexport.cli._options import ADVANCED, TAKES, Json, Mean, Output, Resize, Std, Weights, complete_network

if TYPE_CHECKING:
    from rexport.exporting.half import HalfResult
    from rexport.jobs.export import ExportReport
    from rexport.model_file import Head

__all__ = ["EXAMPLES", "onnx"]

EXAMPLES = (
    "rexport onnx resnet50 --weights torchvision:ResNet50_Weights.IMAGENET1K_V2 -o resnet50.onnx",
    "rexport onnx cifar_resnet20 --weights best.pt --class-names data/train -o resnet20.onnx",
    "rexport onnx model_best.pth.tar -o model.onnx",
    "rexport onnx timm:resnet50.a1_in1k --raw-image --head softmax -o resnet50.onnx",
    "rexport onnx my.nets:speech --example my.nets:example --weights best.pt -o speech.onnx",
)
_GIVES = "What the file gives"


def onnx(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="A name from `rexport models`, a spec such as resnext[depth=50], torchvision:NAME, timm:NAME, your "
            "own package.module:callable, or a checkpoint that names its network.",
            show_default=False,
            autocompletion=complete_network,
        ),
    ],
    output: Output,
    weights: Weights = None,
    num_classes: Annotated[
        int | None, typer.Option(min=1, help="Number of outputs.", show_default="that of the weights")
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(
            help="Names of the classes: a text file with one per line, in the order of the outputs, or a folder with a "
            "folder per class.",
            show_default="those of the weights",
        ),
    ] = None,
    precision: Annotated[
        FloatPrecision, typer.Option(metavar="fp32|fp16", help="Precision of weights and computation.")
    ] = FloatPrecision.FP32,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Images or arrays, for --precision fp16: layers that overflow on them stay in float32.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            "--input-size",
            metavar="N|HxW",
            help="Height and width of the pictures, in pixels.",
            show_default="the network's",
            rich_help_panel=TAKES,
        ),
    ] = None,
    batch: Annotated[
        str, typer.Option(metavar="dynamic|N", help="Any batch size, or this one.", rich_help_panel=TAKES)
    ] = "dynamic",
    example: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="For a network that takes no picture: a function that returns what it takes, a tensor, or a tuple or "
            "a dict of tensors.",
            show_default=False,
            rich_help_panel=TAKES,
        ),
    ] = None,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Take pictures of any height and width.", rich_help_panel=TAKES)
    ] = False,
    raw_image: Annotated[
        bool,
        typer.Option(
            "--raw-image",
            help="Take pixels, uint8 [N, H, W, C], and normalise them in the graph.",
            rich_help_panel=TAKES,
        ),
    ] = False,
    resize_in_graph: Annotated[
        bool,
        typer.Option(
            "--resize-in-graph",
            help="Take pictures of any size, uint8 [N, H, W, 3], and resize, crop and normalise them in the graph.",
            rich_help_panel=TAKES,
        ),
    ] = False,
    head: Annotated[
        str, typer.Option(metavar="logits|softmax", help="Logits, or class probabilities.", rich_help_panel=_GIVES)
    ] = "logits",
    features: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="The outputs of these modules instead of classes, such as layer1,layer4 for a detector.",
            show_default=False,
            rich_help_panel=_GIVES,
        ),
    ] = None,
    result: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="The one to export of a network that returns several tensors: its key, or its number from 0; or "
            "several, as outputs of these names.",
            show_default="the first",
            rich_help_panel=_GIVES,
        ),
    ] = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    opset: Annotated[int, typer.Option(help="Version of the ONNX operators.", rich_help_panel=ADVANCED)] = 20,
    fuse: Annotated[
        bool, typer.Option("--fuse/--no-fuse", help="Run the fusion passes.", rich_help_panel=ADVANCED)
    ] = True,
    tolerance: Annotated[
        float,
        typer.Option(help="Largest difference from PyTorch, relative to the largest output.", rich_help_panel=ADVANCED),
    ] = 1e-5,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="List all fusion passes.", rich_help_panel=ADVANCED)
    ] = False,
) -> None:
    """Export NETWORK to an ONNX file, fused and verified against PyTorch.

    Both run on random pictures at several batch sizes. If any output differs by more than rounding, no file is
    written and the exit code is 3.
    """
    from rexport._progress import progress_bar
    from rexport.jobs.export import ExportRequest, run
    from rexport.preprocessing import PictureOptions

    results = _parse_names("--result", result, "what the network returns, such as out,aux")
    request = ExportRequest(
        network=network,
        output=output,
        weights=weights,
        num_classes=num_classes,
        result=result if len(results) == 1 else None,
        results=results if len(results) > 1 else (),
        class_names=class_names,
        options=PictureOptions.parse(size=size, resize=resize, mean=mean, std=std),
        batch=_parse_batch(batch),
        any_size=any_size,
        raw_image=raw_image,
        resize_in_graph=resize_in_graph,
        head=_parse_head(head),
        features=_parse_names("--features", features, "modules of the network, such as layer1,layer4"),
        opset=opset,
        precision=precision,
        data=data,
        fused=fuse,
        tolerance=tolerance,
        example=example,
    )
    report = run(request, progress=progress_bar, note=note)
    if as_json:
        print_json(report.to_json())
    else:
        _print(report, verbose=verbose)


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


def _parse_names(option: str, text: str | None, meant: str) -> tuple[str, ...]:
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise UsageError(f"{option} {text!r}: name {meant}.")
    return names


def _print(report: ExportReport, *, verbose: bool) -> None:
    from rexport.cli._reports import print_passes
    from rexport.model_file import default_opset, tensor_in_words

    model, classes = report.exported.model, report.classes
    inputs = ", ".join(map(tensor_in_words, model.graph.inputs))
    print_text(f"{report.request.output}: {in_units(report.size)}, opset {default_opset(model)}, {inputs}")
    if len(model.graph.outputs) > 1 or report.request.features or report.request.example is not None:
        kind = "feature" if report.request.features else "output"
        for value in model.graph.outputs:
            print_text(f"{kind} {tensor_in_words(value)}")
    if len(classes) > 2:
        print_text(f"classes: {classes[0]}, {classes[1]} … {classes[-1]}")
    elif classes:
        print_text(f"classes: {', '.join(classes)}")
    print_text(str(report.exported.parity))
    if report.half is not None:
        _print_half(report.half)
    print_passes(report.exported.reports, verbose=verbose)


def _print_half(half: HalfResult) -> None:
    """Print the accuracy of float16, the layers left in float32, and the weights that underflow."""
    from rexport.exporting.half import FLOAT16_TOLERANCE

    print_text(f"float16: max relative difference from float32 {half.difference:.1e} (limit {FLOAT16_TOLERANCE:.0e})")
    kept, vanished = half.conversion.kept, half.conversion.vanished
    if kept:
        rows = [[layer.name, layer.op_type, layer.why] for layer in kept]
        print_table(["float32 layer", "operator", "why"], rows, left=(0, 1, 2))
    if vanished:
        most = max(vanished, key=lambda name: vanished[name])
        print_text(
            f"{sum(vanished.values()):,} weights underflow to 0 in float16, most of them in {most} ({vanished[most]:,})"
        )
