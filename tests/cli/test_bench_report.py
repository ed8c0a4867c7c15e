from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rexport._errors import GateError, InputError, OutputError, UsageError
from rexport.benchmarks import machine_facts
from rexport.cli._bench_report import Reports, changes_json, command_line, print_changes

SAMPLE = Path(__file__).parents[1] / "benchmarks" / "reports" / "sample.json"


@pytest.fixture
def document() -> dict[str, Any]:
    """A benchmark of this machine."""
    found: dict[str, Any] = json.loads(SAMPLE.read_text(encoding="utf-8"))
    return {**found, "machine": machine_facts().to_json()}


@pytest.fixture
def old(document: dict[str, Any], tmp_path: Path) -> Path:
    file = tmp_path / "old.json"
    file.write_text(json.dumps(document))
    return file


def slower(document: dict[str, Any]) -> dict[str, Any]:
    rows = [{**row, "seconds": [1.5 * second for second in row["seconds"]]} for row in document["rows"]]
    return {**document, "rows": rows}


def parse(*, report: Path | None = None, markdown: str | None = None, **options: Any) -> Reports:
    given = {"compare": None, "max_regression": None, "as_json": False, **options}
    return Reports.parse(report, markdown, given["compare"], given["max_regression"], as_json=given["as_json"])


def test_files_are_written_and_hold_what_changed(document: dict[str, Any], old: Path, tmp_path: Path) -> None:
    reports = parse(report=tmp_path / "r.html", markdown=str(tmp_path / "r.md"), compare=old)
    changes = reports.changes(document)
    reports.write(document, changes)
    page, text = (tmp_path / "r.html").read_text(encoding="utf-8"), (tmp_path / "r.md").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "Against the earlier run" in page
    assert "| ratio (95 %)" in text.replace("  ", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.json", "r.html", "r.md"]


def test_markdown_goes_to_stdout(document: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    reports = parse(markdown="-")
    assert reports.markdown_to_stdout
    reports.write(document, reports.changes(document))
    assert capsys.readouterr().out.startswith("- Fastest at batch 1")


def test_nothing_asked_for_does_nothing(document: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    reports = parse()
    changes = reports.changes(document)
    reports.write(document, changes)
    print_changes(changes)
    assert changes_json(changes) == {"changes": None}
    assert capsys.readouterr() == ("", "")


def test_changes_are_printed_and_past_the_bound_fail(
    document: dict[str, Any], old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = parse(compare=old, max_regression=5)
    changes = reports.changes(slower(document))
    assert changes is not None
    print_changes(changes)
    printed = capsys.readouterr().out
    assert "slower, past the bound" in printed
    assert "slower beyond noise" in printed
    assert any(row["regression"] for row in changes_json(changes)["changes"]["rows"])
    with pytest.raises(GateError, match="Slower by more than 5 %"):
        changes.require()


def test_a_bound_is_not_held_to_another_machine_before_anything_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    document = json.loads(SAMPLE.read_text(encoding="utf-8"))
    document["machine"]["cpu"] = "another"
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match="another machine"):
        parse(compare=file, max_regression=5)
    assert parse(compare=file).old == document


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_regression": 5}, "pass --compare OLD.json too"),
        ({"markdown": "-", "as_json": True}, "both print to stdout"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse(**options)


@pytest.mark.parametrize("percent", [-1.0, 100.0, float("nan")])
def test_a_bound_that_makes_no_sense(old: Path, percent: float) -> None:
    with pytest.raises(UsageError, match="per cent, from 0 to less than 100"):
        parse(compare=old, max_regression=percent)


def test_what_can_not_be_written_or_read_is_said_first(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        parse(report=tmp_path)
    with pytest.raises(OutputError, match="does not exist"):
        parse(markdown=str(tmp_path / "none" / "r.md"))
    with pytest.raises(InputError, match=r"none\.json can't be read"):
        parse(compare=tmp_path / "none.json")


def test_the_command_can_be_typed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/rexport", "bench", "my net.onnx", "--batch", "1,8"])
    assert command_line() == "rexport bench 'my net.onnx' --batch 1,8"


def test_a_full_disk_leaves_the_old_report(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "r.html"
    target.write_text("the old one")
    reports = parse(report=target)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        patched.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
        with pytest.raises(OutputError, match="no room"):
            reports.write(document, None)
    assert target.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [target]
