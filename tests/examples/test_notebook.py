"""The notebook runs from the first cell to the last, and shows its results."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import rexport

_NOTEBOOK = Path(__file__).parents[2] / "examples" / "accuracy_and_speed.ipynb"


def _shown(code: str, names: dict[str, Any]) -> Any:
    """Run a cell, and return the value of its last line, which a notebook shows; ``None`` if it has none."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, _NOTEBOOK.name, "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), _NOTEBOOK.name, "eval"), names)


@pytest.mark.slow
def test_it_runs_and_shows_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="the digits come with it: pip install 'rexport[quickstart]'")
    pytest.importorskip("matplotlib", reason="drawings need it: pip install 'rexport[report]'").use("agg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    cells = [cell for cell in json.loads(_NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)  # none is kept in the repository
    results = [_shown("".join(cell["source"]), names) for cell in cells]
    shown = [type(result) for result in results if hasattr(result, "_repr_html_")]
    assert shown == [
        rexport.TrainResult,
        rexport.ExportReport,
        rexport.QuantizeResult,
        rexport.EvaluateResult,
        rexport.BenchReport,
        rexport.PredictResult,
    ]
    assert all(evaluation.top1 > 0.8 for evaluation in names["evaluations"].values())
    assert len(names["axes"].collections) == len(names["files"]) == 4
