"""The training loop: SGD on the cross-entropy, stopped and gone on with at any step.

All that is random in an epoch (the order of the pictures, how each is changed) is drawn as it begins from one
generator, whose state then is in every checkpoint of the epoch; what is random inside a network, such as dropout, is
seeded anew at every step. So a training that was stopped takes the same steps as one that was not, and on the CPU, with
the same number of threads, gives the same weights to the last bit.
"""

from __future__ import annotations

import math
import warnings
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from rexport._errors import RexportError
from rexport._progress import Progress, silent
from rexport.models.weights import last_linear
from rexport.training.checkpoint import EpochResult, Position, Snapshot
from rexport.training.execution import Execution
from rexport.training.pictures import normalise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from rexport.training.checkpoint import CheckpointFile
    from rexport.training.pictures import Pictures
    from rexport.training.recipes import Recipe

__all__ = ["train"]

_TEST_BATCH = 256


def train(
    module: nn.Module,
    pictures: Pictures,
    *,
    recipe: Recipe,
    augment: bool = False,
    head_only: bool = False,
    test: Pictures | None = None,
    execution: Execution | None = None,
    checkpoint: CheckpointFile | None = None,
    after_epoch: Callable[[EpochResult], None] = lambda result: None,  # noqa: ARG005
    progress: Progress = silent,
) -> tuple[EpochResult, ...]:
    """Train ``module`` in place by cross-entropy, leave it on the CPU, in eval mode, and return all epochs' results.

    Args:
        module: Takes float32 of shape ``(N, 3, S, S)`` and returns logits of shape ``(N, classes)``.
        pictures: To train with.
        recipe: How.
        augment: Change the pictures at random, anew in every epoch.
        head_only: Leave all but the last linear layer as it is, BatchNorm's statistics too.
        test: To measure top-1 with after each epoch.
        execution: Where and in what precision; by default on the CPU, in float32.
        checkpoint: Gone on from if it is there, and written after each epoch; it stays when the training is done.
        after_epoch: Told of every epoch.
        progress: Told of every picture.

    Raises:
        RexportError: The loss is not finite.
        DataError: A picture can't be read.
    """
    execution = execution or Execution()
    trainer = _Trainer(module, pictures, test, recipe, execution, checkpoint, augment=augment, head_only=head_only)
    try:
        with _deterministic(strict=execution.device == "cpu"), torch.random.fork_rng(range(torch.cuda.device_count())):
            return trainer.run(after_epoch, progress)
    finally:
        for parameter in module.parameters():
            parameter.requires_grad_(True)
        module.cpu().eval()


@dataclass
class _Trainer:
    module: nn.Module
    pictures: Pictures
    test: Pictures | None
    recipe: Recipe
    execution: Execution
    checkpoint: CheckpointFile | None
    augment: bool
    head_only: bool

    def __post_init__(self) -> None:
        module, recipe = self.module.to(self.execution.device), self.recipe
        trained = module
        if self.head_only:
            trained = module.get_submodule(last_linear(module))
        module.requires_grad_(False)
        trained.requires_grad_(True)
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.SGD(
            self.parameters.values(),
            lr=recipe.learning_rate,
            momentum=0.9,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
        )
        self.scaler = self.execution.scaler()
        self.random = torch.Generator().manual_seed(recipe.seed)
        self.position = Position()
        self.steps_per_epoch = -(-len(self.pictures) // recipe.batch)

    def run(self, after_epoch: Callable[[EpochResult], None], progress: Progress) -> tuple[EpochResult, ...]:
        self._restore()
        count = len(self.pictures)
        with progress("training", self.recipe.epochs * count) as advance:
            advance(len(self.position.epochs) * count + min(count, self.position.steps * self.recipe.batch))
            while len(self.position.epochs) < self.recipe.epochs:
                after_epoch(self._epoch(advance))
        return self.position.epochs

    def _epoch(self, advance: Callable[[int], None]) -> EpochResult:
        start = perf_counter() - self.position.seconds
        began = self.random.get_state()
        order = torch.randperm(len(self.pictures), generator=self.random)
        drawn = None
        if self.augment:
            drawn = torch.rand(len(self.pictures), self.pictures.draws, generator=self.random)
        self.module.train(not self.head_only)
        chosen = torch.split(order, self.recipe.batch)[self.position.steps :]
        with closing(self.pictures.batches(chosen, drawn)) as batches:
            for part, (pixels, labels) in zip(chosen, batches, strict=True):
                self._step(pixels, labels)
                advance(len(part))
                self.position = replace(self.position, seconds=perf_counter() - start)
                if self._is_checkpoint_due():
                    self._save(began)
        ended = self.position
        result = EpochResult(
            epoch=len(ended.epochs) + 1,
            loss=ended.loss / ended.seen,
            train_top1=ended.right / ended.seen,
            top1=_top1(self.module, self.test, self.execution),
            seconds=perf_counter() - start,
        )
        self.position = Position(epochs=(*ended.epochs, result))
        self._save(self.random.get_state())
        return result

    def _is_checkpoint_due(self) -> bool:
        steps = self.position.steps
        if self.checkpoint is None or not self.checkpoint.every or steps == self.steps_per_epoch:
            return False
        return steps % self.checkpoint.every == 0

    def _step(self, pixels: Tensor, labels: Tensor) -> None:
        if len(labels):  # all of them may be bad
            step = len(self.position.epochs) * self.steps_per_epoch + self.position.steps
            rates = self.recipe.rates(step, self.recipe.epochs * self.steps_per_epoch)
            torch.manual_seed((self.recipe.seed + step) % 2**63)
            for group in self.optimizer.param_groups:
                group["lr"], group["momentum"] = rates.learning_rate, rates.momentum
            inputs = normalise(pixels.to(self.execution.device), self.pictures.preprocessing)
            targets = labels.to(self.execution.device)
            with self.execution.autocast():
                logits = self.module(inputs)
                loss = F.cross_entropy(logits.float(), targets)
            value = loss.item()
            if not math.isfinite(value):
                raise self._diverged(f"the loss is {value}")
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.position = replace(
                self.position,
                seen=self.position.seen + len(labels),
                loss=self.position.loss + value * len(labels),
                right=self.position.right + int((logits.argmax(1) == targets).sum()),
            )
        self.position = replace(self.position, steps=self.position.steps + 1)

    def _save(self, random: Tensor) -> None:
        """Write a checkpoint, if there is to be one, of a ``random`` state as the epoch begins or began."""
        if not all(bool(parameter.isfinite().all()) for parameter in self.parameters.values()):
            raise self._diverged("weights are not finite")
        if self.checkpoint is None:
            return
        state = self.optimizer.state
        self.checkpoint.write(
            Snapshot(
                model=self.module.state_dict(),
                momentum={
                    name: state[parameter]["momentum_buffer"]
                    for name, parameter in self.parameters.items()
                    if state[parameter].get("momentum_buffer") is not None
                },
                random=random,
                scaler=self.scaler.state_dict(),
                position=self.position,
            )
        )

    def _restore(self) -> None:
        if self.checkpoint is None or (snapshot := self.checkpoint.read()) is None:
            return
        self.module.load_state_dict(snapshot.model)
        for name, buffer in snapshot.momentum.items():
            self.optimizer.state[self.parameters[name]]["momentum_buffer"] = buffer.to(self.execution.device)
        self.random.set_state(snapshot.random)
        if snapshot.scaler:
            self.scaler.load_state_dict(dict(snapshot.scaler))
        self.position = snapshot.position

    def _diverged(self, symptom: str) -> RexportError:
        epoch = len(self.position.epochs) + 1
        kept = ""
        if self.checkpoint is not None and self.checkpoint.path.exists():
            kept = f" {self.checkpoint.path} still is the last good state; --restart discards it."
        return RexportError(
            f"The training diverged: at step {self.position.steps + 1} of epoch {epoch} {symptom}. Lower --lr (it is "
            f"{self.recipe.learning_rate:g}).{kept}"
        )


def _top1(module: nn.Module, pictures: Pictures | None, execution: Execution) -> float | None:
    if pictures is None:
        return None
    module.eval()
    right = seen = 0
    chosen: Sequence[Tensor] = torch.split(torch.arange(len(pictures)), _TEST_BATCH)
    with torch.inference_mode(), closing(pictures.batches(chosen)) as batches:
        for pixels, labels in batches:
            if len(labels):
                with execution.autocast():
                    logits = module(normalise(pixels.to(execution.device), pictures.preprocessing))
                right += int((logits.argmax(1).cpu() == labels).sum())
                seen += len(labels)
    return right / seen


@contextmanager
def _deterministic(*, strict: bool) -> Iterator[None]:
    """Let PyTorch take deterministic algorithms only; where not ``strict``, as far as it has them."""
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*deterministic.*")
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)
