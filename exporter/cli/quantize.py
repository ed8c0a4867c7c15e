"""``rexport quantize``: an INT8 file from a float one and some images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport.cli._options import Data, Json, Mean, Output, Resize, SkipBad, Std, Threads
from rexport.cli._tuning import ForBatch, Regrouping, Stem, StemChoice

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

__all__ = ["quantize"]


def quantize(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A float ONNX file.", show_default=False)],
    data: Data,
    output: Output,
    target: Annotated[str | None, typer.Option(help="x86; by default what this machine is.")] = None,
    reduce_range: Annotated[
        bool | None,
        typer.Option(
            "--reduce-range/--full-range",
            help="Weights of 7 bits instead of 8; by default where this CPU has no VNNI.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="How many images to use, evenly spread over the classes.")] = 512,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 8,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    skip_bad: SkipBad = False,
    regroup: Regrouping = "off",
    stem: StemChoice = Stem.OFF,
    for_batch: ForBatch = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Quantize MODEL to INT8 with the ranges that its tensors take on some images.

    The model is fused first. Activations are uint8 with one scale per tensor, weights int8 with one per output
    channel. Memory does not grow with the number of images.
    """
    from rexport._cpu import this_cpu
    from rexport._files import check_writable
    from rexport.cli._console import note, print_json, print_table, progress
    from rexport.cli._options import model_preprocessing, report_skipped
    from rexport.cli._reports import size_of
    from rexport.cli._tuning import Tuning, print_tuning, tune, tuning_json

    check_writable(output)
    asked = Tuning.parse(regroup, stem, batch=for_batch, threads=threads)

    from rexport.calibration import BadImage, calibrate, open_dataset
    from rexport.model_file import image_input, load, save, to_bytes, with_opset
    from rexport.passes import fuse
    from rexport.quantization import quantize as write_integers
    from rexport.quantization import require_float, target_for
    from rexport.runtimes.onnxruntime import executed_ops

    chosen = target_for(target, this_cpu(), reduce_range=reduce_range)
    loaded = load(model)
    require_float(loaded, model)
    preprocessing = model_preprocessing(loaded, model, resize=resize, mean=mean, std=std)
    dataset = open_dataset(data, preprocessing)
    used = min(samples, len(dataset))
    if used < 32:
        note(f"only {used} images to calibrate with; a few hundred give steadier ranges.")
    skipped: list[BadImage] = []

    def images() -> Iterator[np.ndarray]:
        for one in dataset.batches(image_input(loaded).batch or batch, samples=samples, skip_bad=skip_bad):
            skipped.extend(one.skipped)
            if len(one.images):
                yield one.images

    fused = with_opset(fuse(loaded).model, at_least=13)  # the first with scales per channel
    table = calibrate(fused, images(), total=used, threads=threads, progress=progress)
    result = write_integers(fused, table, target=chosen)
    tuned = tune(result.model, asked)
    executed = executed_ops(to_bytes(tuned.model))
    save(tuned.model, output)
    report_skipped(skipped)
    float_layers = [layer for layer in result.layers if layer.precision != "int8"]
    if executed["Conv"] or executed["FusedConv"]:
        note(f"{executed['Conv'] + executed['FusedConv']} convolutions still run in float on ONNX Runtime.")
    if as_json:
        print_json(
            {
                "schema": "rexport.quantize/1",
                "file": str(output),
                "bytes": output.stat().st_size,
                "target": chosen.name,
                "weight_range": chosen.weights.high,
                "images": table.images,
                "skipped": [{"path": str(bad.path), "why": bad.why} for bad in skipped],
                "layers": [
                    {
                        "name": layer.name,
                        "op_type": layer.op_type,
                        "precision": layer.precision,
                        "why": layer.why,
                    }
                    for layer in result.layers
                ],
                "executed": dict(executed),
                **tuning_json(tuned),
            }
        )
        return
    integer = len(result.layers) - len(float_layers)
    print(f"{output}: {size_of(output)} (from {size_of(model)}), {integer} of {len(result.layers)} layers in INT8")
    print(f"target {chosen.name}: uint8 activations, int8 weights in ±{chosen.weights.high}: {chosen.because}")
    print(f"calibrated on {table.images} images")
    print_tuning(tuned)
    if float_layers:
        print_table(
            ["float layer", "operator", "why"],
            [[la.name, la.op_type, la.why] for la in float_layers],
            left=(0, 1, 2),
        )
