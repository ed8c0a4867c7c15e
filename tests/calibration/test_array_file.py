from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from rexport import Preprocessing
from rexport._errors import DataError
from rexport.calibration.array_file import ArrayFile
from rexport.preprocessing import Takes

_SIZE = 4
_PREPROCESSING = Preprocessing(size=_SIZE)
_RAW = Preprocessing(size=_SIZE, takes=Takes.PIXELS)
_PIXELS = np.random.default_rng(0).integers(0, 256, (7, _SIZE, _SIZE, 3), dtype=np.uint8)
_READY = _PREPROCESSING.normalise(_PIXELS)
_LABELS = np.array([3, 1, 4, 1, 5, 9, 2])


def _open(path: Path) -> ArrayFile:
    return ArrayFile(path, _PREPROCESSING)


def _write(kind: str, folder: Path, images: np.ndarray, **arrays: np.ndarray) -> Path:
    """Write an ``npy``, an ``npz`` or a ``compressed npz``."""
    path = folder / f"a.{kind[-3:]}"
    if kind == "npy":
        np.save(path, images)
    else:
        (np.savez_compressed if kind.startswith("c") else np.savez)(path, images=images, **arrays)
    return path


def _all(data: ArrayFile, size: int = 3, **options: int) -> np.ndarray:
    return np.concatenate([batch.images for batch in data.batches(size, **options)])


@pytest.mark.parametrize("array", [_PIXELS, _READY], ids=["uint8 NHWC", "float32 NCHW"])
@pytest.mark.parametrize("kind", ["npy", "npz", "compressed npz", "one array in an npz"])
def test_pictures_and_ready_inputs_come_out_the_same(tmp_path: Path, array: np.ndarray, kind: str) -> None:
    path = _write(kind, tmp_path, array, notes=np.zeros(3))
    if kind == "one array in an npz":
        np.savez(path, array)  # called arr_0
    data = _open(path)
    assert (len(data), data.classes, data.labelled) == (7, None, False)
    for _ in range(2):  # again and again
        batches = list(data.batches(3))
        assert [len(batch.images) for batch in batches] == [3, 3, 1]
        assert {(batch.images.dtype.name, batch.images.flags.c_contiguous) for batch in batches} == {("float32", True)}
        np.testing.assert_array_equal(np.concatenate([batch.images for batch in batches]), _READY)


def test_pixels_go_to_a_model_of_raw_images_as_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", _PIXELS)
    images = _all(ArrayFile(tmp_path / "a.npy", _RAW))
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, _PIXELS)


@pytest.mark.parametrize(
    ("array", "takes", "found", "needed"),
    [
        (_READY, Takes.PIXELS, "float32 of shape (7, 3, 4, 4)", "(N, 4, 4, 3)"),
        (_PIXELS[:, :3], Takes.PIXELS, "uint8 of shape (7, 3, 4, 3)", "(N, 4, 4, 3)"),
        (_READY, Takes.PICTURES, "float32 of shape (7, 3, 4, 4)", "(N, H, W, 3)"),
        (_PIXELS[..., :1].copy(), Takes.PICTURES, "uint8 of shape (7, 4, 4, 1)", "(N, H, W, 3)"),
        (_PIXELS[:, :0], Takes.PICTURES, "uint8 of shape (7, 0, 4, 3)", "(N, H, W, 3)"),
    ],
)
def test_a_model_of_raw_images_takes_nothing_else(
    tmp_path: Path, array: np.ndarray, takes: Takes, found: str, needed: str
) -> None:
    path = tmp_path / "a.npy"
    np.save(path, array)
    with pytest.raises(DataError) as caught:
        ArrayFile(path, replace(_PREPROCESSING, takes=takes))
    assert str(caught.value) == f"{path} holds {found}; the model needs uint8 pictures of shape {needed}."


def test_pictures_of_another_size_go_to_a_model_that_cuts_them(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", _PIXELS[:, :3])
    images = _all(ArrayFile(tmp_path / "a.npy", replace(_PREPROCESSING, takes=Takes.PICTURES)))
    np.testing.assert_array_equal(images, _PIXELS[:, :3])


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int32, ">i4"])
def test_labels_go_with_their_images(tmp_path: Path, dtype: str) -> None:
    np.savez(tmp_path / "a.npz", images=_PIXELS, labels=_LABELS.astype(dtype))
    data = _open(tmp_path / "a.npz")
    assert data.labelled
    batches = list(data.batches(2, samples=3))
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in batches]), _READY[[0, 2, 4]])
    labels = [batch.labels for batch in batches if batch.labels is not None]
    assert np.concatenate(labels).tolist() == [3, 4, 5]
    assert {array.dtype for array in labels} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (_READY.astype(np.float64), r"float64 of shape \(7, 3, 4, 4\); the model needs float32"),
        (_READY.astype(">f4"), ">f4"),
        (_READY.transpose(0, 2, 3, 1).copy(), r"float32 of shape \(7, 4, 4, 3\)"),
        (_PIXELS.transpose(0, 3, 1, 2).copy(), r"uint8 of shape \(7, 3, 4, 4\)"),
        (_PIXELS[:, :3], r"shape \(7, 3, 4, 3\)"),
        (_PIXELS[..., :1].copy(), r"shape \(7, 4, 4, 1\)"),
        (_PIXELS[0], r"shape \(4, 4, 3\)"),
        (_PIXELS[:0], "holds no images"),
        (np.asfortranarray(_PIXELS), "ascontiguousarray"),
        (np.float32(1), "not a plain one"),
        (np.array([{"a": 1}], object), "can't be read"),
    ],
    ids=["float64", "big-endian", "NHWC", "NCHW", "size", "grey", "one", "none", "Fortran", "scalar", "object"],
)
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_other_arrays_are_refused_in_words(tmp_path: Path, array: np.ndarray, match: str, kind: str) -> None:
    with pytest.raises(DataError, match=match):
        _open(_write(kind, tmp_path, array))


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    trap = np.array([Trap()], object)
    np.save(tmp_path / "a.npy", trap)
    np.savez(tmp_path / "images.npz", images=trap)
    np.savez(tmp_path / "labels.npz", images=_PIXELS, labels=trap)
    for name in ("a.npy", "images.npz", "labels.npz"):
        with pytest.raises(DataError):
            _open(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "labels",
    [_LABELS[:6], _LABELS[:, None], np.eye(10)[_LABELS], _LABELS.astype(np.float32), _LABELS.astype(str)],
    ids=["too few", "a column", "one-hot", "floats", "text"],
)
def test_labels_are_one_integer_for_each_image(tmp_path: Path, labels: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", images=_PIXELS, labels=labels)
    with pytest.raises(DataError, match="not an integer for each of 7 images"):
        _open(tmp_path / "a.npz")


@pytest.mark.parametrize("arrays", [{}, {"labels": _LABELS}, {"a": _PIXELS, "b": _PIXELS}], ids=["0", "labels", "2"])
def test_it_must_be_clear_which_array_holds_the_images(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match="it needs an array called 'images', and has"):
        _open(tmp_path / "a.npz")


@pytest.mark.parametrize("kind", ["npy", "npz", "compressed npz"])
def test_broken_files_are_data_errors(tmp_path: Path, kind: str) -> None:
    path = _write(kind, tmp_path, _PIXELS, labels=_LABELS)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        broken = bytearray(whole)
        for position in random.integers(0, len(whole), 3):
            broken[position] = random.integers(256)
        path.write_bytes(broken[: random.integers(len(whole))] if random.random() < 0.3 else broken)
        try:
            _all(_open(path))
        except DataError:
            refused += 1
    assert refused > 100  # what is left has other pixels, and nothing else
    path.write_bytes(whole)
    np.testing.assert_array_equal(_all(_open(path)), _READY)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does it")
def test_a_header_that_is_larger_than_memory(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little"))
    program = f"""
import resource
from pathlib import Path
from rexport._errors import DataError
from rexport.calibration import open_dataset
from rexport.preprocessing import Preprocessing
preprocessing = Preprocessing(size=8, mean=(0, 0, 0), std=(1, 1, 1))
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
try:
    open_dataset(Path({str(tmp_path / "a.npy")!r}), preprocessing)
except DataError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
    assert "can't be read as a NumPy file" in done.stdout, done.stderr


def test_a_file_that_ends_early_says_where(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", _PIXELS)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-50])
    data = _open(tmp_path / "a.npy")
    with pytest.raises(DataError, match="can't be read to its end: it ends in the middle of item 5"):
        _all(data)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from Linux's /proc")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npy", "npz", "compressed npz"])
def test_the_array_is_never_in_memory_as_a_whole(tmp_path: Path, kind: str) -> None:
    path = _write(kind, tmp_path, np.zeros((2000, 224, 224, 3), np.uint8))  # 287 MiB
    program = dedent(
        """
        import sys
        from pathlib import Path
        from rexport import Preprocessing
        from rexport.calibration.array_file import ArrayFile
        def peak():
            lines = Path("/proc/self/status").read_text().splitlines()
            return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) / 1024
        before = peak()
        data = ArrayFile(Path(sys.argv[1]), Preprocessing(size=224))
        assert sum(len(batch.images) for batch in data.batches(4, samples=100)) == 100
        print(peak() - before)
        """
    )
    done = subprocess.run([sys.executable, "-P", "-c", program, path], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 60  # MiB: a few batches of 4 pictures as floats are 2.3 each
