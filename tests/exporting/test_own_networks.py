"""Modules of users: wrapped, of several results, random, or none that can be exported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rexport._errors import InputError, RexportError, UsageError, VerificationError
from rexport.exporting import export
from rexport.model_file import Head, Metadata, to_bytes
from rexport.models import state_dict_hash
from rexport.models.modules import return_one_tensor
from rexport.preprocessing import Preprocessing
from rexport.runtimes.onnxruntime import open_session
from tests._networks import trained_like

if TYPE_CHECKING:
    from collections.abc import Callable

    from rexport.exporting import ExportResult

SIZE = 8


class Net(nn.Module):
    """A classifier of four classes; ``finish`` makes what it returns of its logits."""

    def __init__(
        self, finish: Callable[[torch.Tensor], Any] = torch.Tensor.contiguous, *, tracked: bool = True
    ) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=tracked)
        self.drop, self.last_linear = nn.Dropout(0.5), nn.Linear(4, 4)
        self.finish = finish

    def forward(self, x: torch.Tensor) -> Any:
        x = F.relu(self.bn(self.stem(x))).mean((2, 3))
        return self.finish(self.last_linear(self.drop(x)))


def exported(module: nn.Module, **options: Any) -> ExportResult:
    return export(module, preprocessing=Preprocessing(size=SIZE), **options)


def outputs(result: ExportResult, images: torch.Tensor) -> np.ndarray:
    (values,) = open_session(to_bytes(result.model)).run(None, {"images": images.numpy()})
    return values


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: net.train(),
        lambda net: torch.compile(nn.DataParallel(net)),
        lambda net: nn.Sequential(torch.compile(net)),
    ],
    ids=["in training", "data parallel and compiled", "compiled inside"],
)
def test_a_network_is_exported_as_it_is_in_eval_whatever_is_around_it(wrap: Callable[[Net], nn.Module]) -> None:
    network = trained_like(Net())
    result = exported(wrap(network))
    images = torch.rand(3, 3, SIZE, SIZE)
    with torch.inference_mode():
        expected = network.eval()(images).numpy()
    np.testing.assert_allclose(outputs(result, images), expected, atol=1e-6)


@pytest.mark.slow
def test_a_wrapper_leaves_no_trace() -> None:
    network = trained_like(Net())
    result = exported(torch.compile(network))
    assert Metadata.of(result.model).weights_sha256 == state_dict_hash(network)
    assert result.model.graph.node("last_linear").op_type == "Gemm"


@pytest.mark.slow
def test_of_several_results_the_first_is_exported_or_the_chosen_one() -> None:
    network = trained_like(Net(lambda z: {"logits": z, "more": [z * 2]}))
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        logits = network.eval()(images)["logits"].numpy()
    np.testing.assert_allclose(outputs(exported(network), images), logits, atol=1e-6)
    assert isinstance(network(images), dict)  # the module is left as it was
    return_one_tensor(network, "more.0")
    result = exported(network, classes=("a", "b", "c", "d"))
    np.testing.assert_allclose(outputs(result, images), 2 * logits, atol=1e-6)


@pytest.mark.slow
def test_batch_normalization_without_running_statistics_is_proven() -> None:
    result = exported(Net(tracked=False))
    assert 0 < result.parity.difference < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("finish", "head"),
    [
        (lambda z: z.softmax(1), Head.SOFTMAX),
        (lambda z: F.log_softmax(z, 1), Head.LOG_SOFTMAX),
    ],
)
def test_a_softmax_of_the_networks_own_is_told_and_not_taken_twice(
    finish: Callable[[torch.Tensor], torch.Tensor], head: Head
) -> None:
    network = trained_like(Net(finish))
    images = torch.rand(2, 3, SIZE, SIZE)
    result = exported(network)
    assert Metadata.of(result.model).head is head
    asked = exported(network, head=Head.SOFTMAX)
    assert Metadata.of(asked.model).head is Head.SOFTMAX
    assert asked.model.graph.outputs[0].name == "probabilities"
    with torch.inference_mode():
        own = network(images)
    expected = own if head is Head.SOFTMAX else own.exp()
    np.testing.assert_allclose(outputs(asked, images), expected.numpy(), atol=1e-6)


def _depends_on_values(z: torch.Tensor) -> torch.Tensor:
    return z if z.sum() > 0 else -z


@pytest.mark.slow
@pytest.mark.parametrize(
    ("finish", "options", "error", "why"),
    [
        (F.dropout, {}, VerificationError, "PyTorch's own results for the same inputs vary"),
        (_depends_on_values, {}, InputError, r"PyTorch can't export the network \(GuardOnDataDependentSymNode"),
        (lambda z: z[:, :0], {}, VerificationError, "are empty at batch 1"),
        (lambda _z: None, {}, UsageError, "returns a NoneType without a tensor"),
        (lambda z: z @ z, {}, UsageError, r"does not run on a picture of 8×8 pixels with 3 channels \(RuntimeError"),
        (torch.relu, {"classes": ("a", "b")}, UsageError, "There are 2 class names for 4 outputs"),
        (torch.relu, {"head": Head.LOG_SOFTMAX}, UsageError, "The head is logits or softmax"),
    ],
)
def test_what_can_not_be_exported_is_told(
    finish: Callable[[torch.Tensor], Any], options: dict[str, Any], error: type[RexportError], why: str
) -> None:
    with pytest.raises(error, match=why):
        exported(trained_like(Net(finish)), **options)
