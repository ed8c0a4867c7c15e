"""The degradation experiment runs, and its figures in the repository show what it is about."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.training._images import write_images

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = Path(__file__).parents[2]
_EXAMPLE = _ROOT / "examples" / "degradation.py"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the example in this process, and return what it says in the end."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["degradation.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(_EXAMPLE), run_name="__main__")
        return str(end.value.code or capsys.readouterr().out)

    return run


@pytest.mark.slow
def test_a_small_one(tmp_path: Path, run: Callable[..., str]) -> None:
    pytest.importorskip("matplotlib", reason="drawings need it: pip install 'rexport[report]'")
    images = write_images(tmp_path / "images", count=4)
    drawing, threads = tmp_path / "out.png", torch.get_num_threads()
    said = run("--data", images, "-o", drawing, "--depths", "8,14", "--epochs", 1, "--threads", threads)
    assert said.endswith(f"{drawing} and {tmp_path / 'out.json'}\n")
    assert drawing.read_bytes().startswith(b"\x89PNG")
    document = json.loads(drawing.with_suffix(".json").read_text())
    assert [run["network"] for run in document["runs"]] == [
        "cifar_plain8",
        "cifar_plain14",
        "cifar_resnet8",
        "cifar_resnet14",
    ]
    assert all(len(run["epochs"]) == 1 for run in document["runs"])


def test_without_matplotlib_it_says_what_to_type(
    tmp_path: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # its import fails
    said = run("--data", tmp_path)
    assert said.startswith("error: ")
    assert "pip install 'rexport[report]'" in said


def test_without_pictures_it_says_so(run: Callable[..., str]) -> None:
    pytest.importorskip("matplotlib", reason="drawings need it: pip install 'rexport[report]'")
    assert run("--data", "nowhere").startswith("error: there is no folder nowhere")


def _errors(document: dict[str, Any]) -> dict[str, float]:
    return {run["network"]: 1 - run["epochs"][-1]["train_top1"] for run in document["runs"]}


def test_the_figures_show_the_degradation_and_its_cure() -> None:
    document = json.loads((_ROOT / "benchmarks" / "results" / "degradation.json").read_text())
    errors = _errors(document)
    plain = errors["cifar_plain56"] - errors["cifar_plain20"]
    residual = errors["cifar_resnet56"] - errors["cifar_resnet20"]
    assert plain > 0.1
    assert residual < plain / 3
