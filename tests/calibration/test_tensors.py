"""Examples for models that take no pictures: from files, folders and functions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rexport._errors import DataError, UsageError
from rexport.calibration.tensors import TensorDataset, has_tensors, open_tensors
from rexport.model_inputs import TensorInput

if TYPE_CHECKING:
    from rexport.calibration.dataset import Batch
    from rexport.feeds import Feed

_X = TensorInput(name="x", dtype="float32", shape=(None, 3, 4))
_N = TensorInput(name="n", dtype="int64", shape=(None, 2))
_RANDOM = np.random.default_rng(0)
_XS, _NS = _RANDOM.standard_normal((7, 3, 4)).astype(np.float32), np.arange(14).reshape(7, 2)


def _joined(batches: list[Batch], name: str) -> np.ndarray:
    feeds: list[Feed] = [batch.feed for batch in batches]
    return np.concatenate([feed if isinstance(feed, np.ndarray) else feed[name] for feed in feeds])


def _read(dataset: TensorDataset, size: int, samples: int | None = None) -> list[Batch]:
    return list(dataset.batches(size, samples=samples))


def test_a_file_has_an_array_for_each_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", n=_NS, x=_XS, labels=np.arange(7), other=np.zeros(1))
    dataset = open_tensors(tmp_path / "d.npz", [_X, _N])
    assert (len(dataset), dataset.labelled, dataset.classes) == (7, True, None)
    batches = _read(dataset, 3)
    assert [len(batch) for batch in batches] == [3, 3, 1]
    np.testing.assert_array_equal(_joined(batches, "x"), _XS)
    np.testing.assert_array_equal(_joined(batches, "n"), _NS)
    assert [list(batch.labels) for batch in batches if batch.labels is not None] == [[0, 1, 2], [3, 4, 5], [6]]
    np.testing.assert_array_equal(_joined(_read(dataset.subset([1, 4, 6]), 8, samples=2), "x"), _XS[[1, 4]])


@pytest.mark.parametrize("labels", [np.arange(6), np.arange(8), np.arange(7.0)], ids=["too few", "too many", "floats"])
def test_labels_are_one_integer_for_each_example(tmp_path: Path, labels: np.ndarray) -> None:
    np.savez(tmp_path / "d.npz", n=_NS, x=_XS, labels=labels)
    with pytest.raises(DataError, match="not an integer for each of 7 examples"):
        open_tensors(tmp_path / "d.npz", [_X, _N])


def test_one_array_may_have_any_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", _XS, labels=np.zeros(7, np.int64))
    np.save(tmp_path / "d.npy", _XS.astype(np.float64))
    for name in ("d.npz", "d.npy"):
        feed = _read(open_tensors(tmp_path / name, [_X]), 9)[0].feed
        assert isinstance(feed, np.ndarray)
        assert feed.dtype == np.float32
        np.testing.assert_array_equal(feed, _XS)


def test_items_may_be_all_that_the_model_takes(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.stack([_XS, _XS + 1]))
    batches = _read(open_tensors(tmp_path / "d.npz", [_X]), 8)
    assert [batch.images.shape for batch in batches] == [(7, 3, 4)] * 2


def test_a_folder_has_a_file_for_each_example(tmp_path: Path) -> None:
    for index in range(3):
        np.savez(tmp_path / f"{index}.npz", x=_XS[index], n=_NS[index : index + 1])
    assert has_tensors(tmp_path)
    dataset = open_tensors(tmp_path, [_X, _N])
    batches = _read(dataset, 8)
    np.testing.assert_array_equal(_joined(batches, "x"), _XS[:3])
    assert dataset.names()[2].endswith("[2]")
    changed = dataset.fingerprint()
    np.savez(tmp_path / "2.npz", x=_XS[:1], n=_NS[:1])
    assert dataset.fingerprint() != changed


def test_a_function_gives_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "feeds_of_a_test.py").write_text(
        "import numpy as np\n"
        "def dictionaries():\n    for i in range(5): yield {'x': np.full((1, 3, 4), i, np.float32), 'n': [[i, i]]}\n"
        "def tuples():\n    return [(np.zeros((2, 3, 4), np.float32), np.zeros((2, 2), int))]\n"
        "def failing():\n    yield 1 / 0\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert has_tensors(Path("feeds_of_a_test:dictionaries"))
    dataset = open_tensors(Path("feeds_of_a_test:dictionaries"), [_X, _N])
    assert len(dataset) == 5
    np.testing.assert_array_equal(_joined(_read(dataset, 8, samples=2), "x")[:, 0, 0], [0, 2])
    assert [len(batch) for batch in _read(open_tensors(Path("feeds_of_a_test:tuples"), [_X, _N]), 8)] == [2]
    with pytest.raises(DataError, match="failing fails: ZeroDivisionError"):
        open_tensors(Path("feeds_of_a_test:failing"), [_X])
    with pytest.raises(UsageError, match="no function 'absent'"):
        open_tensors(Path("feeds_of_a_test:absent"), [_X])
    with pytest.raises(UsageError, match="The module absent_module can't be imported"):
        open_tensors(Path("absent_module:f"), [_X])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": _XS}, "no array 'n', which the model takes; it has x"),
        ({"x": _XS, "n": _NS[:3]}, "the examples lie along the first axis"),
        (
            {"x": _XS[:, :2], "n": _NS},
            r"shape \(7, 2, 4\), and the model takes x float32 \(\?, 3, 4\)",
        ),
        ({"x": _NS[:, :, None], "n": _NS}, "holds int64"),
        ({"x": _XS, "n": _NS + 0.5}, "holds float64 of shape"),
    ],
)
def test_what_the_model_does_not_take_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        _read(open_tensors(tmp_path / "d.npz", [_X, _N]), 8)


def test_numbers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.full((2, 2), 300))
    small = TensorInput(name="n", dtype="uint8", shape=(None, 2))
    with pytest.raises(DataError, match="do not fit into n uint8"):
        _read(open_tensors(tmp_path / "d.npy", [small]), 8)


def test_pictures_and_broken_files_are_no_examples(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="has no arrays, and the model takes x float32"):
        open_tensors(tmp_path, [_X])
    (tmp_path / "b.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="can't be read as a NumPy file"):
        open_tensors(tmp_path / "b.npz", [_X])
