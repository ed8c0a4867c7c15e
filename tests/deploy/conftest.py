"""What tests of bundles on their way to devices share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.deploy._cargo import new_keys, write_bundle

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Supplies:
    """A key that devices trust, and two versions that it signed."""

    public: Path
    first: Path
    second: Path


@pytest.fixture(scope="session")
def supplies(tmp_path_factory: pytest.TempPathFactory) -> Supplies:
    folder = tmp_path_factory.mktemp("supplies")
    private, public = new_keys(folder)
    first = write_bundle(folder / "tiny-1.rxb", key=private, version=1)
    second = write_bundle(folder / "tiny-2.rxb", key=private, version=2, ballast=400_000)
    return Supplies(public=public, first=first, second=second)
