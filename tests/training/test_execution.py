from __future__ import annotations

import pytest
import torch

from rexport._errors import UnavailableError, UsageError
from rexport.training import Execution, choose_execution

_HAS_CUDA = torch.cuda.is_available()


@pytest.mark.parametrize(("precision", "taken"), [("auto", "fp32"), ("fp32", "fp32"), ("bf16", "bf16")])
def test_on_the_cpu(precision: str, taken: str) -> None:
    execution = choose_execution("cpu", precision)
    assert (execution.device, execution.precision) == ("cpu", taken)
    assert not execution.scaler().is_enabled()
    with execution.autocast():
        product = torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2))
    assert product.dtype == (torch.bfloat16 if taken == "bf16" else torch.float32)


def test_the_default_is_what_is_there() -> None:
    assert choose_execution(None, "auto").device == ("cuda" if _HAS_CUDA else "cpu")


def test_fp16_scales_gradients() -> None:
    assert Execution(device="cpu", precision="fp16").scaler().is_enabled()


@pytest.mark.skipif(_HAS_CUDA, reason="CUDA is there")
def test_cuda_that_is_not_there() -> None:
    with pytest.raises(UnavailableError, match=r"CUDA can't be used here: .*--device cpu"):
        choose_execution("cuda", "auto")


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [("tpu", "auto", "no device 'tpu'"), ("cpu", "int4", "no precision 'int4'"), ("cpu", "fp16", "fp16 is for CUDA")],
)
def test_what_makes_no_sense_is_refused(device: str, precision: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_execution(device, precision)
