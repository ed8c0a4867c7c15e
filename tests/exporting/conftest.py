"""Exports, made once for all tests that look at them; tests that change one take a copy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch

from rexport.models import build
from rexport.models.ensemble import Ensemble
from tests._networks import export_once, trained_like
from tests.exporting._networks import Handmade, Small

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from rexport.exporting import ExportResult
    from rexport.preprocessing import Size
    from tests._products import Products

_OWN = {"small": Small, "two small": lambda: Ensemble([Small(), Small()]), "handmade": Handmade}


@dataclass(frozen=True)
class Exported:
    """A module and what came of it; its pictures are of ``size``."""

    module: nn.Module
    result: ExportResult
    size: Size


@pytest.fixture(scope="session")
def exported(products: Products) -> Callable[..., Exported]:
    """Exports a network of the zoo, the small or the handmade one, at most once with the same options."""

    @cache
    def of(name: str, size: Size, **options: Any) -> Exported:
        torch.manual_seed(0)
        module = trained_like(_OWN[name]() if name in _OWN else build(name, seed=0))
        return Exported(module, export_once(products, name, module=module, size=size, **options), size)

    return of
