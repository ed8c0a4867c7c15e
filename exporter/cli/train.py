"""``rexport train``: weights from labelled images, from scratch or from other weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rexport.cli._options import Json, Mean, Resize, SkipBad, Std, Threads
from rexport.cli._paths import READ, READ_IMAGES, Writes
from rexport.cli._qat import QAT_LEARNING_RATE, Qat, QatData, QatTarget, int8_path

if TYPE_CHECKING:
    from torch import nn

    from rexport.preprocessing import Preprocessing
    from rexport.training import CheckpointFile, EpochResult, Execution, ImageSplit, Recipe, RunIdentity

__all__ = ["train"]


def _checkpoint_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.resume")


def _with_checkpoint(output: Path) -> tuple[Path, ...]:
    return (_checkpoint_path(output), int8_path(output))


def train(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="A name from `rexport models`.", show_default=False)
    ],
    data: Annotated[
        Path,
        READ_IMAGES,
        typer.Option("--data", help="A folder with train/<class>/… and test/<class>/… (or val/…).", show_default=False),
    ],
    output: Annotated[
        Path,
        Writes(_with_checkpoint),
        typer.Option("--output", "-o", help="The file to write.", show_default=False),
    ],
    test: Annotated[
        Path | None,
        READ_IMAGES,
        typer.Option("--test", help="A folder per class to test on; --data may then be one itself."),
    ] = None,
    weights: Annotated[
        Path | None,
        READ,
        typer.Option("--weights", help="Start from this state dict; a head of other classes is drawn anew."),
    ] = None,
    freeze_backbone: Annotated[
        bool, typer.Option("--freeze-backbone", help="Train the head only; all else stays as --weights has it.")
    ] = False,
    qat: QatData = None,
    target: QatTarget = None,
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
    from rexport._errors import UsageError
    from rexport._files import check_writable
    from rexport.cli._console import note, print_json, progress, say
    from rexport.cli._options import report_skipped
    from rexport.training import Scope

    started = perf_counter()
    check_writable(output)
    if output.suffix != ".safetensors":
        raise UsageError(f"-o {output}: weights are written as safetensors; let the name end in .safetensors.")
    if freeze_backbone and weights is None:
        raise UsageError("--freeze-backbone keeps the weights that are given; pass --weights FILE too.")
    Qat.check(qat, target, weights=weights, freeze_backbone=freeze_backbone, precision=precision)

    from rexport.models import network_preprocessing, registry
    from rexport.models.weights_facts import WeightsFacts, save_weights
    from rexport.preprocessing import PictureOptions
    from rexport.training import choose_execution, find_images, open_pictures, recipe_for
    from rexport.training import train as run

    _use_threads(threads)
    found = registry.find(network)
    execution = choose_execution(device, "fp32" if qat else precision)
    options = PictureOptions.parse(resize=resize, mean=mean, std=std)
    preprocessing, said = network_preprocessing(found, weights, options)
    if said is not None and not preprocessing.assumed:
        note(said)
    preprocessing = replace(preprocessing, assumed=False)  # from here on it is a fact
    images = find_images(data, preprocessing, test=test)
    module = _build(network, weights, images, size=preprocessing.size, seed=seed)
    plan = recipe_for(
        recipe,
        module,
        input_size=preprocessing.size,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        fine_tuning=weights is not None and not freeze_backbone,
    )
    if qat is not None and learning_rate is None:
        plan = replace(plan, learning_rate=plan.learning_rate * QAT_LEARNING_RATE)
    integers = None if qat is None else Qat.begin(module, network, qat, target, preprocessing, images.classes)
    identity = _identity(
        network, module, plan, images, execution, preprocessing, augment=augment, freeze_backbone=freeze_backbone
    )
    if integers is not None:
        identity = replace(identity, qat=integers.fingerprint())
    checkpoint = _open_checkpoint(output, identity, every=checkpoint_every, restart=restart)
    pictures = open_pictures(images.train, skip_bad=skip_bad, progress=progress)
    held_out = open_pictures(images.test, skip_bad=skip_bad, progress=progress)
    say(
        f"{network} on {len(pictures)} images of {len(images.classes)} classes, {len(held_out)} to test with; "
        f"{plan.epochs} epochs of {plan.name} at {plan.learning_rate:g}, {execution.device} {execution.precision}"
    )
    try:
        results = run(
            module if integers is None else integers.trained,
            pictures,
            recipe=plan,
            augment=augment,
            scope=Scope.HEAD if freeze_backbone else Scope.ALL,
            test=held_out,
            execution=execution,
            checkpoint=checkpoint,
            after_epoch=lambda result: say(_line(result, plan.epochs)),
            progress=progress,
        )
    except KeyboardInterrupt:
        if checkpoint.path.exists():
            note(f"the same command goes on from {checkpoint.path}.")
        raise
    int8 = None if integers is None else integers.finish(output)
    save_weights(module, output, WeightsFacts(preprocessing=preprocessing, classes=images.classes))
    checkpoint.remove()
    report_skipped((*pictures.skipped, *held_out.skipped))
    seconds = perf_counter() - started
    if as_json:
        print_json(_document(output, identity, len(pictures), len(held_out), results, seconds, int8))
    else:
        _print(output, results, len(held_out), seconds)
        if int8 is not None:
            print(
                f"{int8}: the INT8 file; this top-1 is of the training's own rounding, `rexport eval` measures the file"
            )


def _use_threads(threads: int | None) -> None:
    import torch

    from rexport._cpu import this_cpu

    torch.set_num_threads(threads or this_cpu().cores)


def _build(network: str, weights: Path | None, images: ImageSplit, *, size: int, seed: int) -> nn.Module:
    from rexport._errors import UsageError
    from rexport.cli._console import note, say
    from rexport.models import registry
    from rexport.models.modules import result_of
    from rexport.models.published_weights import fetch
    from rexport.models.weights import load_backbone

    module = registry.build(network, num_classes=len(images.classes), seed=seed)
    output = result_of(module, size)
    if output.shape[1:] != (len(images.classes),):
        raise UsageError(
            f"{network} gives {'×'.join(map(str, output.shape[1:])) or 1} outputs for a picture, and --data has "
            f"{len(images.classes)} classes; let the callable take num_classes."
        )
    if weights is not None and not load_backbone(module, fetch(weights), tell=note):
        say(f"{weights} is for other classes: the head is new, with {len(images.classes)} outputs")
    return module


def _identity(
    network: str,
    module: nn.Module,
    recipe: Recipe,
    images: ImageSplit,
    execution: Execution,
    preprocessing: Preprocessing,
    *,
    augment: bool,
    freeze_backbone: bool,
) -> RunIdentity:
    from rexport.models import state_dict_hash
    from rexport.training import RunIdentity, fingerprint

    return RunIdentity(
        network=network,
        weights=state_dict_hash(module),
        recipe=recipe.name,
        epochs=recipe.epochs,
        batch=recipe.batch,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        seed=recipe.seed,
        augment=augment,
        freeze_backbone=freeze_backbone,
        device=execution.device,
        precision=execution.precision,
        preprocessing=preprocessing.to_json(),
        classes=images.classes,
        images=fingerprint(images.train),
        test_images=fingerprint(images.test),
    )


def _open_checkpoint(output: Path, identity: RunIdentity, *, every: int | None, restart: bool) -> CheckpointFile:
    from rexport.cli._console import say
    from rexport.training import CheckpointFile

    checkpoint = CheckpointFile(_checkpoint_path(output), identity, every=every)
    if restart:
        checkpoint.remove()
    snapshot = checkpoint.read()
    if snapshot is not None:
        done = snapshot.position
        at = f"step {done.steps} of epoch {len(done.epochs) + 1}" if done.steps else f"epoch {len(done.epochs)}"
        say(f"going on from {checkpoint.path}, after {at} (--restart begins anew)")
    return checkpoint


def _line(result: EpochResult, epochs: int) -> str:
    from rexport.cli._reports import percent

    return (
        f"epoch {result.epoch:3d} of {epochs}  loss {result.loss:.4f}  train {percent(result.train_top1)}  "
        f"test top-1 {percent(result.top1)}  {result.seconds:.1f} s"
    )


def _document(
    output: Path,
    identity: RunIdentity,
    images: int,
    test_images: int,
    results: tuple[EpochResult, ...],
    seconds: float,
    int8: Path | None,
) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "schema": "rexport.train/1",
        "network": identity.network,
        "classes": identity.classes,
        "images": images,
        "test_images": test_images,
        "recipe": identity.recipe,
        "batch": identity.batch,
        "learning_rate": identity.learning_rate,
        "seed": identity.seed,
        "augment": identity.augment,
        "freeze_backbone": identity.freeze_backbone,
        "device": identity.device,
        "precision": identity.precision,
        "epochs": [asdict(result) for result in results],
        "top1": results[-1].top1,
        "weights": str(output),
        "int8": int8 and str(int8),
        "seconds": seconds,
    }


def _print(output: Path, results: tuple[EpochResult, ...], test_images: int, seconds: float) -> None:
    from rexport.cli._reports import percent, size_of

    print(f"{output}: {size_of(output)}, top-1 {percent(results[-1].top1)} on {test_images} images, {seconds:.0f} s")
