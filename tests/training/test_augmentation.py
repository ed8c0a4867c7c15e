from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from rexport.training.augmentation import PadCropFlip, ScaleCropFlip

_PIXELS = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
_CHANGE = PadCropFlip(color=(1, 2, 3))
_LAST = 1 - 2**-24  # the largest number that is drawn


def _drawn(*row: float) -> torch.Tensor:
    return torch.tensor([row] * len(_PIXELS))


def test_the_middle_crop_is_the_picture_itself_or_its_mirror_image() -> None:
    torch.testing.assert_close(_CHANGE(_PIXELS, _drawn(0.5, 0.5, 0.5)), _PIXELS)
    torch.testing.assert_close(_CHANGE(_PIXELS, _drawn(0.5, 0.5, 0.49)), _PIXELS.flip(3))


@pytest.mark.parametrize(("edge", "rows"), [(0.0, slice(0, 4)), (_LAST, slice(4, 8))])
def test_at_the_edges_four_rows_are_padding(edge: float, rows: slice) -> None:
    changed = _CHANGE(_PIXELS, _drawn(edge, 0.5, 0.9))
    assert changed.shape == _PIXELS.shape
    assert changed[:, :, rows].permute(0, 2, 3, 1).reshape(-1, 3).unique(dim=0).tolist() == [[1, 2, 3]]
    kept = _PIXELS[:, :, :4] if edge == 0 else _PIXELS[:, :, 4:]
    torch.testing.assert_close(changed[:, :, slice(4, 8) if edge == 0 else slice(0, 4)], kept)


def test_all_shifts_are_drawn_alike_often() -> None:
    count = 9_000
    column = torch.arange(8, dtype=torch.uint8).view(1, 1, 8, 1).expand(count, 3, 8, 8) + 100
    drawn = torch.rand(count, PadCropFlip.draws, generator=torch.Generator().manual_seed(1))
    drawn[:, 1] = 0.5
    shifted = _CHANGE(column, drawn)[:, 0, 4, 4]  # row 4 of the crop at shift d is row d of the picture, or padding
    counts = torch.bincount(shifted.clamp(99).long() - 99)
    assert len(counts) == 9
    assert counts.min() > 0.85 * count / 9


_RAMP = Image.fromarray(np.dstack([np.tile(np.arange(256, dtype=np.uint8), (64, 1))] * 3))  # 256 wide, 64 high


def test_scale_crop_flip_cuts_what_a_resize_and_a_crop_would() -> None:
    change = ScaleCropFlip(size=32, shorter=(32, 64))
    whole = change(_RAMP, torch.tensor([_LAST, 0.0, 0.0, 0.9]))  # at 64 pixels, unscaled, top left
    np.testing.assert_array_equal(whole, np.asarray(_RAMP)[:32, :32])
    right = change(_RAMP, torch.tensor([_LAST, _LAST, _LAST, 0.9]))
    np.testing.assert_array_equal(right, np.asarray(_RAMP)[32:, 224:])
    mirrored = change(_RAMP, torch.tensor([_LAST, 0.0, 0.0, 0.1]))
    np.testing.assert_array_equal(mirrored, whole[:, ::-1])
    half = change(_RAMP, torch.tensor([0.0, 0.5, 0.5, 0.9]))  # at 32 pixels: 128 wide
    resized = np.asarray(_RAMP.resize((128, 32), Image.Resampling.BILINEAR)).astype(int)
    left = int(0.5 * (128 - 32 + 1))
    # the resize of a part does not see beyond its edges
    np.testing.assert_allclose(half.astype(int)[:, 1:-1], resized[:, left + 1 : left + 31], atol=1)


@pytest.mark.parametrize("size", [(40, 1000), (1000, 40), (33, 33), (5, 5)])
def test_every_picture_gives_a_crop(size: tuple[int, int]) -> None:
    change = ScaleCropFlip(size=32, shorter=(37, 69))
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        assert change(Image.new("RGB", size), torch.rand(4, generator=random)).shape == (32, 32, 3)
