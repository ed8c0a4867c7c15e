from __future__ import annotations

import io
import threading
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from rexport import Preprocessing
from rexport._errors import DataError, UsageError
from rexport.calibration import TenCrops, Views, WholePictures
from rexport.calibration.image_folder import ImageFolder
from rexport.preprocessing import Takes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_SIZE = 8
_EXACT = Preprocessing(size=_SIZE)


def _pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (_SIZE, _SIZE, 3), dtype=np.uint8)


def _encoded(pixels: np.ndarray, kind: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _fill(folder: Path, names: Iterable[str]) -> Path:
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_encoded(_pixels(index)))
    return folder


def _names(folder: ImageFolder, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in folder.paths]


def test_classes_are_the_folders_sorted_by_name(tmp_path: Path) -> None:
    _fill(tmp_path, ["dog/2.png", "dog/1.png", "cat/9.png", "Zebra/1.png", "10/1.png", "9/1.png"])
    folder = ImageFolder.scan(tmp_path, _EXACT)
    assert folder.classes == ("10", "9", "Zebra", "cat", "dog")  # as Python sorts, and so torchvision
    assert folder.labels == (0, 1, 2, 3, 4, 4)
    assert _names(folder, tmp_path)[-2:] == ["dog/1.png", "dog/2.png"]
    assert folder.labelled
    (batch,) = folder.batches(10)
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, 2, 3, 4, 4]
    assert batch.labels.dtype == np.int64


def test_images_deeper_in_a_class_belong_to_it(tmp_path: Path) -> None:
    _fill(tmp_path, ["cat/a/b/1.png", "cat/2.png", "dog/3.png"])
    folder = ImageFolder.scan(tmp_path, _EXACT)
    assert _names(folder, tmp_path) == ["cat/2.png", "cat/a/b/1.png", "dog/3.png"]
    assert folder.labels == (0, 0, 1)


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    folder = ImageFolder.scan(_fill(tmp_path, ["2.png", "1.png"]), _EXACT)
    assert (folder.classes, folder.labelled, len(folder)) == (None, False, 2)
    (batch,) = folder.batches(10)
    assert batch.labels is None
    np.testing.assert_array_equal(batch.images[1], _EXACT.normalise(_pixels(0)))  # 1.png is first


def test_raw_images_are_the_pixels(tmp_path: Path) -> None:
    folder = ImageFolder.scan(_fill(tmp_path, ["1.png", "2.png"]), replace(_EXACT, takes=Takes.PIXELS))
    (batch,) = folder.batches(10)
    assert batch.images.dtype == np.uint8
    np.testing.assert_array_equal(batch.images, np.stack([_pixels(0), _pixels(1)]))
    (views,) = folder.view_batches(WholePictures((_SIZE,)), 10)
    np.testing.assert_array_equal(np.stack([one[0] for one in views.pictures]), batch.images)


def test_whole_pictures_come_one_by_one(tmp_path: Path) -> None:
    pictures = [_pixels(0), np.zeros((5, 9, 3), np.uint8), np.ones((30, 20, 3), np.uint8)]
    for index, pixels in enumerate(pictures):
        (tmp_path / f"{index}.png").write_bytes(_encoded(pixels))
    (tmp_path / "3.png").write_bytes(b"no picture")
    folder = ImageFolder.scan(tmp_path, Preprocessing(size=_SIZE, resize=9, takes=Takes.PICTURES))
    *batches, last = folder.batches(10, skip_bad=True)
    for batch, pixels in zip(batches, pictures, strict=True):
        np.testing.assert_array_equal(batch.images, pixels[None])
    assert (len(last), len(last.skipped)) == (0, 1)


@pytest.mark.parametrize("views", [TenCrops(), WholePictures((_SIZE,))])
def test_a_model_that_cuts_pictures_is_shown_no_others(tmp_path: Path, views: Views) -> None:
    preprocessing = Preprocessing(size=_SIZE, resize=9, takes=Takes.PICTURES)
    folder = ImageFolder.scan(_fill(tmp_path, ["1.png"]), preprocessing)
    with pytest.raises(UsageError, match="resizes and crops pictures itself"):
        next(folder.view_batches(views, 10))


def test_images_beside_folders_of_images_are_an_error(tmp_path: Path) -> None:
    _fill(tmp_path, ["cat/1.png", "2.png"])
    with pytest.raises(DataError, match=r"as well as folders of images \(such as cat\)"):
        ImageFolder.scan(tmp_path, _EXACT)


def test_no_images_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match=r"No images in .*looked for \.bmp, \.jpeg"):
        ImageFolder.scan(tmp_path, _EXACT)


def test_suffixes_count_in_either_case_and_other_files_do_not(tmp_path: Path) -> None:
    _fill(tmp_path, ["1.PNG", "2.Png", "3.png", "4.png.txt", "labels.csv", "Thumbs.db", "png"])
    assert _names(ImageFolder.scan(tmp_path, _EXACT), tmp_path) == ["1.PNG", "2.Png", "3.png"]


def test_hidden_files_and_folders_are_not_meant(tmp_path: Path) -> None:
    _fill(tmp_path, ["cat/1.png", "cat/._1.png", "cat/.thumbnails/1.png", ".cache/1.png", "._x.png"])
    folder = ImageFolder.scan(tmp_path, _EXACT)
    assert _names(folder, tmp_path) == ["cat/1.png"]
    assert folder.classes == ("cat",)


def test_links_are_followed_and_one_that_leads_nowhere_is_a_bad_image(tmp_path: Path) -> None:
    _fill(tmp_path / "elsewhere", ["1.png"])
    _fill(tmp_path / "data", ["cat/2.png"])
    (tmp_path / "data" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    folder = ImageFolder.scan(tmp_path / "data", _EXACT)
    assert _names(folder, tmp_path / "data") == ["cat/2.png", "cat/more/1.png"]
    (tmp_path / "data" / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"1 of 3 images can't be used:\n.*gone\.png"):
        list(ImageFolder.scan(tmp_path / "data", _EXACT).batches(2))


# Every way in which a file of a real collection is broken.
_BAD = {
    "empty.png": (b"", "is not an image that Pillow knows"),
    "text.png": (b"not a picture, whatever its name says", "is not an image that Pillow knows"),
    "truncated.jpg": (_encoded(np.tile(_pixels(), (4, 4, 1)), "jpeg")[:-300], "can't be decoded .*truncated"),
    "cut.png": (_encoded(_pixels())[:60], "can't be decoded"),
    "large.png": (_encoded(np.zeros((9, 8, 3), np.uint8)), "is 9×8 pixels, and the model takes 8×8"),
    "bomb.ppm": (b"P6 60000 60000 255\n", "can't be decoded .*decompression bomb"),
}


@pytest.mark.parametrize("name", _BAD)
def test_a_bad_image_is_named_with_the_reason_and_skipped_on_request(tmp_path: Path, name: str) -> None:
    _fill(tmp_path, ["cat/1.png", "dog/2.png", "dog/z.png"])
    content, why = _BAD[name]
    (tmp_path / "cat" / name).write_bytes(content)
    folder = ImageFolder.scan(tmp_path, _EXACT)
    with pytest.raises(DataError, match=rf"(?s)^1 of 4 images can't be used:\n.*{name}: {why}.*--skip-bad"):
        list(folder.batches(2))
    batches = list(folder.batches(2, skip_bad=True))
    assert [len(batch.images) for batch in batches] == [2, 1]
    assert [batch.labels.tolist() for batch in batches if batch.labels is not None] == [[0, 1], [1]]
    assert [bad.path.name for batch in batches for bad in batch.skipped] == [name]


def test_all_bad_images_are_counted_and_the_first_named(tmp_path: Path) -> None:
    _fill(tmp_path, ["1.png"])
    for index in range(7):
        (tmp_path / f"bad{index}.png").write_bytes(b"bad")
    with pytest.raises(DataError, match=r"(?s)7 of 8 images.*bad0.*bad4.*… and 2 more") as caught:
        list(ImageFolder.scan(tmp_path, _EXACT).batches(1))
    assert "bad5" not in str(caught.value)


def test_nothing_but_bad_images_is_an_error_even_with_skip_bad(tmp_path: Path) -> None:
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(b"bad")
    for skip_bad in (False, True):
        with pytest.raises(DataError, match="3 of 3 images") as caught:
            list(ImageFolder.scan(tmp_path, _EXACT).batches(2, skip_bad=skip_bad))
        assert "--skip-bad" not in str(caught.value)  # it would not help


def test_bad_images_at_the_end_are_told_of_in_a_batch_without_images(tmp_path: Path) -> None:
    _fill(tmp_path, ["1.png", "2.png"])
    (tmp_path / "z.png").write_bytes(b"bad")
    last = list(ImageFolder.scan(tmp_path, _EXACT).batches(2, skip_bad=True))[-1]
    assert last.images.shape == (0, 3, _SIZE, _SIZE)
    assert [bad.path.name for bad in last.skipped] == ["z.png"]


def _grey16(kind: str) -> bytes:
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
    return _encoded(ramp, kind)


_RAMP = np.repeat((np.arange(64).reshape(8, 8, 1) * 4).astype(np.uint8), 3, axis=2)


def _in_mode(mode: str, kind: str) -> bytes:
    buffer = io.BytesIO()
    # the palette is made of the picture's own 64 greys, so every mode holds them exactly
    Image.fromarray(_RAMP).convert(mode, palette=Image.Palette.ADAPTIVE).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("grey.png", _in_mode("L", "png")),
        ("alpha.png", _in_mode("RGBA", "png")),
        ("grey-alpha.png", _in_mode("LA", "png")),
        ("palette.png", _in_mode("P", "png")),
        ("cmyk.tif", _in_mode("CMYK", "tiff")),
        ("rgb.bmp", _in_mode("RGB", "bmp")),
        ("rgb.ppm", _in_mode("RGB", "ppm")),
        ("grey16.png", _grey16("png")),
        ("grey16.tif", _grey16("tiff")),
    ],
)
def test_every_kind_of_pixels_becomes_rgb(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    (batch,) = ImageFolder.scan(tmp_path, _EXACT).batches(1)
    pixels = np.moveaxis(batch.images[0], 0, -1) * np.float32(_EXACT.std) + np.float32(_EXACT.mean)
    np.testing.assert_allclose(255 * pixels, _RAMP, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_known_white_are_refused(tmp_path: Path, dtype: type) -> None:
    (tmp_path / "depth.tif").write_bytes(_encoded(np.ones((8, 8), dtype), "tiff"))
    with pytest.raises(DataError, match="32 bits"):
        list(ImageFolder.scan(tmp_path, _EXACT).batches(1))


def test_samples_are_taken_from_every_class(tmp_path: Path) -> None:
    _fill(tmp_path, [f"{label}/{index}.png" for label in "abcd" for index in range(25)])
    folder = ImageFolder.scan(tmp_path, _EXACT)
    labels: list[int] = []
    for batch in folder.batches(8, samples=20):
        assert batch.labels is not None
        labels += batch.labels.tolist()
    assert Counter(labels) == {0: 5, 1: 5, 2: 5, 3: 5}


def test_batches_come_in_order_and_again(tmp_path: Path) -> None:
    _fill(tmp_path, [f"{index:02d}.png" for index in range(11)])
    folder = ImageFolder.scan(tmp_path, _EXACT)
    for _ in range(2):
        batches = [batch.images for batch in folder.batches(4)]
        assert [len(images) for images in batches] == [4, 4, 3]
        np.testing.assert_array_equal(
            np.concatenate(batches), _EXACT.normalise(np.stack([_pixels(index) for index in range(11)]))
        )


class _Counting(Preprocessing):
    """Counts the pictures that were decoded."""

    decoded = 0

    def crop(self, image: Image.Image) -> np.ndarray:
        type(self).decoded += 1
        return super().crop(image)


def test_no_more_than_a_few_batches_are_decoded_ahead(tmp_path: Path) -> None:
    _fill(tmp_path, [f"{index:03d}.png" for index in range(100)])
    _Counting.decoded = 0
    batches = ImageFolder.scan(tmp_path, _Counting(size=_SIZE)).batches(4)
    next(batches)
    batches.close()  # waits for those on the way
    assert 4 <= _Counting.decoded <= 4 + 2 * 4 + 1  # the batch, two ahead, and the one that made room


def test_stopping_early_ends_the_threads(tmp_path: Path) -> None:
    _fill(tmp_path, [f"{index:03d}.png" for index in range(50)])
    before = set(threading.enumerate())
    batches = ImageFolder.scan(tmp_path, _EXACT).batches(2)
    next(batches)
    assert set(threading.enumerate()) - before
    batches.close()
    assert set(threading.enumerate()) == before


def test_a_flat_folder_with_a_file_of_labels(tmp_path: Path) -> None:
    _fill(tmp_path, ["1.png", "2.png", "3.png"])
    (tmp_path / "image_labels.csv").write_text("image,label\n1.png,owl\n2.png,cat\n3.png,owl\n")
    folder = ImageFolder.scan(tmp_path, _EXACT)
    assert folder.labelled
    assert (folder.labels, folder.classes) == ((1, 0, 1), ("cat", "owl"))
