"""The degradation experiment runs, and its figures in the repository show what it is about."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training._images import write_images

_ROOT = Path(__file__).parents[2]
_EXAMPLE = _ROOT / "examples" / "degradation.py"


def _run(*arguments: str | Path, without: str = "") -> subprocess.CompletedProcess[str]:
    code = (
        "import runpy, sys\n"
        + (f"sys.modules[{without!r}] = None\n" if without else "")  # its import fails
        + f"sys.argv = ['degradation.py', *{list(map(str, arguments))!r}]\n"
        f"runpy.run_path({str(_EXAMPLE)!r}, run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_a_small_one(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="drawings need it: pip install 'rexport[report]'")
    images = write_images(tmp_path / "images", count=8)
    drawing = tmp_path / "out.png"
    done = _run("--data", images, "-o", drawing, "--depths", "8,14", "--epochs", "1", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert drawing.read_bytes().startswith(b"\x89PNG")
    document = json.loads(drawing.with_suffix(".json").read_text())
    assert [run["network"] for run in document["runs"]] == [
        "cifar_plain8",
        "cifar_plain14",
        "cifar_resnet8",
        "cifar_resnet14",
    ]
    assert all(len(run["epochs"]) == 1 for run in document["runs"])


def test_without_matplotlib_it_says_what_to_type(tmp_path: Path) -> None:
    done = _run("--data", tmp_path, without="matplotlib")
    assert done.returncode == 1
    assert "pip install 'rexport[report]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("options", "message"), [(["--data", "nowhere"], "no folder nowhere")])
def test_bad_input(options: list[str], message: str) -> None:
    pytest.importorskip("matplotlib", reason="drawings need it: pip install 'rexport[report]'")
    done = _run(*options)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def _errors(document: dict[str, Any]) -> dict[str, float]:
    return {run["network"]: 1 - run["epochs"][-1]["train_top1"] for run in document["runs"]}


def test_the_figures_show_the_degradation_and_its_cure() -> None:
    document = json.loads((_ROOT / "benchmarks" / "results" / "degradation.json").read_text())
    errors = _errors(document)
    plain = errors["cifar_plain56"] - errors["cifar_plain20"]
    residual = errors["cifar_resnet56"] - errors["cifar_resnet20"]
    assert plain > 0.1
    assert residual < plain / 3
