"""``rexport onnx``: a network becomes an ONNX file that is proven equal to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rexport.cli._options import Json, Mean, Output, Resize, Std, Weights

__all__ = ["onnx"]


def onnx(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="A name from `rexport models`.", show_default=False)
    ],
    output: Output,
    weights: Weights = None,
    num_classes: Annotated[
        int | None, typer.Option(min=1, help="Outputs of the network; by default those of its dataset.")
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(
            help="A text file with a name per line, in the order of the outputs, or a folder with a folder per "
            "class; by default the names of the network's dataset."
        ),
    ] = None,
    input_size: Annotated[int | None, typer.Option(min=8, help="Height and width of its pictures.")] = None,
    batch: Annotated[str, typer.Option(metavar="dynamic|N", help="The batch sizes that the file takes.")] = "dynamic",
    opset: Annotated[int, typer.Option(help="The version of the ONNX operators.")] = 20,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    fuse: Annotated[bool, typer.Option("--fuse/--no-fuse", help="Run the fusion passes.")] = True,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference from PyTorch, as a fraction of the largest logit.")
    ] = 1e-5,
    as_json: Json = False,
) -> None:
    """Export NETWORK to one ONNX file, fuse it, and prove it equal to PyTorch.

    The proof runs both on random pictures at several batch sizes; if any logit differs by more than rounding, no
    file is written and the exit code is 3.
    """
    from rexport._files import check_writable
    from rexport.cli._console import note, print_json, progress
    from rexport.cli._options import with_overrides
    from rexport.cli._reports import passes_json, print_passes, size_of

    check_writable(output)
    fixed = _batch(batch)

    from rexport.models import registry
    from rexport.preprocessing import Preprocessing

    found = registry.find(network)
    preprocessing = Preprocessing.default_for(input_size or found.input_size)
    preprocessing = with_overrides(preprocessing, resize=resize, mean=mean, std=std)
    module = registry.build(network, weights=weights, num_classes=num_classes)
    outputs = num_classes or found.num_classes
    classes = _read_names(class_names, outputs) if class_names else registry.class_names(found.dataset, outputs)
    if weights is None:
        note(f"{network} has random weights, good for speed and nothing else; pass --weights FILE.")

    from rexport.exporting import export
    from rexport.model_file import Metadata, default_opset, save

    with progress(f"exporting {network}", None):
        result = export(
            module,
            preprocessing=preprocessing,
            network=network,
            classes=classes,
            batch=fixed,
            opset=opset,
            fused=fuse,
            tolerance=tolerance,
        )
        save(result.model, output)
    parity = result.parity
    if as_json:
        print_json(
            {
                "schema": "rexport.onnx/1",
                "file": str(output),
                "bytes": output.stat().st_size,
                "network": network,
                "opset": default_opset(result.model),
                "weights_sha256": Metadata.of(result.model).weights_sha256,
                "parity": {
                    "batches": list(parity.batches),
                    "difference": parity.difference,
                    "tolerance": parity.tolerance,
                },
                "passes": passes_json(result.reports),
            }
        )
        return
    print(f"{output}: {size_of(output)}, opset {default_opset(result.model)}, {_shape(fixed, preprocessing.size)}")
    if classes:
        print(
            f"classes: {classes[0]}, {classes[1]} … {classes[-1]}" if outputs > 2 else f"classes: {', '.join(classes)}"
        )
    tried = ", ".join(map(str, parity.batches))
    print(
        f"equal to PyTorch at batch {tried}: logits differ by {parity.difference:.1e} of their scale "
        f"({parity.tolerance:.0e} allowed)"
    )
    print_passes(result.reports)


def _batch(text: str) -> int | None:
    from rexport._errors import UsageError

    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch {text}: expected `dynamic` or a number of images.")
    return int(text)


def _shape(batch: int | None, size: int) -> str:
    return f"images float32 [{batch or 'batch'}, 3, {size}, {size}]"


def _read_names(path: Path, outputs: int) -> tuple[str, ...]:
    from rexport._errors import UsageError

    try:
        if path.is_dir():
            names = tuple(sorted(child.name for child in path.iterdir() if child.is_dir()))
        else:
            names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--class-names {path} can't be read: {error}.") from error
    if len(names) != outputs:
        raise UsageError(f"--class-names {path} has {len(names)} names, and the network {outputs} outputs.")
    return names
