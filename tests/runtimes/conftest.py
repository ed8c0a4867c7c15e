"""The GPU, where there is one, and stand-ins for it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from rexport.runtimes.probes import probe
from tests.runtimes._engines import StandIns, build_rtx, compile_driver

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.fixture(scope="session")
def rtx_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real engine of TensorRT for RTX, not to be changed; no GPU is needed to build it."""
    return build_rtx(tmp_path_factory.mktemp("rtx"))


@pytest.fixture
def own_rtx_engine(rtx_engine: Path, tmp_path: Path) -> Path:
    """A copy of it that the test may change."""
    for name in ("m.engine", "m.engine.json"):
        shutil.copy(rtx_engine.with_name(name), tmp_path / name)
    return tmp_path / "m.engine"


@pytest.fixture(scope="session")
def _driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stand-ins")
    compile_driver(folder)
    return folder


@pytest.fixture
def stand_ins(_driver: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """Stand-ins for CUDA's driver and ``tensorrt``, which run engines that are ONNX files on the CPU."""
    return StandIns(_driver, monkeypatch)


@pytest.fixture(scope="session")
def tensorrt_engine() -> None:
    """Engines of TensorRT can be built, loaded and run here."""
    _usable("tensorrt-engine")


@pytest.fixture(scope="session")
def tensorrt_rtx_engine() -> None:
    """Engines of TensorRT for RTX can be built, loaded and run here."""
    _usable("tensorrt-rtx-engine")
