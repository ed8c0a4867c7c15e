"""Training on labelled pictures, from scratch or from other weights, in float or with INT8 arithmetic.

find the pictures → build the network → with ``qat`` export and calibrate it → train, from the checkpoint on → write
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from rexport._apart import READ, READ_IMAGES, WRITE, require_files_apart
from rexport._cpu import this_cpu
from rexport._errors import UsageError
from rexport._files import check_writable
from rexport._progress import Note, Progress, silent, unsaid
from rexport._words import counted, percent
from rexport.calibration import calibrate_dataset, open_dataset
from rexport.calibration.dataset import note_skipped
from rexport.exporting import export, prove_parity
from rexport.jobs.result import JobResult, Table
from rexport.model_file import save
from rexport.models import network_preprocessing, registry, state_dict_hash
from rexport.models.modules import picture_channels, result_of
from rexport.models.published_weights import fetch
from rexport.models.weights import load_backbone
from rexport.models.weights_facts import WeightsFacts, save_weights
from rexport.preprocessing import PictureOptions
from rexport.quantization import target_for
from rexport.training import (
    CheckpointFile,
    RunIdentity,
    choose_execution,
    fake_quantize,
    find_images,
    fingerprint,
    open_pictures,
    recipe_for,
    train,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from rexport.training import EpochResult, Execution, FakeQuantized, ImageSplit, Pictures, Recipe

__all__ = ["TrainRequest", "TrainResult", "run"]

_INTERNAL = ("weights", "epochs", "weight_decay", "preprocessing", "images", "test_images", "qat")  # of the identity
_QAT_LEARNING_RATE = 0.001  # of a fine-tune's in float: with BatchNorm folded, larger steps forget what was learnt
_QAT_SAMPLES, _QAT_BATCH = 512, 64
_QAT_TOLERANCE = 1e-4  # of the logits' scale: BatchNorm is written back with weights that are rounded once more


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """The settings of a training.

    Attributes:
        network: A name of the zoo, or a reference.
        data: A folder with ``train/<class>/…`` and ``test/<class>/…``, or ``val/…``.
        output: Where the weights go, a ``.safetensors`` file.
        test: A folder per class to test on; ``data`` may then be one itself.
        weights: What to start from; a head of other classes is drawn anew.
        freeze_backbone: Train the head only.
        qat: Pictures to calibrate with: train in INT8, and write the INT8 file too.
        target: The name of what is to run that file; by default what this machine is.
        recipe: ``onecycle`` or ``paper``.
        epochs: How often every picture is seen; by default the recipe's, like ``batch``.
        batch: Pictures to a step.
        learning_rate: The largest; by default the recipe's, a tenth with ``weights``, and a thousandth of that in INT8.
        seed: Of new weights, the order of pictures, and their changes.
        augment: Whether pictures are changed at random.
        device: ``cpu`` or ``cuda``; by default CUDA if it is usable.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto``, which is fp32 on the CPU.
        checkpoint_every: Steps between checkpoints; there is one after every epoch too.
        restart: Discard the checkpoint and begin anew.
        options: What takes the place of what is known of the network's pictures.
        skip_bad: Go on without pictures that can't be read.
        threads: Of PyTorch; by default one per usable core.

    Raises:
        UsageError: The values do not go together.
    """

    network: str
    data: Path = field(metadata=READ_IMAGES)
    output: Path = field(metadata=WRITE)
    test: Path | None = field(default=None, metadata=READ_IMAGES)
    weights: Path | None = field(default=None, metadata=READ)
    freeze_backbone: bool = False
    qat: Path | None = field(default=None, metadata=READ_IMAGES)
    target: str | None = None
    recipe: str = "onecycle"
    epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    augment: bool = True
    device: str | None = None
    precision: str = "auto"
    checkpoint_every: int | None = None
    restart: bool = False
    options: PictureOptions = field(default_factory=PictureOptions)
    skip_bad: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.output.suffix != ".safetensors":
            raise UsageError(f"-o {self.output}: weights are written as safetensors; let the name end in .safetensors.")
        if self.freeze_backbone and self.weights is None:
            raise UsageError("--freeze-backbone keeps the weights that are given; pass --weights FILE too.")
        if self.qat is None:
            if self.target is not None:
                raise UsageError("--target says what runs an INT8 file; pass --qat DIR too.")
            return
        if self.weights is None:
            raise UsageError("--qat fine-tunes a network that is trained already; pass --weights FILE too.")
        if self.freeze_backbone:
            raise UsageError("--qat adapts all layers to their integers; leave --freeze-backbone out.")
        if self.precision not in ("auto", "fp32"):
            raise UsageError(f"--qat rounds to integers itself, from fp32; leave --precision {self.precision} out.")

    @property
    def checkpoint(self) -> Path:
        """The checkpoint, which exists only while it trains."""
        return self.output.with_name(f"{self.output.name}.resume")

    @property
    def int8(self) -> Path | None:
        """The INT8 file to write; ``None`` without ``qat``."""
        return None if self.qat is None else self.output.with_suffix(".int8.onnx")

    @property
    def files_beside(self) -> tuple[Path, ...]:
        """The files that are written beside ``output``."""
        return tuple(filter(None, (self.checkpoint, self.int8)))


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainResult(JobResult):
    """The result of a training.

    Attributes:
        request: The request.
        identity: All settings that the weights depend on, defaults included.
        images: The number of training pictures.
        test_images: The number of test pictures.
        epochs: The result of each epoch, including those before an interruption.
        seconds: The duration of this run.
    """

    request: TrainRequest
    identity: RunIdentity
    images: int
    test_images: int
    epochs: tuple[EpochResult, ...]
    seconds: float

    @property
    def top1(self) -> float | None:
        """The accuracy on the test pictures after the last epoch."""
        return self.epochs[-1].top1

    def to_json(self) -> dict[str, Any]:
        """Return the document ``rexport.train/1``."""
        int8 = self.request.int8
        return {
            "schema": "rexport.train/1",
            **{key: value for key, value in asdict(self.identity).items() if key not in _INTERNAL},
            "images": self.images,
            "test_images": self.test_images,
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "top1": self.top1,
            "weights": str(self.request.output),
            "int8": int8 and str(int8),
            "seconds": self.seconds,
        }

    def facts(self) -> dict[str, str]:
        """Return the file and its accuracy."""
        return {
            "file": str(self.request.output),
            "top-1": f"{percent(self.top1)} on {self.test_images} images",
            "trained on": f"{self.images} images, {counted(len(self.epochs), 'epoch')}",
        }

    def as_table(self) -> Table:
        """Return the epochs."""
        rows = [(str(e.epoch), f"{e.loss:.4f}", percent(e.train_top1), percent(e.top1)) for e in self.epochs]
        return Table(("epoch", "loss", "training top-1", "top-1"), rows)


def run(request: TrainRequest, *, progress: Progress = silent, note: Note = unsaid, say: Note = unsaid) -> TrainResult:
    """Train, and write the weights; with ``qat`` the INT8 file too.

    An interrupted training resumes from the checkpoint beside the output when the same request is run again; on the CPU
    the weights are then the same to the last bit as without the interruption.

    Raises:
        UsageError: There is no such network, recipe or device, or the checkpoint is of another training.
        DataError: Pictures can't be used.
        WeightsError: The weights can't be read, or are of another network.
        InputError: The checkpoint can't be read.
        UnavailableError: CUDA can't be used here.
        RexportError: The training diverged.
        OutputError: A file can't be written.
    """
    started = perf_counter()
    require_files_apart(request)
    check_writable(request.output)
    work = _prepare(request, progress, note, say)
    identity = work.identity()
    checkpoint = work.open_checkpoint(identity)
    pictures, held_out = work.open_pictures()
    epochs = work.train(pictures, held_out, checkpoint)
    work.write()
    checkpoint.remove()
    note_skipped((*pictures.skipped, *held_out.skipped), note)
    return TrainResult(
        request=request,
        identity=identity,
        images=len(pictures),
        test_images=len(held_out),
        epochs=epochs,
        seconds=perf_counter() - started,
    )


@dataclass(frozen=True)
class _Work:
    """A training that can begin: of ``module``, as ``quantized`` if its INT8 file is to come of it."""

    request: TrainRequest
    module: nn.Module
    images: ImageSplit
    recipe: Recipe
    execution: Execution
    quantized: FakeQuantized | None
    progress: Progress
    note: Note
    say: Note

    def identity(self) -> RunIdentity:
        """Return the identity that a checkpoint must have; call it before training changes the module."""
        request, recipe, images = self.request, self.recipe, self.images
        return RunIdentity(
            network=request.network,
            weights=state_dict_hash(self.module),
            recipe=recipe.name,
            epochs=recipe.epochs,
            batch=recipe.batch,
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            seed=recipe.seed,
            augment=request.augment,
            freeze_backbone=request.freeze_backbone,
            device=self.execution.device,
            precision=self.execution.precision,
            preprocessing=images.train.preprocessing.to_json(),
            classes=images.classes,
            images=fingerprint(images.train),
            test_images=fingerprint(images.test),
            qat=self.quantized.fingerprint() if self.quantized else None,
        )

    def open_checkpoint(self, identity: RunIdentity) -> CheckpointFile:
        """Return the checkpoint, checked; if there is one, say where training resumes."""
        checkpoint = CheckpointFile(self.request.checkpoint, identity, every=self.request.checkpoint_every)
        if self.request.restart:
            checkpoint.remove()
        snapshot = checkpoint.read()
        if snapshot is not None:
            self.say(f"resuming from {checkpoint.path}, after {snapshot.position} (--restart starts over)")
        return checkpoint

    def open_pictures(self) -> tuple[Pictures, Pictures]:
        """Return the pictures to train and to test with."""
        skip_bad, images = self.request.skip_bad, self.images
        pictures = open_pictures(images.train, skip_bad=skip_bad, progress=self.progress)
        return pictures, open_pictures(images.test, skip_bad=skip_bad, progress=self.progress)

    def train(self, pictures: Pictures, held_out: Pictures, checkpoint: CheckpointFile) -> tuple[EpochResult, ...]:
        """Train, and report the settings and each epoch."""
        request, recipe, execution = self.request, self.recipe, self.execution
        self.say(
            f"{request.network} on {len(pictures)} images of {len(self.images.classes)} classes, {len(held_out)} test "
            f"images; {recipe.epochs} epochs of {recipe.name} at {recipe.learning_rate:g}, {execution.device} "
            f"{execution.precision}"
        )
        try:
            return train(
                self.module if self.quantized is None else self.quantized,
                pictures,
                recipe=recipe,
                augment=request.augment,
                head_only=request.freeze_backbone,
                test=held_out,
                execution=execution,
                checkpoint=checkpoint,
                after_epoch=lambda epoch: self.say(_in_words(epoch, recipe.epochs)),
                progress=self.progress,
            )
        except KeyboardInterrupt:
            if checkpoint.path.exists():
                self.note(f"run the same command again to resume from {checkpoint.path}.")
            raise

    def write(self) -> None:
        """Write the weights, and before them the INT8 file, whose weights are copied into the module."""
        request, quantized, preprocessing = self.request, self.quantized, self.images.train.preprocessing
        if quantized is not None and request.int8 is not None:
            quantized.write_to(self.module)
            model = quantized.float_model()
            prove_parity(self.module.eval(), model, size=preprocessing.size, batches=(2,), tolerance=_QAT_TOLERANCE)
            save(quantized.quantized().model, request.int8)
        facts = WeightsFacts(preprocessing=preprocessing, classes=self.images.classes, network=request.network)
        save_weights(self.module, request.output, facts)


def _prepare(request: TrainRequest, progress: Progress, note: Note, say: Note) -> _Work:
    """Find the pictures, and build the network, with ``qat`` in INT8 arithmetic too."""
    torch.set_num_threads(request.threads or this_cpu().cores)
    execution = choose_execution(request.device, request.precision if request.qat is None else "fp32")
    preprocessing, remark = network_preprocessing(registry.find(request.network), request.weights, request.options)
    if remark is not None and not preprocessing.assumed:
        note(remark)
    preprocessing = replace(preprocessing, assumed=False)  # from here on it is a fact
    images = find_images(request.data, preprocessing, test=request.test)
    module = _build(request, images, note, say)
    recipe = recipe_for(
        request.recipe,
        module,
        input_size=preprocessing.side,
        epochs=request.epochs,
        batch=request.batch,
        learning_rate=request.learning_rate,
        seed=request.seed,
        fine_tuning=request.weights is not None and not request.freeze_backbone,
    )
    quantized = None
    if request.qat is not None:
        if request.learning_rate is None:
            recipe = replace(recipe, learning_rate=recipe.learning_rate * _QAT_LEARNING_RATE)
        quantized = _fake_quantize(request, request.qat, module, images, progress)
    return _Work(request, module, images, recipe, execution, quantized, progress, note, say)


def _build(request: TrainRequest, images: ImageSplit, note: Note, say: Note) -> nn.Module:
    """Return the network with an output for each class, and the weights to start from."""
    classes, weights = len(images.classes), request.weights
    module = registry.build(request.network, num_classes=classes, seed=request.seed)
    shape = images.train.preprocessing.input_shape
    channels = picture_channels(module, shape)
    if channels != shape[0]:
        raise UsageError(
            f"{request.network} takes pictures of {counted(channels, 'channel')}, and `rexport train` trains networks "
            f"of {shape[0]}; train it with PyTorch, and export it with `rexport onnx --weights`."
        )
    output = result_of(module, shape)
    if output.shape[1:] != (classes,):
        raise UsageError(
            f"{request.network} gives {'×'.join(map(str, output.shape[1:])) or 1} outputs for a picture, and --data "
            f"has {classes} classes; let the callable take num_classes."
        )
    if weights is not None and not load_backbone(module, fetch(weights), tell=note):
        say(f"{weights} has other classes: new head with {classes} outputs")
    return module


def _fake_quantize(
    request: TrainRequest, folder: Path, module: nn.Module, images: ImageSplit, progress: Progress
) -> FakeQuantized:
    """Return ``module`` with the arithmetic of its INT8 file, calibrated on the pictures in ``folder``."""
    target, preprocessing = target_for(request.target, this_cpu()), images.train.preprocessing
    model = export(module, preprocessing=preprocessing, network=request.network, classes=images.classes).model
    pictures = open_dataset(folder, preprocessing)
    table = calibrate_dataset(model, pictures, batch=_QAT_BATCH, samples=_QAT_SAMPLES, progress=progress).table
    return fake_quantize(model, table, target=target, network=module)


def _in_words(epoch: EpochResult, epochs: int) -> str:
    assert epoch.top1 is not None  # there are pictures to test with
    return (
        f"epoch {epoch.epoch:3d} of {epochs}  loss {epoch.loss:.4f}  train {100 * epoch.train_top1:.2f} %  "
        f"test top-1 {100 * epoch.top1:.2f} %  {epoch.seconds:.1f} s"
    )
