from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from rexport import Preprocessing, build
from rexport._errors import InputError, RexportError, UsageError
from rexport.calibration.image_folder import ImageFolder
from rexport.models import state_dict_hash
from rexport.training import (
    CheckpointFile,
    EpochResult,
    Execution,
    OneCycleRecipe,
    PaperRecipe,
    PicturesInMemory,
    PicturesOnDisk,
    RunIdentity,
    train,
)
from rexport.training.checkpoint import Position
from tests.training._images import pixels_of, write_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_RECIPE = OneCycleRecipe(epochs=3, batch=8, seed=5)
_IDENTITY = RunIdentity(
    network="cifar_resnet8",
    weights="",
    recipe="onecycle",
    epochs=3,
    batch=8,
    learning_rate=0.1,
    weight_decay=5e-4,
    seed=5,
    augment=True,
    freeze_backbone=False,
    device="cpu",
    precision="fp32",
    preprocessing="",
    classes=("blue", "red"),
    images="",
    test_images="",
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """So small a network is no quicker on two, and much slower where others work beside it."""
    torch.set_num_threads(1)


def _pictures(count: int = 12, seed: int = 0) -> PicturesInMemory:
    pixels = np.concatenate([pixels_of(label, count, seed=seed) for label in (0, 1)])
    return PicturesInMemory(pixels, np.repeat([0, 1], count), Preprocessing(size=32))


def _module() -> nn.Module:
    return build("cifar_resnet8", num_classes=2, seed=1)


class _KilledError(Exception):
    """In the place of a kill: nothing is written after it."""


def _killed_after(pictures: int) -> Callable[..., object]:
    """Return a progress that raises once so many pictures were trained with in this run."""

    @contextmanager
    def progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
        calls = seen = 0

        def advance(count: int) -> None:
            nonlocal calls, seen
            calls += 1
            seen += count if calls > 1 else 0  # the first tells of what was done before
            if seen >= pictures:
                raise _KilledError

        yield advance

    return progress


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    hashes = []
    for seed in (5, 5, 6):
        module = _module()
        train(module, _pictures(), recipe=replace(_RECIPE, seed=seed), augment=True)
        hashes.append(state_dict_hash(module))
    assert hashes[0] == hashes[1] != hashes[2]


def test_it_learns_and_tells_of_every_epoch() -> None:
    module, told = _module(), list[EpochResult]()
    results = train(module, _pictures(), recipe=_RECIPE, test=_pictures(6, seed=1), after_epoch=told.append)
    assert list(results) == told
    assert [result.epoch for result in results] == [1, 2, 3]
    assert results[-1].loss < results[0].loss
    assert results[-1].top1 == 1.0
    assert not module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [_RECIPE, PaperRecipe(epochs=3, batch=8, seed=5)], ids=["onecycle", "paper"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 8])
def test_stopped_at_any_step_it_ends_with_the_same_weights(
    tmp_path: Path, recipe: OneCycleRecipe | PaperRecipe, steps: int
) -> None:
    whole = _module()
    expected = train(whole, _pictures(), recipe=recipe, augment=True, test=_pictures(4, seed=1))

    checkpoint = CheckpointFile(tmp_path / "w.resume", _IDENTITY, every=2)
    kill = _killed_after(8 * steps)
    with pytest.raises(_KilledError):
        train(_module(), _pictures(), recipe=recipe, augment=True, checkpoint=checkpoint, progress=kill)
    # of the three steps of an epoch the second and the last have a checkpoint, right after they were told of
    snapshot = checkpoint.read()
    written = max(step for step in (0, 2, 3, 5, 6) if step < steps)
    assert (snapshot is None) == (written == 0)
    if snapshot is not None:
        assert 3 * len(snapshot.position.epochs) + snapshot.position.steps == written
    other = build("cifar_resnet8", num_classes=2, seed=77)  # what it starts from is in the checkpoint
    module = _module() if snapshot is None else other
    resumed = train(module, _pictures(), recipe=recipe, augment=True, test=_pictures(4, seed=1), checkpoint=checkpoint)
    assert state_dict_hash(module) == state_dict_hash(whole)
    for name, tensor in whole.state_dict().items():  # BatchNorm's statistics and counters too
        assert torch.equal(tensor, module.state_dict()[name]), name
    for one, two in zip(expected[len(resumed) - 1 :], resumed[-1:], strict=True):
        assert replace(one, seconds=0) == replace(two, seconds=0)


@pytest.mark.slow
def test_without_the_momentum_the_weights_would_be_others(tmp_path: Path) -> None:
    whole = _module()
    train(whole, _pictures(), recipe=_RECIPE)
    checkpoint = CheckpointFile(tmp_path / "w.resume", _IDENTITY, every=2)
    with pytest.raises(_KilledError):
        train(_module(), _pictures(), recipe=_RECIPE, checkpoint=checkpoint, progress=_killed_after(64))
    snapshot = checkpoint.read()
    assert snapshot is not None
    checkpoint.write(replace(snapshot, momentum={}))
    module = _module()
    train(module, _pictures(), recipe=_RECIPE, checkpoint=checkpoint)
    assert state_dict_hash(module) != state_dict_hash(whole)


@pytest.mark.slow
def test_from_the_disk_with_a_bad_picture_it_is_resumed_too(tmp_path: Path) -> None:
    write_images(tmp_path / "images", count=8, size=40)
    cut = tmp_path / "images" / "red" / "003.png"
    cut.write_bytes(cut.read_bytes()[:-2000])
    folder = ImageFolder.scan(tmp_path / "images", Preprocessing(size=32, resize=36))
    whole, resumed = _module(), _module()
    expected = train(whole, PicturesOnDisk(folder, skip_bad=True), recipe=_RECIPE, augment=True)
    checkpoint = CheckpointFile(tmp_path / "w.resume", _IDENTITY, every=1)
    on_disk = PicturesOnDisk(folder, skip_bad=True)
    with pytest.raises(_KilledError):
        train(_module(), on_disk, recipe=_RECIPE, augment=True, checkpoint=checkpoint, progress=_killed_after(32))
    on_disk = PicturesOnDisk(folder, skip_bad=True)
    results = train(resumed, on_disk, recipe=_RECIPE, augment=True, checkpoint=checkpoint)
    assert state_dict_hash(resumed) == state_dict_hash(whole)
    assert [result.loss for result in results] == [result.loss for result in expected]
    assert [bad.path for bad in on_disk.skipped] == [cut]


class _Dropped(nn.Sequential):
    """A network with something random in it."""


def test_dropout_is_resumed_too(tmp_path: Path) -> None:
    def module() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return _Dropped(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(4 * 30 * 30, 2))

    whole, stopped = module(), module()
    recipe = replace(_RECIPE, learning_rate=0.001)
    train(whole, _pictures(), recipe=recipe)
    checkpoint = CheckpointFile(tmp_path / "w.resume", _IDENTITY, every=2)
    with pytest.raises(_KilledError):
        train(module(), _pictures(), recipe=recipe, checkpoint=checkpoint, progress=_killed_after(64))
    train(stopped, _pictures(), recipe=recipe, checkpoint=checkpoint)
    assert state_dict_hash(stopped) == state_dict_hash(whole)


def test_only_the_head_is_trained() -> None:
    module = _module()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    train(module, _pictures(), recipe=_RECIPE, augment=True, head_only=True)
    changed = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_bf16_on_the_cpu() -> None:
    module = _module()
    results = train(module, _pictures(), recipe=_RECIPE, execution=Execution(precision="bf16"))
    assert results[-1].loss < results[0].loss
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_cuda(tmp_path: Path, precision: str) -> None:
    execution = Execution(device="cuda", precision=precision)
    module = _module()
    checkpoint = CheckpointFile(tmp_path / "w.resume", _IDENTITY, every=2)
    options: dict[str, Any] = {"recipe": _RECIPE, "execution": execution, "checkpoint": checkpoint}
    with pytest.raises(_KilledError):
        train(_module(), _pictures(), **options, progress=_killed_after(64))
    results = train(module, _pictures(), **options, test=_pictures(6, seed=1))
    assert results[-1].loss < results[0].loss
    assert next(module.parameters()).device.type == "cpu"


def test_a_loss_that_is_not_finite_stops_it_and_the_good_state_stays(tmp_path: Path) -> None:
    checkpoint = CheckpointFile(tmp_path / "w.resume", _IDENTITY, every=1)
    recipe = PaperRecipe(epochs=3, batch=8, learning_rate=1e30)
    with pytest.raises(RexportError, match=r"diverged: at step \d of epoch 1 .*Lower --lr \(it is 1e\+30\)"):
        train(_module(), _pictures(), recipe=recipe, checkpoint=checkpoint)
    snapshot = checkpoint.read()
    assert snapshot is None or all(bool(tensor.isfinite().all()) for tensor in snapshot.model.values())


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.resume"
    train(_module(), _pictures(), recipe=_RECIPE, checkpoint=CheckpointFile(path, _IDENTITY))
    other = replace(_IDENTITY, learning_rate=0.2, images="others", classes=("a", "b"))
    with pytest.raises(UsageError) as caught:
        CheckpointFile(path, other).read()
    message = str(caught.value)
    assert "learning rate was 0.1 and is now 0.2; the classes have changed; the images have changed." in message
    assert "--restart" in message


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x02\0\0\0\0\0\0\0{}"])
def test_a_damaged_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.resume"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged.*--restart"):
        CheckpointFile(path, _IDENTITY).read()


def test_how_far_a_training_is_in_words() -> None:
    first = EpochResult(epoch=1, loss=1.0, train_top1=0.5, top1=None, seconds=1.0)
    assert str(Position(epochs=(first,))) == "epoch 1"
    assert str(Position(epochs=(first,), steps=3)) == "step 3 of epoch 2"


def test_removing_takes_what_a_kill_left_with_it(tmp_path: Path) -> None:
    checkpoint = CheckpointFile(tmp_path / "w.resume", _IDENTITY)
    (tmp_path / ".w.resume.0123abcd.part").touch()
    (tmp_path / ".other.0123abcd.part").touch()
    checkpoint.remove()
    assert [path.name for path in tmp_path.iterdir()] == [".other.0123abcd.part"]
