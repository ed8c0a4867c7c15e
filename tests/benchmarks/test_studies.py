from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from benchmarks.studies._random_weights import write_random_weights
from benchmarks.studies.readme import TABLES, highlights, table, with_table

_ROOT = Path(__file__).parents[2]
_RESULTS = _ROOT / "benchmarks" / "results"
_STUDIES = sorted(
    path.stem for path in (_ROOT / "benchmarks" / "studies").glob("[a-z]*.py") if path.stem not in ("readme",)
)


@pytest.mark.parametrize("page", TABLES)
def test_pages_have_the_figures_of_the_files(page: str) -> None:
    text = (_ROOT / page).read_text(encoding="utf-8")
    assert TABLES[page](_RESULTS) in text
    assert with_table(text, TABLES[page](_RESULTS)) == text


def test_the_readme_has_six_of_the_rows() -> None:
    rows = highlights(_RESULTS).splitlines()
    assert len(rows) == 2 + 6
    assert set(rows) < set(table(_RESULTS).splitlines())
    assert "no failures in 600 runs" in rows[-1]


def test_another_figure_would_be_seen(tmp_path: Path) -> None:
    for file in _RESULTS.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    document = json.loads((tmp_path / "export-time.json").read_text())
    (tmp_path / "export-time.json").write_text(json.dumps({**document, "ratio": 9.99}))
    text = (_ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert "9.99 × the time of a bare" in with_table(text, table(tmp_path))


@pytest.mark.parametrize("study", _STUDIES)
def test_every_study_says_how_it_is_run(
    study: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [study, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(_ROOT / "benchmarks" / "studies" / f"{study}.py"), run_name="__main__")
    assert end.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_results_say_what_they_were_measured_on() -> None:
    files = sorted(_RESULTS.glob("*.json"))
    assert files
    for file in files:
        document = json.loads(file.read_text(encoding="utf-8"))
        assert document["schema"].startswith("rexport."), file
        assert {"cpu", "cores", "int8", "packages"} <= set(document["machine"]), file
        assert not [place for place in ("/work/", "/home/", "/tmp/") if place in str(document)], file


def test_random_weights_are_the_same_each_time_and_have_biases(tmp_path: Path) -> None:
    files = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for file in files:
        write_random_weights("cifar_resnet8", file)
    one, two = (load_file(file) for file in files)
    assert one.keys() == two.keys()
    assert all(one[name].equal(two[name]) for name in one)
    assert one["bn1.bias"].abs().min() > 0
    assert one["bn1.running_mean"].abs().min() > 0


def test_a_tool_that_is_not_known_is_named() -> None:
    command = [sys.executable, "-m", "benchmarks.studies.int8_peers", "cifar_resnet20:weights:data", "--only", "nobody"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 2
    assert "nobody is none of nncf, onnxruntime, rexport" in done.stderr
