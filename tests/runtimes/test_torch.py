from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rexport._errors import UnavailableError
from rexport.models import build
from rexport.runtimes import NETWORK_RUNTIMES, open_runtime
from rexport.runtimes.source import Source


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)


def test_the_logits_are_the_network_s(images: np.ndarray) -> None:
    with torch.inference_mode():
        expected = build("cifar_resnet8", num_classes=7)(torch.from_numpy(images)).numpy()
    with open_runtime("torch", Source(network="cifar_resnet8", num_classes=7), threads=1) as runtime:
        logits = runtime.run(images)
    assert logits.shape == (4, 7)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)  # another number of threads, other sums


def test_it_takes_the_weights_of_the_source(images: np.ndarray, tmp_path: Path) -> None:
    other = build("cifar_resnet8", seed=1)
    torch.save(other.state_dict(), tmp_path / "weights.pt")
    with torch.inference_mode():
        expected = other(torch.from_numpy(images)).numpy()
    with open_runtime("torch", Source(network="cifar_resnet8"), threads=1) as runtime:
        assert np.abs(runtime.run(images) - expected).max() > 0.01
    source = Source(network="cifar_resnet8", weights=tmp_path / "weights.pt")
    with open_runtime("torch", source, threads=1) as runtime:
        np.testing.assert_allclose(runtime.run(images), expected, rtol=1e-5, atol=1e-6)


def test_an_image_s_logits_do_not_depend_on_its_batch(images: np.ndarray) -> None:
    with open_runtime("torch", Source(network="cifar_resnet8"), threads=1) as runtime:
        together = runtime.run(images)
        alone = np.concatenate([runtime.run(image[None]) for image in images])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)  # in training mode they differ by tenths


def test_threads_are_those_asked_for() -> None:
    with open_runtime("torch", Source(network="cifar_resnet8"), threads=3):
        assert torch.get_num_threads() == 3


@pytest.mark.parametrize("name", sorted(NETWORK_RUNTIMES))
def test_it_does_not_run_files(name: str) -> None:
    with pytest.raises(UnavailableError, match=r"runs networks, not (ONNX )?files such as m\.onnx"):
        open_runtime(name, Source(path=Path("m.onnx")))
