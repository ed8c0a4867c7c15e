"""Files that take pictures of any height and width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from rexport._errors import UsageError, VerificationError
from rexport.exporting import export, prove_parity
from rexport.exporting._sizes import other_size
from rexport.model_file import Head, Metadata, to_bytes
from rexport.model_inputs import image_input
from rexport.preprocessing import Preprocessing
from rexport.runtimes.onnxruntime import open_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.exporting.conftest import Exported


@pytest.fixture
def network(exported: Callable[..., Exported]) -> Exported:
    return exported("cifar_resnet8", 32, any_size=True)


@pytest.mark.slow
def test_height_and_width_are_open_and_have_names(network: Exported) -> None:
    model = network.result.model
    assert str(model.graph.inputs[0].shape) == "[batch,3,height,width]"
    assert image_input(model).size is None
    assert Metadata.of(model).preprocessing == Preprocessing(size=32)


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 32, 32), (3, 32, 32), (2, 33, 47), (1, 96, 20), (2, 7, 9)])
def test_any_size_gives_what_pytorch_gives(batch: int, height: int, width: int, network: Exported) -> None:
    images = np.random.default_rng(height).standard_normal((batch, 3, height, width), dtype=np.float32)
    with torch.inference_mode():
        expected = network.module(torch.from_numpy(images)).numpy()
    (logits,) = open_session(to_bytes(network.result.model)).run(None, {"images": images})
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()  # see exporting/parity.py


@pytest.mark.slow
def test_it_is_the_same_graph(network: Exported, exported: Callable[..., Exported]) -> None:
    fixed = exported("cifar_resnet8", 32).result.model
    assert [(node.name, node.op_type) for node in network.result.model.graph] == [
        (node.name, node.op_type) for node in fixed.graph
    ]


@pytest.mark.parametrize("size", [8, 32, 224, 299])
def test_the_other_size_is_no_square(size: int) -> None:
    height, width = other_size(size)
    assert size < height < width


@pytest.mark.slow
def test_the_proof_is_at_both_sizes(network: Exported, exported: Callable[..., Exported]) -> None:
    assert network.result.parity.sizes == ((32, 32), (41, 48))
    assert exported("cifar_resnet8", 32).result.parity.sizes == ((32, 32),)


def test_a_fault_of_other_sizes_is_found(network: Exported) -> None:
    model = network.result.model.clone()
    pool = model.graph.node("avgpool")
    fixed = ir.node("AveragePool", pool.inputs, {"kernel_shape": [8, 8]})  # what is global at 32×32 only
    cut = ir.node("GlobalMaxPool", [fixed.outputs[0]])
    model.graph.insert_before(pool, [fixed, cut])
    ir.convenience.replace_all_uses_with(pool.outputs[0], cut.outputs[0])
    with pytest.raises(VerificationError, match="at batch 2 of 41×48 pixels, output 'logits'"):
        prove_parity(network.module, model, size=32)


@pytest.mark.slow
def test_a_fixed_batch_and_features_and_a_softmax_go_with_it(exported: Callable[..., Exported]) -> None:
    one = exported("small", 32, any_size=True, batch=3, features=("bn1", "conv2")).result
    assert [str(dim) for dim in one.model.graph.inputs[0].shape] == ["3", "3", "height", "width"]
    assert one.parity.batches == (3,)
    images = np.zeros((3, 3, 64, 40), np.float32)
    first, last = open_session(to_bytes(one.model)).run(None, {"images": images})
    assert (first.shape, last.shape) == ((3, 8, 64, 40), (3, 8, 32, 20))
    other = exported("small", 32, any_size=True, head=Head.SOFTMAX).result
    assert other.parity.sizes == ((32, 32), (41, 48))


class Flattening(nn.Module):
    """Takes pictures of one size: its linear layer has a weight for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 2, 3, padding=1), nn.Linear(2 * 16 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).flatten(1))


@pytest.mark.slow
def test_pooling_to_a_grid_is_found_not_to_take_any_size() -> None:
    grid = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))
    with pytest.raises(VerificationError, match=r"does not run at batch .* needs one size"):
        export(grid, preprocessing=Preprocessing(size=16), any_size=True)


@pytest.mark.slow
def test_pictures_that_are_no_squares(exported: Callable[..., Exported]) -> None:
    for options, sizes in (({}, ((32, 64),)), ({"any_size": True}, ((32, 64), (41, 96)))):
        result = exported("cifar_resnet8", (32, 64), **options).result
        assert result.parity.sizes == sizes
        assert image_input(result.model).size == (None if options else (32, 64))


@pytest.mark.slow
def test_a_decision_by_size_is_found() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            return x.mean((2, 3)) if x.shape[2] < 16 else x.amax((2, 3))

    with pytest.raises(VerificationError, match="at batch 1 of 16×16 pixels, output 'logits'"):
        export(Deciding(), preprocessing=Preprocessing(size=16), any_size=True)


@pytest.mark.slow
def test_a_network_of_one_size_is_refused() -> None:
    with pytest.raises(UsageError, match=r"takes pictures of 16×16 but not of 21×24 \(.*\); for any size"):
        export(Flattening(), preprocessing=Preprocessing(size=16), any_size=True)
    export(Flattening(), preprocessing=Preprocessing(size=16))
