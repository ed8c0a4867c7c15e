"""What ``bench`` prints of changes since an earlier run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rexport.benchmarks.reports import compare
from rexport.cli._bench_report import print_changes
from tests.cli._run import invoke

if TYPE_CHECKING:
    import pytest

SAMPLE = Path(__file__).parents[1] / "benchmarks" / "reports" / "sample.json"


def test_changes_are_printed_and_past_the_bound_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(SAMPLE.read_text(encoding="utf-8"))
    rows = [{**row, "seconds": [1.5 * second for second in row["seconds"]]} for row in document["rows"]]
    print_changes(compare(document, {**document, "rows": rows}, 5))
    printed = capsys.readouterr().out
    assert "slower, past the bound" in printed
    assert "slower beyond noise" in printed


def test_a_saved_run_is_printed_as_a_table(tmp_path: Path) -> None:
    result = invoke("bench", "--from", SAMPLE, "--markdown", tmp_path / "r.md")
    assert result.exit_code == 0, result.output
    assert "p99 ms" in result.stdout
    assert "threads" not in result.stdout.splitlines()[2]
    assert "Fastest at batch 8: cifar_resnet20-int8.onnx on cpu, 10,324 img/s" in result.stdout
    assert (tmp_path / "r.md").read_text(encoding="utf-8").startswith("- Fastest at batch 1")
    assert invoke("bench", "--from", SAMPLE, "m.onnx").exit_code == 2


def test_two_documents_do_not_both_go_to_stdout() -> None:
    result = invoke("bench", "m.onnx", "--json", "--markdown", "-")
    assert result.exit_code == 2
    assert "both print to stdout" in result.stderr


def test_the_older_name_of_settings_works_and_says_so(tmp_path: Path) -> None:
    result = invoke("bench", "--profile", str(tmp_path / "none.toml"))
    assert result.exit_code == 2
    assert "--profile is called --settings now" in result.stderr
    assert "none.toml does not exist" in " ".join(result.stderr.split())
