"""How images are spread over calls: every one once, in order, and no call that the engine would refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport._errors import EngineFileError, UnavailableError
from rexport.engine_file import read_facts
from rexport.runtimes._engine_shapes import EngineShapes, Tensor

if TYPE_CHECKING:
    from pathlib import Path

_IMAGES = Tensor.of("images", "FLOAT", (-1, 3, 8, 8))
_LOGITS = Tensor.of("logits", "half", (-1, 10))


def _engine(*batches: tuple[int, int, int]) -> EngineShapes:
    return EngineShapes.checked([_IMAGES], [_LOGITS], batches)


@st.composite
def _ranges(draw: st.DrawFn) -> tuple[tuple[int, int, int], ...]:
    return tuple(
        tuple(sorted(draw(st.tuples(*[st.integers(1, 40)] * 3))))  # type: ignore[misc]
        for _ in range(draw(st.integers(1, 3)))
    )


@given(_ranges(), st.integers(1, 200))
def test_every_image_is_run_once_in_a_call_that_fits(ranges: tuple[tuple[int, int, int], ...], count: int) -> None:
    shapes = _engine(*ranges)
    parts = list(shapes.parts(count))
    assert [index for part in parts for index in range(part.start, part.stop)] == list(range(count))
    for part in parts:
        assert part.stop - part.start <= part.batch
        assert shapes.profiles[part.profile].takes(part.batch)
    assert all(part.stop - part.start == shapes.most for part in parts[:-1])


@given(_ranges(), st.integers(1, 60))
def test_the_profile_is_the_one_tuned_for_the_closest_batch(
    ranges: tuple[tuple[int, int, int], ...], batch: int
) -> None:
    shapes = _engine(*ranges)
    fitting = [one for one in shapes.profiles if one.takes(batch)]
    if not fitting:
        with pytest.raises(UnavailableError, match=f"at a time, not {batch}"):
            shapes.profile_for(batch)
        return
    chosen = shapes.profile_for(batch)
    factors = [max(batch / one.best, one.best / batch) for one in fitting]
    assert max(batch / chosen.best, chosen.best / batch) == pytest.approx(min(factors))


def test_a_gap_between_profiles_is_filled_up() -> None:
    (part,) = _engine((1, 1, 2), (8, 8, 16)).parts(5)
    assert (part.start, part.stop, part.batch, part.profile) == (0, 5, 8, 1)


def test_a_fixed_batch_needs_no_profile() -> None:
    fixed = EngineShapes.checked([Tensor.of("images", "uint8", (4, 8, 8, 3))], [_LOGITS], [(1, 1, 1)])
    assert [(part.batch, part.stop - part.start) for part in fixed.parts(6)] == [(4, 4), (4, 2)]
    assert fixed.in_words == "4 images"


def test_sizes_are_those_of_numpy() -> None:
    for tensor, batch in ((_IMAGES, 1), (_IMAGES, 5), (_LOGITS, 3)):
        assert tensor.bytes_at(batch) == np.empty(tensor.at(batch), tensor.dtype).nbytes
    with pytest.raises(UnavailableError, match="bf16"):
        Tensor.of("images", "BF16", (1,))


def test_a_real_engine_tells_its_shapes_beside_it(rtx_engine: Path) -> None:
    shapes = EngineShapes.of_facts(read_facts(rtx_engine))
    assert shapes.images == Tensor.of("images", "float", (-1, 3, 16, 16))
    assert [one.shape for one in shapes.outputs] == [(-1, 10)]
    assert (shapes.least, shapes.profiles[0].best, shapes.most) == (1, 4, 8)
    assert shapes.in_words == "1 to 8 images"


def test_other_networks_are_refused() -> None:
    with pytest.raises(EngineFileError, match="has 2 inputs and 1 outputs"):
        EngineShapes.checked([_IMAGES, _IMAGES], [_LOGITS], [(1, 1, 1)])
    with pytest.raises(EngineFileError, match="dynamic dimensions besides the batch"):
        EngineShapes.checked([Tensor.of("images", "float", (-1, 3, -1, -1))], [_LOGITS], [(1, 1, 1)])


def test_images_of_another_kind_are_refused() -> None:
    shapes = _engine((1, 4, 8))
    shapes.require(np.zeros((2, 3, 8, 8), np.float32))
    shapes.require(np.zeros((2, 3, 8, 8), np.float16))  # cast on the way
    for images in (np.zeros((2, 3, 9, 8), np.float32), np.zeros((2, 3, 8, 8), np.uint8)):
        with pytest.raises(UnavailableError, match=r"takes float32 of shape \(N, 3, 8, 8\), not"):
            shapes.require(images)


def test_a_difference_is_named() -> None:
    ours = _engine((1, 4, 8))
    assert ours.difference(_engine((1, 4, 8))) is None
    assert "most=16" in (ours.difference(_engine((1, 4, 16))) or "")
    assert ours.difference(_engine((1, 4, 8), (1, 1, 1))) == "4 tensors and profiles, not 3"
