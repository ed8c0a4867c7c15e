from __future__ import annotations

from functools import cache

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rexport._errors import ModelFileError, UsageError
from rexport.model_file import Metadata, to_bytes
from rexport.model_inputs import image_input
from rexport.passes import Reference, fuse
from rexport.passes.raw_image import with_raw_images
from rexport.passes.resize_in_graph import cut_pixels, with_resize
from rexport.preprocessing import Interpolation, Preprocessing, Takes
from rexport.runtimes.onnxruntime import open_session
from tests.passes._models import parse

# ONNX Runtime's filter weights are float32 and Pillow's have 22 bits, so a sum near a half may be rounded to the other
# side, by one level of gray in the pass along the rows and one more in that along the columns.
LEVELS = 2
TEXT = """
    <ir_version: 9, opset_import: ["": {opset}]>
    graph (float[{batch}, 3, {size}, {size}] x) => (float[{batch}, 1, {size}, {size}] y) <float[1, 3, 3, 3] w = {{{w}}}>
    {{ y = Conv<pads = [1, 1, 1, 1]>(x, w) }}"""


def raw(preprocessing: Preprocessing, *, batch: int | str = "N", opset: int = 18) -> ir.Model:
    numbers = ", ".join(str(0.1 * i - 1) for i in range(27))
    return with_raw_images(
        parse(TEXT.format(opset=opset, batch=batch, size=preprocessing.size, w=numbers)), preprocessing
    )


def exposed(model: ir.Model) -> bytes:
    copy = model.clone()
    copy.graph.outputs.append(cut_pixels(copy))
    return to_bytes(copy)


@cache
def session(preprocessing: Preprocessing):
    return open_session(exposed(with_resize(raw(preprocessing))), threads=1)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def levels_off(
    size: int, resize: int, picture: np.ndarray, interpolation: Interpolation = Interpolation.BILINEAR
) -> int:
    """Return by how much the pixels that are cut in the graph differ from those of Pillow."""
    preprocessing = Preprocessing(size=size, resize=resize, interpolation=interpolation)
    _, pixels = session(preprocessing).run(None, {"x": picture[None]})
    wanted = preprocessing.crop(Image.fromarray(picture))
    assert (pixels.dtype, pixels.shape) == (np.uint8, (1, size, size, 3))
    return int(np.abs(pixels[0].astype(int) - wanted).max())


sizes = st.sampled_from([(24, 24), (24, 25), (24, 31), (33, 38), (1, 8), (57, 64)])


@given(size=sizes, height=st.integers(1, 250), width=st.integers(1, 250), smooth=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=80)
def test_pictures_are_resized_and_cut_as_pillow_does(
    size: tuple[int, int], height: int, width: int, smooth: bool, seed: int
) -> None:
    picture = noise(height, width, seed)
    if smooth:
        picture = np.asarray(Image.fromarray(noise(4, 4, seed)).resize((width, height)))
    assert levels_off(*size, picture) <= LEVELS


@pytest.mark.parametrize("interpolation", Interpolation)
@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (480, 640), (1080, 1920), (224, 224), (90, 61)])
def test_pictures_of_common_sizes(height: int, width: int, interpolation: Interpolation) -> None:
    assert levels_off(224, 256, noise(height, width), interpolation) <= LEVELS


@given(more=st.integers(0, 40), extra=st.integers(0, 9), upright=st.booleans())
@settings(max_examples=50)
def test_the_middle_of_a_picture_that_needs_no_resizing_is_exact(more: int, extra: int, upright: bool) -> None:
    resize = 24 + extra
    sides = (resize + more, resize) if upright else (resize, resize + more)
    assert levels_off(24, resize, noise(*sides)) == 0


def with_fault(fault: str) -> bytes:
    model = with_resize(raw(Preprocessing(size=24, resize=24)))
    resize = next(node for node in model.graph if node.op_type == "Resize")
    if fault == "borders":  # repeated instead of left out
        resize.attributes.add(ir.AttrInt64("exclude_outside", 0))
    elif fault == "aliasing":
        resize.attributes.pop("exclude_outside")
        resize.attributes.add(ir.AttrInt64("antialias", 0))
    else:
        two = model.graph.initializers["x_two"]
        two.const_value = ir.tensor(np.array([3]), name=two.name)  # a third instead of a half
    return exposed(model)


@pytest.mark.parametrize("fault", ["borders", "aliasing", "middle"])
def test_a_fault_would_be_seen(fault: str) -> None:
    picture = noise(70, 100)
    _, pixels = open_session(with_fault(fault)).run(None, {"x": picture[None]})
    wanted = Preprocessing(size=24, resize=24).crop(Image.fromarray(picture))
    assert np.abs(pixels[0].astype(int) - wanted).max() > 3 * LEVELS


@pytest.mark.parametrize("batch", ["N", 3])
def test_what_comes_behind_is_the_model_as_it_was(batch: int | str) -> None:
    before = raw(Preprocessing(size=24, resize=30), batch=batch)
    after = with_resize(before)
    assert [str(side) for side in after.graph.inputs[0].shape] == [str(batch), "height", "width", "3"]
    pictures = np.stack([noise(41, 50, seed) for seed in range(3)])
    result, pixels = open_session(exposed(after)).run(None, {"x": pictures})
    np.testing.assert_array_equal(result, open_session(to_bytes(before)).run(None, {"x": pixels})[0])


def test_the_file_says_that_it_takes_pictures_and_the_model_is_left_alone() -> None:
    preprocessing = Preprocessing(size=24, resize=30, mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    before = raw(preprocessing)
    untouched = to_bytes(before)
    after = with_resize(before)
    assert to_bytes(before) == untouched
    assert Metadata.of(after).preprocessing == Preprocessing(
        size=24, resize=30, mean=(0.1, 0.2, 0.3), std=(1, 2, 3), takes=Takes.PICTURES
    )
    image = image_input(after)
    assert (image.name, image.size, image.raw) == ("x", None, True)
    assert Reference(after).difference(fuse(after).model) == 0


# refusals


def test_float_images_are_refused() -> None:
    model = parse(TEXT.format(opset=18, batch=1, size=24, w=", ".join(["1"] * 27)))
    with pytest.raises(ModelFileError, match="does not take raw images"):
        with_resize(model)


def test_pictures_are_refused() -> None:
    with pytest.raises(ModelFileError, match="does not take raw images of one size"):
        with_resize(with_resize(raw(Preprocessing(size=24, resize=30))))


def test_how_to_resize_must_be_stated() -> None:
    with pytest.raises(UsageError, match="takes pictures of 24×24 as they are; pass --resize 24, say"):
        with_resize(raw(Preprocessing(size=24)))


def test_an_old_opset_is_refused() -> None:
    with pytest.raises(UsageError, match="takes opset 18, and the model is of 17"):
        with_resize(raw(Preprocessing(size=24, resize=24), opset=17))
