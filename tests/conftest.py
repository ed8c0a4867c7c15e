"""What tests of every part share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from rexport._errors import UnavailableError
from rexport.models.references import import_torchvision
from tests._deep import chosen
from tests._products import Products

# the same examples in every run; how long one takes says how busy the machine is, and nothing of what is tested
settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")

_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deep", metavar="K/N", help="with -m deep: run only the K-th of N parts of the sweeps")


def pytest_configure() -> None:
    """Give each of several workers a core of its own: the threads of their libraries would fight for all cores."""
    if _WORKER and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(_WORKER.removeprefix("gw")) % len(cores)]})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items[:], left = chosen(items, markers=config.getoption("markexpr"), part=config.getoption("--deep"))
    config.hook.pytest_deselected(items=left)


@pytest.fixture(scope="session")
def products(tmp_path_factory: pytest.TempPathFactory) -> Products:
    """What is made once in a run, whatever its workers."""
    folder = tmp_path_factory.getbasetemp()
    return Products((folder.parent if _WORKER else folder) / "products")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real images and trained weights: ``REXPORT_TEST_DATA``, or ``../shared/data``."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("REXPORT_TEST_DATA", default)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set REXPORT_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def torchvision() -> Any:
    """The real torchvision."""
    try:
        return import_torchvision()
    except UnavailableError as error:
        pytest.skip(str(error))
