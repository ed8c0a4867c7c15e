"""Networks that take no picture: several inputs and outputs, by name, exported from an example and proven on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from rexport._errors import UsageError, VerificationError
from rexport.exporting import export_example
from rexport.exporting._example import Example
from rexport.exporting.half import to_half
from rexport.exporting.parity import prove_example
from rexport.model_file import Metadata, to_bytes
from rexport.models.adopted import adopted
from rexport.runtimes.onnxruntime import open_session

if TYPE_CHECKING:
    from rexport.exporting import ExportResult


class Speech(nn.Module):
    """Takes sounds and their lengths, and returns two results, one of them called as an input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv1d(4, 6, 3, padding=1), nn.BatchNorm1d(6), nn.Linear(6, 5)

    def forward(self, sound: torch.Tensor, length: torch.Tensor) -> dict[str, torch.Tensor]:
        sound.mul_(2)  # in place: the proof must not see it
        hidden = torch.relu(self.bn(self.conv(sound))).mean(2) * length[:, None]
        return {"logits": self.fc(hidden), "hidden": hidden, "length": length + 1}


class Product(nn.Module):
    def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return x @ table


@pytest.fixture(scope="module")
def speech() -> nn.Module:
    torch.manual_seed(0)
    return Speech().eval()


@pytest.fixture(scope="module")
def exported(speech: nn.Module) -> ExportResult:
    return export_example(adopted(speech), (torch.rand(3, 4, 10), torch.tensor([1, 2, 3])))


def _shapes(values: list[ir.Value]) -> dict[str, str]:
    return {str(value.name): str(value.shape) for value in values}


def test_inputs_and_outputs_have_their_names(exported: ExportResult) -> None:
    graph = exported.model.graph
    assert _shapes(graph.inputs) == {"sound": "[batch,4,10]", "length": "[batch]"}
    assert _shapes(graph.outputs) == {"logits": "[batch,5]", "hidden": "[batch,6]", "length_out": "[batch]"}
    assert [node.op_type for node in graph].count("BatchNormalization") == 0
    metadata = Metadata.of(exported.model)
    assert (metadata.preprocessing, metadata.classes, metadata.features) == (None, (), ())


def test_the_proof_is_on_the_example_and_at_two_other_batches(exported: ExportResult) -> None:
    parity = exported.parity
    assert (parity.batches, parity.sizes) == ((3, 4, 1), ())
    assert parity.outputs.keys() == {"logits", "hidden", "length_out"}
    assert "equal to PyTorch at batch 3, 4, 1: max relative difference of outputs" in str(parity)
    assert parity.difference < 1e-6


def test_the_file_computes_what_the_network_does(exported: ExportResult, speech: nn.Module) -> None:
    sound, length = torch.rand(7, 4, 10), torch.arange(7)
    feed = {"sound": sound.numpy().copy(), "length": length.numpy()}
    results = open_session(to_bytes(exported.model)).run(None, feed)
    with torch.inference_mode():
        expected = speech.forward(sound, length)
    for actual, name in zip(results, expected, strict=True):
        np.testing.assert_allclose(actual, expected[name].numpy(), atol=1e-5)


def test_a_wrong_weight_is_found(exported: ExportResult, speech: nn.Module) -> None:
    model = exported.model.clone()
    weight = model.graph.initializers["conv.weight"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * 1.001, name=weight.name)
    example = Example.of(speech, (torch.rand(3, 4, 10), torch.tensor([1, 2, 3])))
    results = {"logits": "logits", "hidden": "hidden", "length_out": "length"}
    with pytest.raises(VerificationError, match=r"at batch 3, output 'logits'.* first tensor that differs is 'bn'"):
        prove_example(speech, model, example, results=results, batches=(3,))


def test_swapped_outputs_are_found() -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x * 2, x + 1

    model = export_example(Pair(), torch.rand(2, 3)).model
    first, second = model.graph.outputs
    first.name = None
    second.name, first.name = "0", "1"
    with pytest.raises(VerificationError, match="output '0'"):
        prove_example(Pair(), model, Example.of(Pair(), torch.rand(2, 3)), results={"0": "0", "1": "1"}, batches=(2,))


def test_float16_is_compared_on_the_example(exported: ExportResult) -> None:
    assert exported.feed is not None
    assert exported.feed["length"].tolist() == [1, 2, 3]
    assert to_half(exported.model, feeds=exported.feed).difference > 0


@pytest.mark.parametrize(
    ("example", "options", "shapes", "batches"),
    [
        ((torch.rand(4, 3), torch.rand(3, 7)), {}, {"x": "[4,3]", "table": "[3,7]"}, ()),  # no common first axis
        ((torch.rand(1, 3, 5), torch.rand(1, 5, 7)), {}, {"x": "[batch,3,5]", "table": "[batch,5,7]"}, (1, 2, 3)),
        (
            {"table": torch.rand(2, 5, 7), "x": torch.rand(2, 3, 5)},
            {"batch": 3},
            {"table": "[3,5,7]", "x": "[3,3,5]"},
            (3,),
        ),
    ],
    ids=["as it is", "one example", "by keyword, fixed"],
)
def test_the_first_axis_is_open_if_all_tensors_share_it(
    example: Any, options: dict[str, Any], shapes: dict[str, str], batches: tuple[int, ...]
) -> None:
    result = export_example(Product(), example, **options)
    assert _shapes(result.model.graph.inputs) == shapes
    assert result.parity.batches == batches


def test_one_result_of_several_and_tensors_that_are_returned_twice() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            y = x.relu()
            return {"y": y, "again": y, "same": x}

    whole = export_example(Twice(), torch.randn(2, 3))
    assert list(whole.parity.outputs) == ["y", "again", "same"]
    assert list(_shapes(whole.model.graph.inputs)) == ["x"]
    part = export_example(Twice(), torch.randn(2, 3), result="again")
    assert [value.name for value in part.model.graph.outputs] == ["again"]


@pytest.mark.parametrize(
    ("module", "example", "options", "why"),
    [
        (Product(), torch.rand(2, 3), {}, r"does not take the example \(TypeError: missing a required argument"),
        (Product(), {"x": torch.rand(2, 3)}, {}, r"does not run on the example, x \(2, 3\) \(TypeError"),
        (Product(), (torch.rand(2, 3), 3), {}, r"a tuple or a dictionary of tensors; it is a tuple \(Tensor, int\)"),
        (Product(), None, {}, r"it is a NoneType \(empty\)"),
        (nn.ReLU(), torch.rand(2).bfloat16(), {}, "input is of torch.bfloat16"),
        (nn.ReLU(), torch.rand(0, 3), {}, r"input is empty, of shape \(0, 3\)"),
        (nn.ReLU(), torch.rand(2), {"result": "aux"}, "--result aux: the network returns 0"),
        (Product(), (torch.rand(2, 3), torch.rand(3, 2)), {"batch": 4}, "--batch 4: .* no first axis of one length"),
        (nn.ReLU(), torch.rand(2), {"opset": 16}, "choose one from 17 to 23"),
    ],
)
def test_what_does_not_fit_is_told(module: nn.Module, example: object, options: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        export_example(module, example, **options)


def test_a_first_axis_that_is_no_batch_is_told() -> None:
    with pytest.raises(UsageError, match=r"x \(4, 3\).*If the first axis is no batch, pass --batch 3"):
        export_example(Product(), (torch.rand(3, 3), torch.rand(3, 3)))

    class Deciding(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if len(x) > 2 else x + 1

    with pytest.raises(VerificationError, match="at batch 1, output '0'"):
        export_example(Deciding(), torch.rand(3, 3))


def test_a_network_may_take_any_number_of_arguments() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor, *more: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"weight": self.weight * x + sum(more)}

    result = export_example(Sum(), (torch.rand(2, 3), torch.rand(2, 3), torch.rand(2, 1)))
    assert list(_shapes(result.model.graph.inputs)) == ["x", "more_0", "more_1"]
    assert list(result.parity.outputs) == ["weight_out"]


def test_random_floats_stay_within_the_example() -> None:
    mask = torch.tensor([0.0, -torch.inf])
    tensors = {"x": torch.tensor([1.0, 3.0]), "zeros": torch.zeros(2), "ids": torch.tensor([1, 2]), "mask": mask}
    example = Example(tensors=tensors, by_name=True)
    varied = example.varied(torch.Generator().manual_seed(0)).tensors
    assert 1 <= varied["x"].min() < varied["x"].max() <= 3
    assert not torch.equal(varied["zeros"], tensors["zeros"])
    assert torch.equal(varied["ids"], tensors["ids"])
    assert torch.equal(varied["mask"], mask)
    assert example.at(3).tensors["ids"].tolist() == [1, 2, 1]
