from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from rexport import Preprocessing
from rexport._errors import DataError
from rexport.calibration import CalibrationTable, calibrate, calibrate_dataset, open_dataset
from rexport.calibration.workers import LocalWorkers, ProcessWorkers, Workers
from tests.calibration.test_calibrate import block

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from rexport.calibration import Dataset

_PREPROCESSING = Preprocessing(size=16)
_IMAGES = 150  # two shards of 64 and one of 22
_LOCAL = LocalWorkers(threads=1)


@pytest.fixture(scope="module")
def model() -> ir.Model:
    return block()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("pictures")
    for index in range(_IMAGES):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{index:03d}.png")
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return open_dataset(folder, _PREPROCESSING)


@pytest.fixture(scope="module")
def whole(model: ir.Model, dataset: Dataset) -> CalibrationTable:
    """The table of one pass in this process, without shards."""
    return calibrate(model, (batch.images for batch in dataset.batches(4)), threads=1)


@dataclass(frozen=True)
class _Watched:
    """This process, noting how many shards it was given."""

    given: list[int] = field(default_factory=list)
    threads: int = 1

    def map(self, work: Any, items: Sequence[Any]) -> Generator[tuple[int, Any], None, None]:
        self.given.append(len(items))
        return _LOCAL.map(work, items)


@dataclass(frozen=True)
class _Backwards:
    threads: int = 1

    def map(self, work: Any, items: Sequence[Any]) -> Generator[tuple[int, Any], None, None]:
        for position, result in _LOCAL.map(work, items[::-1]):
            yield len(items) - 1 - position, result


@pytest.mark.slow
@pytest.mark.parametrize(
    "workers",
    [
        _LOCAL,
        _Backwards(),
        ProcessWorkers(count=1, threads=1),
        pytest.param(ProcessWorkers(count=3, threads=1), marks=pytest.mark.slow),
    ],
    ids=["local", "backwards", "1 process", "3 processes"],
)
def test_all_workers_give_the_table_of_one_pass_to_the_bit(
    model: ir.Model, dataset: Dataset, whole: CalibrationTable, workers: Workers, tmp_path: Path
) -> None:
    result = calibrate_dataset(model, dataset, workers=workers, checkpoints=tmp_path)
    assert result.table.to_json() == whole.to_json()
    assert (result.skipped, result.resumed) == ((), 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_array_file_gives_the_same_as_its_pictures(
    model: ir.Model, dataset: Dataset, whole: CalibrationTable, tmp_path: Path
) -> None:
    pixels = np.stack([np.asarray(Image.open(path)) for path in dataset.paths])
    np.save(tmp_path / "a.npy", pixels)
    np.savez_compressed(tmp_path / "a.npz", images=pixels)
    for name in ("a.npy", "a.npz"):
        array = open_dataset(tmp_path / name, _PREPROCESSING)
        assert calibrate_dataset(model, array, workers=_LOCAL).table.to_json() == whole.to_json()
        some = calibrate_dataset(model, array, workers=_LOCAL, samples=70).table
        assert some.to_json() == calibrate_dataset(model, dataset, workers=_LOCAL, samples=70).table.to_json()
        assert some.images == 70


@contextmanager
def _interrupting(description: str, total: int | None) -> Iterator[Any]:
    """A progress bar whose user types Ctrl-C once there is some."""

    def advance(steps: int) -> None:
        if steps:
            raise KeyboardInterrupt

    yield advance


def test_an_interrupted_run_goes_on_where_it_was_and_gives_the_same_table(
    model: ir.Model, dataset: Dataset, whole: CalibrationTable, tmp_path: Path
) -> None:
    workers = _Watched()
    with pytest.raises(KeyboardInterrupt):
        calibrate_dataset(model, dataset, workers=workers, checkpoints=tmp_path, progress=_interrupting)
    assert len(list(tmp_path.iterdir())) == 1
    told: list[int] = []

    @contextmanager
    def progress(description: str, total: int | None) -> Iterator[Any]:
        assert total == _IMAGES
        yield told.append

    # other work does not go on from there
    calibrate_dataset(model, dataset, workers=workers, checkpoints=tmp_path, samples=140)
    calibrate_dataset(model, dataset, workers=workers, checkpoints=tmp_path, batch=8)
    result = calibrate_dataset(model, dataset, workers=workers, checkpoints=tmp_path, progress=progress)
    assert result.table.to_json() == whole.to_json()
    assert (workers.given, result.resumed, told) == ([3, 3, 3, 2], 64, [64, 64, 22])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "rexport.calibration-checkpoint/1", "shards": [0]}'])
def test_a_broken_checkpoint_is_passed_over(
    model: ir.Model, dataset: Dataset, whole: CalibrationTable, tmp_path: Path, text: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        calibrate_dataset(model, dataset, workers=_LOCAL, checkpoints=tmp_path, progress=_interrupting)
    (checkpoint,) = tmp_path.iterdir()
    checkpoint.write_text(text)
    result = calibrate_dataset(model, dataset, workers=_LOCAL, checkpoints=tmp_path)
    assert (result.table.to_json(), result.resumed) == (whole.to_json(), 0)


def test_without_a_place_for_checkpoints_there_are_none(
    model: ir.Model, dataset: Dataset, whole: CalibrationTable, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for progress in (_interrupting, None):
        options = {} if progress is None else {"progress": progress}
        try:
            result = calibrate_dataset(model, dataset, workers=_LOCAL, checkpoints=tmp_path / "file", **options)
        except KeyboardInterrupt:
            continue
        assert (result.table.to_json(), result.resumed) == (whole.to_json(), 0)


def _with_bad(folder: Path, into: Path, bad: Sequence[int]) -> Dataset:
    for path in folder.iterdir():
        (into / path.name).hardlink_to(path)
    for index in bad:
        (into / f"{index:03d}.png").unlink()
        (into / f"{index:03d}.png").write_text("no picture")
    return open_dataset(into, _PREPROCESSING)


@pytest.mark.slow
def test_bad_images_of_all_shards_are_counted_or_skipped(model: ir.Model, folder: Path, tmp_path: Path) -> None:
    bad = [3, 70, 71, 149]
    broken = _with_bad(folder, tmp_path, bad)
    with pytest.raises(DataError, match=r"4 of 150 images can't be used:\n  .*003.png: is not an image"):
        calibrate_dataset(model, broken, workers=_LOCAL)
    result = calibrate_dataset(model, broken, workers=ProcessWorkers(count=2, threads=1), skip_bad=True)
    assert [image.path.name for image in result.skipped] == [f"{index:03d}.png" for index in bad]
    assert result.table.images == 146


def test_a_shard_without_good_images_is_skipped_but_not_all_of_them(
    model: ir.Model, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "all").mkdir()
    result = calibrate_dataset(model, _with_bad(folder, tmp_path / "some", range(64)), workers=_LOCAL, skip_bad=True)
    assert (result.table.images, len(result.skipped)) == (86, 64)
    with pytest.raises(DataError, match="150 of 150 images can't be used"):
        calibrate_dataset(model, _with_bad(folder, tmp_path / "all", range(150)), workers=_LOCAL, skip_bad=True)


@pytest.mark.slow
def test_values_that_are_not_finite_name_their_image(model: ir.Model, tmp_path: Path) -> None:
    ready = np.zeros((100, 3, 16, 16), np.float32)
    ready[90, 1, 2, 3] = np.nan
    np.save(tmp_path / "a.npy", ready)
    for workers in (_LOCAL, ProcessWorkers(count=2, threads=1)):
        with pytest.raises(DataError, match=r"'x' takes values that are not finite .* in image 91;"):
            calibrate_dataset(model, open_dataset(tmp_path / "a.npy", _PREPROCESSING), workers=workers)
