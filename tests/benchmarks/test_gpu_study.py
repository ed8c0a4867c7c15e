"""The study of a GPU: here it says why it can't, and what it does is tried on the CPU."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from benchmarks.studies import gpu
from benchmarks.studies._gpu_facts import facts_in
from rexport.runtimes import RUNTIMES
from rexport.runtimes.probes import PROBES, probe_all
from tests.benchmarks._rexport import starts_nothing

if TYPE_CHECKING:
    from pathlib import Path

_SMI = "NVIDIA RTX A2000, 550.54.14, 8.6, 6138 MiB, 210 MHz, 2100 MHz, 405 MHz, 70.00 W, 41, [N/A]\nanother, 1\n"


def _study(folder: Path, *options: str) -> tuple[int, dict[str, object], str]:
    app = typer.Typer()
    app.command()(gpu.main)
    result = CliRunner().invoke(app, ["--data", str(folder), "--json", str(folder.parent / "gpu.json"), *options])
    return result.exit_code, json.loads((folder.parent / "gpu.json").read_text()), result.stdout


def _pictures(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for index in range(8):
        path = folder / "pictures" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return folder / "pictures"


def test_the_runtimes_and_their_probes_are_known() -> None:
    assert set(gpu.RUNTIMES) <= set(RUNTIMES)
    assert set(gpu.RUNTIMES.values()) <= set(PROBES)


@pytest.mark.slow
def test_without_a_gpu_every_row_says_why(tmp_path: Path) -> None:
    if any(finding.usable for finding in probe_all(list(dict.fromkeys(gpu.RUNTIMES.values())))):
        pytest.skip("there is a GPU")
    code, document, printed = _study(_pictures(tmp_path))
    rows = document["rows"]
    assert isinstance(rows, list)
    assert code == 5
    assert len(rows) == len(gpu.PRECISIONS) * len(gpu.RUNTIMES)
    assert {row["status"] for row in rows} == {"unavailable"}
    assert all(row["reason"] for row in rows)
    assert "No NVIDIA GPU" in printed


def test_what_nvidia_smi_says() -> None:
    facts = facts_in(_SMI)
    assert (facts["name"], facts["driver"], facts["clock"]) == ("NVIDIA RTX A2000", "550.54.14", "210 MHz")
    assert facts["mig"] is None
    assert set(facts_in("").values()) == {None}


@pytest.mark.slow
def test_what_can_run_is_evaluated_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's CPU provider in place of a GPU's, which takes the same way through the study."""
    starts_nothing(monkeypatch, gpu)
    monkeypatch.setattr(gpu, "RUNTIMES", {"cpu": "cpu", "cuda": "cuda"})
    monkeypatch.setattr(gpu, "PRECISIONS", ("fp32",))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    options = ("--network", "cifar_resnet8", "--batch", "2", "--min-seconds", "0")
    code, document, _ = _study(_pictures(tmp_path), *options)
    rows, accuracy = document["rows"], document["accuracy"]
    assert isinstance(rows, list)
    assert isinstance(accuracy, list)
    assert code == 0
    assert document["parity"]["difference"] < 1e-5  # type: ignore[index]
    measured = next(row for row in rows if row["runtime"] == "cpu")
    assert (measured["precision"], measured["status"], measured["model"]) == ("fp32", "ok", "fp32.onnx")
    assert measured["images_per_second"] > 0
    judged = next(one for one in accuracy if one["runtime"] == "cpu")
    assert (judged["status"], judged["agreement"], judged["images"]) == ("ok", 1, 8)
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "1"
    assert str(tmp_path) not in str(rows)
