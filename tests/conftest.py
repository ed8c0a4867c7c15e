"""What tests of every part share."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import settings

from rexport._errors import UnavailableError
from rexport.models.torchvision_networks import import_torchvision
from tests._deep import part_of, runs
from tests._products import Products

if TYPE_CHECKING:
    from collections.abc import Iterator

# the same examples in every run; how long one takes says how busy the machine is, and nothing of what is tested
settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")

_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deep", metavar="K/N", default="1/1", help="with -m deep: only the K-th of N parts")


def pytest_configure(config: pytest.Config) -> None:
    """Give each of several workers a core of its own: the threads of their libraries would fight for all cores."""
    part_of(config.getoption("--deep"))
    if config.getoption("numprocesses", None):
        os.environ["OMP_NUM_THREADS"] = "1"  # of the workers, whose libraries count all cores when they are imported
    if _WORKER and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(_WORKER.removeprefix("gw")) % len(cores)]})


def pytest_collection_finish() -> None:
    """Keep what is imported and collected out of the garbage collector's way: it stays until the end."""
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    markers, part = config.getoption("markexpr"), part_of(config.getoption("--deep"))
    config.hook.pytest_deselected(items=[item for item in items if not runs(item, markers=markers, part=part)])
    items[:] = [item for item in items if runs(item, markers=markers, part=part)]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Give PyTorch its number of threads back, which commands and runtimes set for their process.

    More threads than a worker has cores wait for each other a hundred times as long as they compute.
    """
    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def products(tmp_path_factory: pytest.TempPathFactory) -> Products:
    """What is made once in a run, whatever its workers."""
    folder = tmp_path_factory.getbasetemp()
    Products.of_run = Products((folder.parent if _WORKER else folder) / "products")
    return Products.of_run


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
