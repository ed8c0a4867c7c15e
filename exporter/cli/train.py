"""``rexport train``: train on labelled images, from scratch or from other weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rexport._words import percent
from rexport.cli._console import note, print_json, print_text, say
from rexport.cli._options import (
    ADVANCED,
    Json,
    Mean,
    Output,
    Resize,
    SkipBad,
    Std,
    Threads,
    Weights,
    complete_network,
    complete_target,
)

__all__ = ["EXAMPLES", "train"]

EXAMPLES = (
    "rexport train cifar_resnet20 --data data -o resnet20.safetensors",
    "rexport train resnet50 --data data --weights hub:timm/resnet50.a1_in1k --freeze-backbone -o resnet50.safetensors",
    "rexport train resnet50 --data data --weights resnet50.safetensors --qat data/train -o resnet50-qat.safetensors",
)
_RECIPE, _INT8 = "Recipe", "Quantization-aware training"


def train(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="A name from `rexport models`.",
            show_default=False,
            autocompletion=complete_network,
        ),
    ],
    data: Annotated[
        Path,
        typer.Option("--data", help="A folder with train/<class>/… and test/<class>/… (or val/…).", show_default=False),
    ],
    output: Output,
    test: Annotated[
        Path | None,
        typer.Option(
            "--test",
            help="Test images, a folder per class; --data may then be such a folder of training images.",
            show_default=False,
        ),
    ] = None,
    weights: Weights = None,
    freeze_backbone: Annotated[
        bool, typer.Option("--freeze-backbone", help="Train only the head, and keep all other --weights.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Discard the checkpoint and start over.")] = False,
    as_json: Json = False,
    recipe: Annotated[
        str, typer.Option(metavar="onecycle|paper", help="Learning-rate schedule.", rich_help_panel=_RECIPE)
    ] = "onecycle",
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Number of epochs.", show_default="the recipe's", rich_help_panel=_RECIPE),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images per step.", show_default="the recipe's", rich_help_panel=_RECIPE)
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--lr",
            help="Peak learning rate.",
            show_default="the recipe's, a tenth with --weights",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    augment: Annotated[
        bool,
        typer.Option(
            "--augment/--no-augment", help="Shift, scale and mirror images at random.", rich_help_panel=_RECIPE
        ),
    ] = True,
    seed: Annotated[
        int, typer.Option(help="Seed of new weights, shuffling and augmentation.", rich_help_panel=_RECIPE)
    ] = 0,
    qat: Annotated[
        Path | None,
        typer.Option(
            "--qat",
            metavar="DIR",
            help="Fine-tune --weights in INT8, calibrated on the images in DIR, and write the INT8 file (.int8.onnx) "
            "too.",
            show_default=False,
            rich_help_panel=_INT8,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="x86|arm|openvino|tensorrt",
            help="Where the INT8 file will run.",
            show_default="this machine",
            rich_help_panel=_INT8,
            autocompletion=complete_target,
        ),
    ] = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    skip_bad: SkipBad = False,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="cpu|cuda",
            help="Device to train on.",
            show_default="cuda if usable, else cpu",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            metavar="fp32|bf16|fp16|auto", help="Precision; auto is fp32 on the CPU.", rich_help_panel=ADVANCED
        ),
    ] = "auto",
    checkpoint_every: Annotated[
        int | None,
        typer.Option(min=1, help="Steps between checkpoints.", show_default="one per epoch", rich_help_panel=ADVANCED),
    ] = None,
    threads: Threads = None,
) -> None:
    """Train NETWORK on labelled images, and write its weights.

    Training resumes from its checkpoint, a file beside the output that ends in .resume: run the same command again. On
    the CPU, the weights are then the same to the last bit as without the interruption.
    """
    from rexport._progress import progress_bar
    from rexport.cli._reports import size_of
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
    result = run(request, progress=progress_bar, note=note, say=say)
    if as_json:
        print_json(result.to_json())
        return
    top1 = f"top-1 {percent(result.top1)} on {result.test_images} images"
    print_text(f"{output}: {size_of(output)}, {top1}, {result.seconds:.0f} s")
    if request.int8 is not None:
        print_text(
            f"{request.int8}: INT8 file; the top-1 above is of fake quantization, `rexport eval` measures the file"
        )
