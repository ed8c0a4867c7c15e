"""The GPU, where there is one."""

from __future__ import annotations

import pytest

from rexport.runtimes.probes import probe


def _usable(name: str) -> None:
    finding = probe(name)
    if not finding.usable:
        pytest.skip(f"{finding.what} is not usable here: {finding.reason}")


@pytest.fixture(scope="session")
def cuda() -> None:
    """ONNX Runtime's CUDA provider works here."""
    _usable("cuda")


@pytest.fixture(scope="session")
def tensorrt() -> None:
    """ONNX Runtime's TensorRT provider works here."""
    _usable("tensorrt")
