"""Networks that return several tensors, each an output of the file under its own name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rexport._errors import UsageError, VerificationError
from rexport.exporting import export, prove_parity
from rexport.model_file import Metadata, to_bytes
from rexport.models.modules import return_one_tensor
from rexport.preprocessing import Preprocessing
from rexport.runtimes.onnxruntime import open_session


class Segments(nn.Module):
    """Gives maps of classes from its deepest layer and, for training, from the one before; and its input."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.late = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.classifier, self.aux = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        early = self.early(x).relu()
        out = nn.functional.interpolate(self.classifier(self.late(early)), size=x.shape[2:], mode="bilinear")
        return {"out": out, "aux": self.aux(early), "images": x}


def _export(module: nn.Module, *results: str, **options: Any) -> Any:
    return export(module, preprocessing=Preprocessing(size=8), results=results, **options)


def test_each_result_is_an_output_of_its_name() -> None:
    torch.manual_seed(0)
    module = Segments().eval()
    result = _export(module, "aux", "images", "out")
    assert [value.name for value in result.model.graph.outputs] == ["aux", "images_out", "out"]
    assert list(result.parity.outputs) == ["aux", "images_out", "out"]
    assert Metadata.of(result.model).features == ("aux", "images_out", "out")
    images = torch.randn(3, 3, 8, 8)
    with torch.inference_mode():
        expected = module(images)
    actual = open_session(to_bytes(result.model)).run(None, {"images": images.numpy()})
    for name, array in zip(("aux", "images", "out"), actual, strict=True):
        np.testing.assert_allclose(array, expected[name], atol=1e-5)


def test_what_they_do_not_need_is_not_in_the_file() -> None:
    model = _export(Segments(), "aux").model
    assert not any(name.startswith(("late", "classifier")) for name in model.graph.initializers)


def test_one_tensor_comes_back_afterwards() -> None:
    module = Segments()
    return_one_tensor(module, "aux")
    _export(module, "out", "aux", raw_image=True)
    assert torch.equal(module(torch.zeros(1, 3, 8, 8)), module.forward(torch.zeros(1, 3, 8, 8))["aux"])


def test_the_proof_finds_a_fault_in_any() -> None:
    module = Segments()
    model = _export(module, "out", "aux").model
    with torch.no_grad():
        module.aux.weight[0] *= 1.01
    with pytest.raises(VerificationError, match="output 'aux'"):
        prove_parity(module, model, size=8, results=("out", "aux"))


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (("out", "mask"), "--result mask: the network returns out, aux, images"),
        (("out", "out"), "out is named 2 times"),
    ],
)
def test_results_that_are_not_there(results: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        _export(Segments(), *results)


def test_they_are_no_classes() -> None:
    with pytest.raises(UsageError, match="no classes"):
        _export(Segments(), "out", "aux", classes=("a", "b"))
