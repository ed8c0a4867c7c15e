"""Benchmarks: what is checked first, settings, limits, and the files that are written."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rexport._errors import (
    GateError,
    InputError,
    MissingFileError,
    ModelFileError,
    OutputError,
    UnavailableError,
    UsageError,
)
from rexport._files import file_sha256
from rexport.benchmarks import BenchResult, Row, Status, machine_facts
from rexport.benchmarks.document import Kind, Peak, PeakPrecision
from rexport.benchmarks.results import timed
from rexport.benchmarks.scenarios import Scenario, ScenarioRequest
from rexport.deployment_settings import DeploymentSettings, RunSettings, TunedMachine, write_settings
from rexport.jobs.bench import BenchReport, BenchRequest, measure_limits, profile_rows, run, with_settings
from rexport.model_file import save
from tests._settings import SETTINGS
from tests.quantization._tables import exported

if TYPE_CHECKING:
    from collections.abc import Callable

PEAK = Peak(
    runtime="cpu",
    precision=PeakPrecision.FLOAT32,
    kind=Kind.CONVOLUTION,
    threads=1,
    gmacs_per_second=100.0,
    load="6 of 3×3",
)
_BARE = Row(model="m.onnx", runtime="cpu", batch=4, threads=1)
_ROW = timed(_BARE, ((0.001, 0.0011), (0.001, 0.00101)) * 4)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Row], None]:
    """Plants what is measured; without that, a row of ``m.onnx``."""
    monkeypatch.chdir(tmp_path)
    save(exported("cifar_resnet8"), Path("m.onnx"))

    def plant(*rows: Row) -> None:
        result = BenchResult(machine=idle, rows=rows, time="2026-11-30T19:05:14Z")
        monkeypatch.setattr("rexport.benchmarks.bench", lambda *_, **__: result)

    idle = replace(machine_facts(), load_average=0.0)
    monkeypatch.setattr("rexport.jobs.bench.machine_facts", lambda: idle)
    plant(_ROW)
    return plant


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeploymentSettings:
    """Settings of this machine beside their file, in another folder than the working one."""
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("there/m.onnx").write_bytes(b"weights")
    model = replace(SETTINGS.model, file="m.onnx", sha256=file_sha256(Path("there/m.onnx")))
    written = replace(SETTINGS, model=model, machine=TunedMachine.here())
    write_settings(written, Path("there/s.toml"))
    return written


def _by_settings(*models: str, **options: Any) -> tuple[BenchRequest, list[str]]:
    notes: list[str] = []
    request = BenchRequest(settings=Path("there/s.toml"), models=models, **options)
    return with_settings(request, notes.append), notes


def test_settings_say_what_to_measure(settings: DeploymentSettings) -> None:
    request, notes = _by_settings()
    assert (request.models, request.runtimes) == (("there/m.onnx",), ("cpu",))
    assert (request.batches, request.threads) == ((8,), 2)
    expected = "100.0 images per second (95 % interval 90.0 to 110.0)"
    assert notes == [f"there/s.toml: cpu, batch 8, 2 threads; expected {expected}"]
    request, _ = _by_settings(scenario=ScenarioRequest(scenario=Scenario.SINGLE_STREAM))
    assert request.batches == (1,)


def test_other_models_come_after_that_of_the_settings_and_it_comes_once(settings: DeploymentSettings) -> None:
    request, _ = _by_settings("other.onnx", "./there/m.onnx")
    assert request.models == ("there/m.onnx", "other.onnx")


def test_settings_of_another_machine_are_told(settings: DeploymentSettings) -> None:
    machine = replace(settings.machine, cores=settings.machine.cores + 62)
    write_settings(replace(settings, machine=machine), Path("there/s.toml"))
    _, (_, note) = _by_settings()
    assert f"usable cores: {machine.cores} there, {settings.machine.cores} here" in note
    assert "run `rexport tune` here" in note


def test_settings_that_can_not_be_run_are_refused(settings: DeploymentSettings) -> None:
    run_settings = RunSettings(runtime="abacus", threads=1, batch=1)
    write_settings(replace(settings, run=run_settings), Path("there/s.toml"))
    with pytest.raises(UsageError, match="names the runtime 'abacus'; choose from cpu"):
        _by_settings()
    Path("there/m.onnx").write_bytes(b"others")
    with pytest.raises(ModelFileError, match="is not the file that the settings were measured with"):
        _by_settings()
    with pytest.raises(InputError, match="can't be read"):
        with_settings(BenchRequest(settings=Path("s.toml")), lambda _: None)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "Name at least one ONNX file or network to measure, or --settings"),
        ({"settings": Path("s.toml"), "batches": (8,)}, "leave out --on, --batch and --threads"),
        ({"saved": Path("r.json"), "models": ("m",)}, "measures nothing; leave out MODEL"),
        ({"saved": Path("r.json"), "layers": True}, "and --layers"),
        ({"saved": Path("r.json"), "runtimes": ("cpu",)}, "such as --on"),
        ({"models": ("m",), "max_regression": 5}, "pass --compare OLD.json too"),
        ({"models": ("m",), "max_regression": -1.0, "compare": Path("o")}, "a percentage from 0 to below 100"),
        ({"models": ("m",), "max_regression": 100.0, "compare": Path("o")}, "a percentage from 0 to below 100"),
        ({"models": ("m",), "max_regression": float("nan"), "compare": Path("o")}, "a percentage from 0 to below 100"),
        (
            {"models": ("m",), "batches": (8,), "scenario": ScenarioRequest(scenario=Scenario.SINGLE_STREAM)},
            "one image at a time",
        ),
    ],
)
def test_values_that_do_not_go_together(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        BenchRequest(**options)


def test_single_stream_is_of_one_image_and_the_others_of_any() -> None:
    stream, offline = ScenarioRequest(scenario=Scenario.SINGLE_STREAM), ScenarioRequest(scenario=Scenario.OFFLINE)
    assert BenchRequest(models=("m",), scenario=stream, batches=(1,)).single_stream
    assert not BenchRequest(models=("m",), scenario=offline, batches=(1, 8)).single_stream


def test_loadgen_has_to_be_installed(measured: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    scenario = ScenarioRequest(scenario=Scenario.OFFLINE, loadgen=True)
    with pytest.raises(UnavailableError, match="pip install"):
        run(BenchRequest(models=("m.onnx",), scenario=scenario))


def test_files_are_written_and_hold_what_changed(measured: Callable[..., None], tmp_path: Path) -> None:
    first = run(BenchRequest(models=("m.onnx",), output=Path("old.json"), command="rexport bench m.onnx"))
    assert first.changes is None
    document = json.loads(Path("old.json").read_text())
    assert document == json.loads(json.dumps(first.to_json()))
    assert document["command"] == "rexport bench m.onnx"
    assert "changes" not in document
    report = run(BenchRequest(models=("m.onnx",), html=Path("r.html"), markdown=Path("r.md"), compare=Path("old.json")))
    page, text = Path("r.html").read_text(encoding="utf-8"), Path("r.md").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "Against the earlier run" in page
    assert text == report.to_markdown()
    assert text.startswith("- Fastest at batch 4")
    assert "| ratio (95 %)" in text.replace("  ", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "old.json", "r.html", "r.md"]


def test_a_saved_run_is_reported_on_and_nothing_is_measured(
    measured: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(BenchRequest(models=("m.onnx",), output=Path("run.json"), command="rexport bench m.onnx"))
    monkeypatch.setattr("rexport.benchmarks.bench", None)
    files: dict[str, Any] = {"html": Path("r.html"), "markdown": Path("r.md"), "compare": Path("run.json")}
    report = run(BenchRequest(saved=Path("run.json"), command="rexport bench --from run.json", **files))
    assert (report.rows, report.machine, report.command) == (first.rows, first.machine, first.command)
    assert report.changes is not None
    assert "2026-11-30 19:05 UTC" in Path("r.html").read_text(encoding="utf-8")
    assert "2026-11-30T19:05:14Z" in Path("r.md").read_text(encoding="utf-8")
    report.require()


def test_a_busy_machine_is_told_before_anything_is_measured(
    measured: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = replace(machine_facts(), cores=2, load_average=1.5)
    monkeypatch.setattr("rexport.jobs.bench.machine_facts", lambda: busy)
    monkeypatch.setattr("rexport.benchmarks.bench", None)
    notes: list[str] = []
    with pytest.raises(TypeError):  # where it would begin to measure
        run(BenchRequest(models=("m.onnx",)), note=notes.append)
    assert len(notes) == 1
    assert "the machine is busy (load 1.5 on 2 cores)" in notes[0]


def test_what_is_slower_past_the_bound_fails(measured: Callable[..., None]) -> None:
    run(BenchRequest(models=("m.onnx",), output=Path("old.json")))
    rounds = tuple(tuple(1.5 * second for second in block) for block in _ROW.rounds)
    measured(timed(_ROW, rounds))
    report = run(BenchRequest(models=("m.onnx",), compare=Path("old.json"), max_regression=5, output=Path("new.json")))
    assert any(row["regression"] for row in json.loads(Path("new.json").read_text())["changes"]["rows"])
    with pytest.raises(GateError, match="Slower by more than 5 %"):
        report.require()


def test_a_bound_is_not_held_to_another_machine_before_anything_is_measured(measured: Callable[..., None]) -> None:
    report = run(BenchRequest(models=("m.onnx",)))
    document = report.to_json()
    document["machine"]["cpu"] = "another"
    Path("other.json").write_text(json.dumps(document))
    measured()
    with pytest.raises(InputError, match="another machine"):
        run(BenchRequest(models=("m.onnx",), compare=Path("other.json"), max_regression=5))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"html": Path()}, OutputError, "is a folder"),
        ({"markdown": Path("none/r.md")}, OutputError, "does not exist"),
        ({"output": Path("none/r.json")}, OutputError, "mkdir"),
        ({"compare": Path("none.json")}, MissingFileError, r"none\.json does not exist"),
    ],
)
def test_what_can_not_be_written_or_read_is_said_first(
    measured: Callable[..., None], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], error: type, says: str
) -> None:
    monkeypatch.setattr("rexport.benchmarks.bench", None)
    with pytest.raises(error, match=says):
        run(BenchRequest(models=("m.onnx",), **options))


def test_a_full_disk_leaves_the_old_report(measured: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    target = Path("r.html")
    target.write_text("the old one")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        patched.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
        with pytest.raises(OutputError, match="no room"):
            run(BenchRequest(models=("m.onnx",), html=target))
    assert target.read_text() == "the old one"
    assert sorted(path.name for path in Path().iterdir()) == ["m.onnx", "r.html"]


def test_nothing_measured_is_unavailable_with_the_reason(measured: Callable[..., None]) -> None:
    measured(replace(_BARE, status=Status.FAILED, reason="It crashed."))
    report = run(BenchRequest(models=("m.onnx",)))
    assert not report.measured
    with pytest.raises(UnavailableError, match=r"Nothing could be measured\. It crashed\."):
        report.require()


@pytest.mark.slow
def test_limits_and_layers_in_the_document(measured: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rexport.benchmarks.limits.measure_peaks", lambda *_, **__: (PEAK,))
    row = timed(_BARE, ((0.001, 0.001),))
    failed = replace(_BARE, status=Status.FAILED, reason="It crashed.")
    rows, peaks = measure_limits([row, failed], peak=True, again=False)
    profiles = profile_rows([row, row, failed])
    assert len(profiles) == 1
    request = BenchRequest(models=("m.onnx",))
    report = BenchReport(request=request, machine=machine_facts(), rows=rows, peaks=peaks, layers=profiles)
    document = report.to_json()
    first, second = document["rows"]
    assert first["macs"] == second["macs"] == 12_501_632
    assert first["gmacs_per_second"] == pytest.approx(12_501_632 * 4 / 0.001 / 1e9)
    assert first["share_of_peak"] == pytest.approx(0.50006528)
    assert second["gmacs_per_second"] is second["share_of_peak"] is None
    assert document["peaks"][0]["gmacs_per_second"] == 100.0
    assert [entry["batch"] for entry in document["layers"]] == [4]


def test_without_a_peak_there_is_speed_alone(measured: Callable[..., None]) -> None:
    report = run(BenchRequest(models=("m.onnx",)))
    assert report.peaks == ()
    assert report.rows[0].gmacs_per_second
    assert report.rows[0].share_of_peak is None
    assert "peaks" not in report.to_json()


def test_a_peak_that_can_not_be_measured_is_a_note(
    measured: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UnavailableError("The peak of cpu can't be measured: no memory.")

    monkeypatch.setattr("rexport.benchmarks.limits.measure_peaks", fail)
    notes: list[str] = []
    report = run(BenchRequest(models=("m.onnx",), peak=True), note=notes.append)
    assert report.rows[0].gmacs_per_second
    assert notes == ["The peak of cpu can't be measured: no memory."]


def test_what_can_not_be_profiled_is_a_note(measured: Callable[..., None]) -> None:
    notes: list[str] = []
    network = replace(_ROW, model="cifar_resnet8", runtime="torch")
    assert profile_rows([network, replace(_ROW, runtime="torch")], note=notes.append) == ()
    assert "cifar_resnet8 is not a file" in notes[0]
    assert "Layers of torch can't be profiled" in notes[1]
