"""``rexport quantize``: an INT8 file from a float one and some images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rexport.cli._calibration import (
    Address,
    CalibratorChoice,
    EngineChoice,
    OptionalData,
    SaveTable,
    Tables,
    Where,
    Workers,
)
from rexport.cli._options import Json, Mean, Output, Resize, SkipBad, Std, Threads
from rexport.cli._tuning import ForBatch, Regrouping, Stem, StemChoice

__all__ = ["quantize"]


def quantize(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A float ONNX file.", show_default=False)],
    output: Output,
    data: OptionalData = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="x86|arm|openvino|tensorrt", help="What will run it; by default what this machine is."),
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="int8|int8+fp16", help="With float16 for what is not INT8, or float32.")
    ] = "int8",
    reduce_range: Annotated[
        bool | None,
        typer.Option(
            "--reduce-range/--full-range",
            help="Weights of 7 bits instead of 8; by default where this CPU has no VNNI.",
            show_default=False,
        ),
    ] = None,
    calibrator: CalibratorChoice = "minmax",
    samples: Annotated[int, typer.Option(min=1, help="How many images to use, evenly spread over the classes.")] = 512,
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 8,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    skip_bad: SkipBad = False,
    table: Tables = None,
    save_table: SaveTable = None,
    engine: EngineChoice = Where.LOCAL,
    workers: Workers = None,
    address: Address = None,
    regroup: Regrouping = "off",
    stem: StemChoice = Stem.OFF,
    for_batch: ForBatch = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Quantize MODEL to INT8 with the ranges that its tensors take on some images.

    The model is fused first. Activations have one scale per tensor, weights one per output channel. Memory does not
    grow with the number of images. A run that was interrupted goes on where it was.
    """
    from rexport._cpu import this_cpu
    from rexport._files import check_writable
    from rexport.cli._calibration import Calibration, calibration_json, print_calibration
    from rexport.cli._console import note, print_json, print_table
    from rexport.cli._options import model_preprocessing, report_skipped
    from rexport.cli._reports import size_of
    from rexport.cli._tuning import Tuning, print_tuning, tune, tuning_json

    check_writable(output)
    asked = Tuning.parse(regroup, stem, batch=for_batch, threads=threads)

    import numpy as np

    from rexport.model_file import load, save, to_bytes, with_opset
    from rexport.passes import fuse
    from rexport.quantization import ONNX_RUNTIME, require_float, target_for
    from rexport.quantization import quantize as write_integers
    from rexport.runtimes.onnxruntime import executed_ops

    calibration = Calibration.parse(
        calibrator,
        data=data,
        tables=table,
        save_table=save_table,
        samples=samples,
        batch=batch,
        skip_bad=skip_bad,
        where=engine,
        workers=workers,
        threads=threads,
        address=address,
    )
    chosen = target_for(target, this_cpu(), reduce_range=reduce_range, precision=precision)
    loaded = load(model)
    require_float(loaded, model)
    images = calibration.open(lambda: model_preprocessing(loaded, model, resize=resize, mean=mean, std=std))
    fused = with_opset(fuse(loaded).model, at_least=chosen.opset)
    calibrated = calibration.run(fused, images)
    result = write_integers(fused, calibrated.table, target=chosen, calibrator=calibrated.calibrator)
    tuned = tune(result.model, asked)
    executed = executed_ops(to_bytes(tuned.model), as_on_arm=chosen.activations.dtype is np.int8)
    save(tuned.model, output)
    report_skipped(calibrated.skipped)
    float_layers = [layer for layer in result.layers if layer.precision != "int8"]
    if chosen.runtime == ONNX_RUNTIME and (executed["Conv"] or executed["FusedConv"]):
        note(f"{executed['Conv'] + executed['FusedConv']} convolutions still run in float on ONNX Runtime.")
    if as_json:
        print_json(
            {
                "schema": "rexport.quantize/1",
                "file": str(output),
                "bytes": output.stat().st_size,
                "target": chosen.name,
                "weight_range": chosen.weights.high,
                "precision": precision,
                **calibration_json(calibrated),
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
    print(
        f"target {chosen.name}: {np.dtype(chosen.activations.dtype)} activations, int8 weights in "
        f"±{chosen.weights.high}: {chosen.because}"
    )
    print_calibration(calibrated, calibration)
    print_tuning(tuned)
    if float_layers:
        print_table(
            ["float layer", "operator", "precision", "why"],
            [[la.name, la.op_type, la.precision, la.why] for la in float_layers],
            left=(0, 1, 2, 3),
        )
