"""Files that take pixels, and files that take whole pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from PIL import Image
from torch import nn

from rexport._errors import ModelFileError, UsageError, VerificationError
from rexport.exporting import export, prove_parity
from rexport.model_file import Head, Metadata, to_bytes
from rexport.model_inputs import image_input
from rexport.preprocessing import Preprocessing, Takes
from rexport.runtimes.onnxruntime import open_session
from tests._networks import trained_like
from tests.exporting._networks import Small

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.exporting.conftest import Exported

_RESIZED = Preprocessing(size=32, resize=37)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cifar_resnet8", {}),
        ("small", {"fused": False}),
        ("small", {"batch": 3, "opset": 17}),
        ("small", {"any_size": True, "head": Head.SOFTMAX}),
        ("small", {"features": ("bn1", "bn2")}),
        ("two small", {}),
        ("cifar_preact_resnet8", {}),
        ("resnet[depth=8,stages=3,stem=deep,stem_width=16]", {}),
        ("handmade", {}),
    ],
)
def test_pixels_give_what_pytorch_gives_normalised_ones(
    name: str, options: dict[str, Any], exported: Callable[..., Exported]
) -> None:
    network = exported(name, 32, raw_image=True, **options)
    model, parity = network.result.model, network.result.parity
    assert image_input(model).raw
    assert Metadata.of(model).preprocessing == Preprocessing(size=32, takes=Takes.PIXELS)
    assert 0 < parity.difference < 5e-6  # measured: 1e-7 to 2e-6, as for normalised images
    assert parity.levels is None
    pixels = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = network.module(torch.from_numpy(Preprocessing(size=32).normalise(pixels))).numpy()
    if not options.get("features") and "head" not in options:
        (actual,) = open_session(to_bytes(model)).run(None, {"images": pixels})
        assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()  # see exporting/parity.py


@pytest.mark.slow
def test_the_dtype_is_all_that_a_caller_sees(exported: Callable[..., Exported]) -> None:
    raw, plain = (exported("cifar_resnet8", 32, raw_image=is_raw).result.model for is_raw in (True, False))
    assert str(raw.graph.inputs[0].shape) == "[batch,32,32,3]"
    assert [value.name for value in raw.graph.inputs] == [value.name for value in plain.graph.inputs]
    assert [(v.name, str(v.shape)) for v in raw.graph.outputs] == [(v.name, str(v.shape)) for v in plain.graph.outputs]


@pytest.mark.slow
def test_the_preprocessing_of_a_raw_file_gives_a_plain_one_unless_asked(exported: Callable[..., Exported]) -> None:
    network = exported("small", 32, raw_image=True)
    stated = Metadata.of(network.result.model).preprocessing
    assert stated is not None
    model = export(network.module, preprocessing=stated).model
    assert Metadata.of(model).preprocessing == Preprocessing(size=32)
    assert not image_input(model).raw


def test_another_normalisation_is_found_in_the_first_layer(exported: Callable[..., Exported]) -> None:
    network = exported("small", 32, raw_image=True)
    model = network.result.model.clone()
    wrong = replace(Preprocessing(size=32, takes=Takes.PIXELS), mean=(0.485, 0.456, 0.407))
    replace(Metadata.of(model), preprocessing=wrong).write_to(model)
    with pytest.raises(VerificationError, match=r"The first tensor that differs is 'bn1': .*e-0[34]"):
        prove_parity(network.module, model, size=32)


def test_a_wrong_border_is_found(exported: Callable[..., Exported]) -> None:
    network = exported("small", 32, raw_image=True)
    model = network.result.model.clone()
    zero_point = model.graph.initializers["images_zero_point"]
    zero_point.const_value = ir.tensor(np.uint8(115), name=zero_point.name)
    with pytest.raises(VerificationError, match="The first tensor that differs is 'bn1'"):
        prove_parity(network.module, model, size=32)


class Normalising(nn.Module):
    """Has its own layer before the first convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.conv = nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.relu(x)).mean((2, 3))


@pytest.mark.slow
def test_a_network_that_does_not_start_with_a_convolution_is_refused() -> None:
    with pytest.raises(ModelFileError, match="and relu can't do it: it is a Relu node"):
        export(Normalising(), preprocessing=Preprocessing(size=16), raw_image=True)


# whole pictures


@pytest.fixture(scope="module")
def whole() -> tuple[nn.Module, Any]:
    module = trained_like(Small())
    return module, export(module, preprocessing=_RESIZED, resize_in_graph=True)


@pytest.mark.slow
def test_whole_pictures_give_what_pytorch_gives_cut_ones(whole: tuple[nn.Module, Any]) -> None:
    module, result = whole
    assert Metadata.of(result.model).preprocessing == replace(_RESIZED, takes=Takes.PICTURES)
    assert str(result.model.graph.inputs[0].shape) == "[batch,height,width,3]"
    assert result.parity.sizes == ((32, 32), (41, 48), (111, 75))
    assert result.parity.levels in (1, 2)
    session = open_session(to_bytes(result.model))
    for height, width in ((37, 37), (37, 60), (60, 37)):  # nothing to resize, so Pillow's pixels are the very same
        pictures = np.random.default_rng(width).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        cut = np.stack([_RESIZED.crop(Image.fromarray(picture)) for picture in pictures])
        with torch.inference_mode():
            expected = module(torch.from_numpy(_RESIZED.normalise(cut))).numpy()
        (actual,) = session.run(None, {"images": pictures})
        assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


def test_another_way_to_resize_is_found(whole: tuple[nn.Module, Any]) -> None:
    module, result = whole
    model = result.model.clone()
    next(node for node in model.graph if node.op_type == "Resize").attributes.pop("antialias")
    model.graph.node("images_resized").attributes.pop("exclude_outside")
    with pytest.raises(VerificationError, match=r"pictures of 41×48 differently from Pillow: by \d+ of"):
        prove_parity(module, model, size=32)


def test_a_wrong_weight_behind_it_is_found(whole: tuple[nn.Module, Any]) -> None:
    module, result = whole
    model = result.model.clone()
    value = model.graph.initializers["fc.bias"]
    value.const_value = ir.tensor(value.const_value.numpy() + np.float32(0.1), name=value.name)
    with pytest.raises(VerificationError, match=", output 'logits', max relative"):
        prove_parity(module, model, size=32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preprocessing", "options", "message"),
    [
        (Preprocessing(size=32), {}, "pass --resize 32, say, for it to resize their shorter side itself"),
        (_RESIZED, {"opset": 17}, "takes opset 18"),
        (_RESIZED, {"any_size": True}, "leave --any-size out"),
    ],
)
def test_what_can_t_be_resized_is_refused(preprocessing: Preprocessing, options: dict[str, Any], message: str) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(UsageError, match=message):
        export(module, preprocessing=preprocessing, resize_in_graph=True, **options)
