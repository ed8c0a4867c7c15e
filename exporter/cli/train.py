"""``rexport train``: weights from labelled images, from scratch or from other weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rexport.cli._options import Json, Mean, Resize, SkipBad, Std, Threads

__all__ = ["train"]


def train(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="A name from `rexport models`.", show_default=False)
    ],
    data: Annotated[
        Path,
        typer.Option("--data", help="A folder with train/<class>/… and test/<class>/… (or val/…).", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.", show_default=False)],
    test: Annotated[
        Path | None, typer.Option("--test", help="A folder per class to test on; --data may then be one itself.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="Start from this state dict; a head of other classes is drawn anew."),
    ] = None,
    freeze_backbone: Annotated[
        bool, typer.Option("--freeze-backbone", help="Train the head only; all else stays as --weights has it.")
    ] = False,
    qat: Annotated[
        Path | None,
        typer.Option(
            "--qat",
            metavar="DIR",
            help="Fine-tune --weights in INT8, with ranges calibrated on the images in DIR, and write the INT8 file "
            "too (its name ends in .int8.onnx).",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="With --qat: what is to run the INT8 file, as of `rexport quantize`.")
    ] = None,
    recipe: Annotated[str, typer.Option(metavar="onecycle|paper", help="How the learning rate goes.")] = "onecycle",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Times that every image is seen.", show_default="the recipe's")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images to a step.", show_default="the recipe's")] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--lr", help="The largest learning rate.", show_default="the recipe's, a tenth with --weights"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of new weights, the order of images, and their changes.")] = 0,
    augment: Annotated[
        bool, typer.Option("--augment/--no-augment", help="Shift, scale and mirror images at random.")
    ] = True,
    device: Annotated[
        str | None, typer.Option(metavar="cpu|cuda", help="Where.", show_default="cuda if usable, else cpu")
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="fp32|bf16|fp16|auto", help="Of products; auto is fp32 on the CPU.")
    ] = "auto",
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between checkpoints; there is one after every epoch too.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Discard the checkpoint and begin anew.")] = False,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    skip_bad: SkipBad = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train NETWORK on labelled images, and write its weights.

    A checkpoint lies beside the output while it trains (its name ends in .resume). If the command is stopped, at
    whatever point, the same command goes on from there; on the CPU the weights are the same to the last bit as
    without the stop.
    """
    from rexport.cli._console import note, print_json, progress, say
    from rexport.cli._reports import percent, size_of
    from rexport.jobs.train import TrainRequest, run
    from rexport.preprocessing import PictureOptions

    request = TrainRequest(
        network=network,
        data=data,
        output=output,
        test=test,
        weights=weights,
        freeze_backbone=freeze_backbone,
        qat=qat,
        target=target,
        recipe=recipe,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        augment=augment,
        device=device,
        precision=precision,
        checkpoint_every=checkpoint_every,
        restart=restart,
        options=PictureOptions.parse(resize=resize, mean=mean, std=std),
        skip_bad=skip_bad,
        threads=threads,
    )
    result = run(request, progress=progress, note=note, say=say)
    if as_json:
        print_json(result.to_json())
        return
    top1 = f"top-1 {percent(result.top1)} on {result.test_images} images"
    print(f"{output}: {size_of(output)}, {top1}, {result.seconds:.0f} s")
    if request.int8 is not None:
        measured = "this top-1 is of the training's own rounding, `rexport eval` measures the file"
        print(f"{request.int8}: the INT8 file; {measured}")
