from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SAMPLE = Path(__file__).parent / "sample.json"


@pytest.fixture
def sample() -> dict[str, Any]:
    """A benchmark's document with every part that reports show."""
    document: dict[str, Any] = json.loads(SAMPLE.read_text(encoding="utf-8"))
    return document
