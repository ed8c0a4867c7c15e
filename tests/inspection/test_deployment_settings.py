"""What is said of deployment settings."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rexport._errors import InputError
from rexport._files import file_sha256
from rexport.choices import Goal
from rexport.deployment_settings import Goals, TunedModel, write_settings
from rexport.inspection import inspect_file
from tests._settings import SETTINGS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "m.onnx").write_bytes(b"weights")
    settings = replace(
        SETTINGS,
        model=TunedModel(file="m.onnx", sha256=file_sha256(tmp_path / "m.onnx"), precision="int8", regroup="measure"),
        asked=Goals(goal=Goal.LATENCY, latency_bound_ms=20.0, max_drop_points=0.5),
        expected=replace(SETTINGS.expected, images_per_second=1234.5, drop_points=0.25),
    )
    write_settings(settings, tmp_path / "p.toml")
    return tmp_path / "p.toml"


def test_settings(path: Path) -> None:
    report = inspect_file(path)
    assert report.kind == "deployment settings"
    facts = dict(report.facts)
    assert facts["settings"] == "the best latency, p90 within 20 ms, at most 0.5 points of top-1 lost"
    assert facts["model"] == f"{path.parent / 'm.onnx'}: the file that was measured"
    assert facts["precision"] == "int8, regrouped"
    assert facts["runs on"] == "cpu, batch 8, 2 threads"
    assert facts["images per second"] == "1,234.50 (90.00 to 110.00)"
    assert facts["p90"] == "85.00 (80.00 to 99.00) ms, from 64 calls"
    assert facts["loses"] == "0.25 points of top-1"
    assert facts["machine"] == 'a "fast" one\\, 2 cores, AVX-512 VNNI'
    document = json.loads(json.dumps(dict(report.document)))
    assert document["images_per_second"] == {"value": 1234.5, "low": 90, "high": 110}
    assert document["machine"]["cores"] == 2


def test_a_file_that_changed_is_told(path: Path) -> None:
    (path.parent / "m.onnx").write_bytes(b"others")
    assert "is not the file that the settings were measured with" in dict(inspect_file(path).facts)["model"]
    (path.parent / "m.onnx").unlink()
    assert "can't be read" in dict(inspect_file(path).facts)["model"]


def test_broken_settings_and_other_toml_are_refused(path: Path) -> None:
    path.write_text(path.read_text().replace("batch = 8", "batch = 0"))
    with pytest.raises(InputError, match=r"run\.batch: expected `int` >= 1"):
        inspect_file(path)
    path.write_text('schema = "other/1"\n')
    with pytest.raises(InputError, match=r"p\.toml"):
        inspect_file(path)
