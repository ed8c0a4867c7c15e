"""The examples in docstrings give what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_PACKAGES = {"exporter": "rexport", "calibration": "rexport.calibration", "benchmarks": "rexport.benchmarks"}
_NOT_INSTALLED = {"peers", "studies"}


def _modules_with_examples() -> list[str]:
    return [
        ".".join([package, *path.relative_to(_ROOT / folder).with_suffix("").parts]).removesuffix(".__init__")
        for folder, package in _PACKAGES.items()
        for path in sorted((_ROOT / folder).rglob("*.py"))
        if not _NOT_INSTALLED & set(path.parts) and ">>> " in path.read_text()
    ]


@pytest.mark.parametrize("module", _modules_with_examples())
def test_examples(module: str) -> None:
    result = doctest.testmod(import_module(module))
    assert result.attempted
    assert not result.failed
