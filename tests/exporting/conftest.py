"""Exports, made once for all tests that look at them; tests that change one take a copy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from rexport.exporting import ExportResult, export
from rexport.models import build
from rexport.preprocessing import Preprocessing
from tests._networks import trained_like
from tests.exporting._networks import Handmade

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


@dataclass(frozen=True)
class Exported:
    """A module and what came of it; its pictures are ``size`` pixels wide."""

    module: nn.Module
    result: ExportResult
    size: int


@pytest.fixture(scope="session")
def exported() -> Callable[..., Exported]:
    """Exports a network of the zoo, or the handmade one, at most once with the same options."""

    @cache
    def of(name: str, size: int, **options: Any) -> Exported:
        module = trained_like(Handmade() if name == "handmade" else build(name, seed=0))
        result = export(module, preprocessing=Preprocessing(size=size), network=name, **options)
        return Exported(module, result, size)

    return of
