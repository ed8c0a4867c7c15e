"""What TorchInductor compiles is the network; these tests compile C++."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from rexport._errors import UnavailableError
from rexport.models import build
from rexport.runtimes import open_runtime, torch_compile
from rexport.runtimes.source import Source
from rexport.runtimes.torch_compile import why_no_compiler

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def compiler() -> None:
    """What compiles for TorchInductor."""
    if reason := why_no_compiler():
        pytest.skip(reason)


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_the_logits_are_those_of_eager_pytorch(tmp_path: Path) -> None:
    network = build("cifar_resnet8", seed=3, num_classes=7)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    source = Source(network="cifar_resnet8", weights=tmp_path / "weights.pt", num_classes=7)
    images = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    with open_runtime("torch", source, threads=1) as runtime:
        expected = runtime.run(images)
    with open_runtime("torch-compile", source, threads=1) as runtime:
        logits = runtime.run(images)
        alone = runtime.run(images[:1])  # compiled for itself
        again = runtime.run(images)
    assert logits.shape == (4, 7)
    assert logits.dtype == np.float32
    for actual, wanted in ((logits, expected), (alone, expected[:1]), (again, expected)):
        np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)  # other sums of float32; weights are tenths
    assert np.abs(expected[1] - expected[0]).max() > 1e-2  # so the comparison can tell pictures apart


@pytest.mark.usefixtures("compiler")
def test_threads_are_those_asked_for() -> None:
    with open_runtime("torch-compile", Source(network="cifar_resnet8"), threads=3):
        assert torch.get_num_threads() == 3


def test_without_a_compiler_it_says_what_to_install() -> None:
    from torch._inductor import config

    message = r"finds no compiler for it; install one, such as with `apt install g\+\+`"
    with config.patch({"cpp.cxx": (None, "no-such-compiler")}), pytest.raises(UnavailableError, match=message):
        open_runtime("torch-compile", Source(network="cifar_resnet8"))


def test_without_python_s_headers_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch_compile.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(UnavailableError, match=r"there is no .*Python\.h; install them, .*python3-dev"):
        open_runtime("torch-compile", Source(network="cifar_resnet8"))
