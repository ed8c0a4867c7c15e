"""What tests of every part share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from rexport._errors import UnavailableError
from rexport.models.references import import_torchvision

# how long an example takes says how busy the machine is, and nothing of what is tested
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


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
