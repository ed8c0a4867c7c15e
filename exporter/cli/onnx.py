"""``rexport onnx``: a network becomes an ONNX file that is proven equal to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport.cli._options import Json, Mean, Output, Resize, Std, Weights
from rexport.cli._paths import READ_IMAGES
from rexport.cli._precision import OverflowData, Precision, PrecisionChoice

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

    from rexport.exporting import ExportResult, Parity
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
        int | None,
        typer.Option(min=1, help="Outputs of the network; by default those of the weights, or its own."),
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
        READ_IMAGES,
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
    precision: PrecisionChoice = Precision.FP32,
    data: OverflowData = None,
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
    from rexport._errors import UsageError
    from rexport._files import check_writable
    from rexport.cli._console import note, print_json, progress
    from rexport.cli._precision import half_json, in_half, print_half
    from rexport.cli._reports import print_passes, size_of

    check_writable(output)
    if data is not None and precision is not Precision.FP16:
        raise UsageError("--data is for --precision fp16, which has to know how large numbers grow.")
    fixed, chosen = _batch(batch), _head(head)
    names = _features(features, chosen, class_names, result)

    from rexport.models import known_facts, network_preprocessing, registry
    from rexport.preprocessing import PictureOptions

    found = registry.find(network)
    options = PictureOptions.parse(size=input_size, resize=resize, mean=mean, std=std)
    preprocessing, said = network_preprocessing(found, weights, options)
    module = registry.build(network, weights=weights, num_classes=num_classes, result=result, tell=note)
    classes: tuple[str, ...] = ()
    if not names:
        outputs = _outputs(module, preprocessing.size, network, num_classes=num_classes, result=result)
        known = known_facts(found, weights).classes
        classes = known if len(known) == outputs else ()
        if class_names is not None:
            classes = _read_names(class_names, outputs)
    if weights is None:
        note(f"{network} has random weights, good for speed and nothing else; pass --weights FILE.")
    if said is not None:
        note(said)

    from rexport.exporting import export
    from rexport.exporting.half import FLOAT16_TOLERANCE
    from rexport.model_file import default_opset, save

    with progress(f"exporting {network}", None):
        exported = export(
            module,
            preprocessing=preprocessing,
            network=network,
            classes=classes,
            head=chosen,
            features=names,
            batch=fixed,
            any_size=any_size,
            raw_image=raw_image,
            resize_in_graph=resize_in_graph,
            opset=opset,
            fused=fuse,
            tolerance=tolerance,
        )
    half = in_half(exported.model, data) if precision is Precision.FP16 else None
    save(exported.model if half is None else half.conversion.model, output)
    if as_json:
        print_json({**_document(exported, output, network), **half_json(half)})
        return
    (image,) = (_in_words(value) for value in exported.model.graph.inputs)
    print(f"{output}: {size_of(output)}, opset {default_opset(exported.model)}, {image}")
    if names:
        for value in exported.model.graph.outputs:
            print(f"feature {_in_words(value)}")
    if classes:
        print(
            f"classes: {classes[0]}, {classes[1]} … {classes[-1]}"
            if len(classes) > 2
            else f"classes: {', '.join(classes)}"
        )
    print(_proof(exported.parity))
    if half is not None:
        print_half(half, FLOAT16_TOLERANCE)
    print_passes(exported.reports)


def _batch(text: str) -> int | None:
    from rexport._errors import UsageError

    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch {text}: expected `dynamic` or a number of images.")
    return int(text)


def _outputs(module: nn.Module, size: int, network: str, *, num_classes: int | None, result: str | None) -> int:
    """Run the network and return how many outputs it has, as many as were asked for."""
    from rexport._errors import UsageError
    from rexport.cli._console import note
    from rexport.models.modules import outputs_in, results_of

    results = results_of(module, size)
    name = next(iter(results)) if result is None else result
    if name not in results:
        raise UsageError(f"--result {name}: {network} returns {', '.join(results)}.")
    if len(results) > 1 and result is None:
        note(f"{network} returns {', '.join(results)}; this is {name}, and --result NAME takes another.")
    outputs = outputs_in(results[name])
    if num_classes not in (None, outputs):
        raise UsageError(
            f"--num-classes {num_classes} has no effect: {network} has {outputs} outputs; leave it out, or let the "
            "callable take num_classes."
        )
    return outputs


def _head(text: str) -> Head:
    from rexport._errors import UsageError
    from rexport.model_file import Head

    if text not in (Head.LOGITS, Head.SOFTMAX):
        raise UsageError(f"--head {text}: choose {Head.LOGITS} or {Head.SOFTMAX}.")
    return Head(text)


def _features(text: str | None, head: Head, class_names: Path | None, result: str | None) -> tuple[str, ...]:
    from rexport._errors import UsageError
    from rexport.model_file import Head

    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise UsageError(f"--features {text!r}: name modules of the network, such as layer1,layer4.")
    if result is not None:
        raise UsageError(
            "--features gives the results of modules, so --result means nothing with it; pass one of them."
        )
    if head is not Head.LOGITS or class_names is not None:
        wrong = "--class-names" if class_names is not None else f"--head {head}"
        raise UsageError(f"--features gives no classes, so {wrong} means nothing with it; pass one of the two.")
    return names


def _in_words(value: ir.Value) -> str:
    from rexport.model_file import dtype_name

    return f"{value.name} {dtype_name(value)} [{', '.join(map(str, _shape(value)))}]"


def _tensor(value: ir.Value) -> dict[str, object]:
    from rexport.model_file import dtype_name

    return {"name": value.name, "dtype": dtype_name(value), "shape": _shape(value)}


def _shape(value: ir.Value) -> list[int | str]:
    assert value.shape is not None
    return [size if isinstance(size, int) else str(size) for size in value.shape]


def _proof(parity: Parity) -> str:
    tried = ", ".join(map(str, parity.batches))
    if len(parity.sizes) > 1:
        tried += f" and {' and '.join(f'{height}×{width}' for height, width in parity.sizes)} pixels"
    resized = "" if parity.levels is None else f"; pixels are within {parity.levels} of 255 levels of Pillow's"
    what = next(iter(parity.outputs)) if len(parity.outputs) == 1 else "features"
    return (
        f"equal to PyTorch at batch {tried}: {what} differ by {parity.difference:.1e} of their scale "
        f"({parity.tolerance:.0e} allowed){resized}"
    )


def _document(result: ExportResult, output: Path, network: str) -> dict[str, object]:
    from rexport.cli._reports import passes_json
    from rexport.model_file import Metadata, default_opset

    model, parity, metadata = result.model, result.parity, Metadata.of(result.model)
    return {
        "schema": "rexport.onnx/1",
        "file": str(output),
        "bytes": output.stat().st_size,
        "network": network,
        "opset": default_opset(model),
        "head": None if metadata.features else metadata.head,
        "features": metadata.features,
        "inputs": [_tensor(value) for value in model.graph.inputs],
        "outputs": [_tensor(value) for value in model.graph.outputs],
        "weights_sha256": metadata.weights_sha256,
        "parity": {
            "batches": parity.batches,
            "sizes": parity.sizes,
            "difference": parity.difference,
            "outputs": dict(parity.outputs),
            "tolerance": parity.tolerance,
            "levels": parity.levels,
        },
        "passes": passes_json(result.reports),
    }


def _read_names(path: Path, outputs: int) -> tuple[str, ...]:
    from rexport._errors import UsageError
    from rexport.class_names import read_class_names

    names = read_class_names(path)
    if len(names) != outputs:
        raise UsageError(f"--class-names {path} has {len(names)} names, and the network {outputs} outputs.")
    return names
