"""The comparison with the peers, as far as it goes without them: they are installed when it is run, not here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer

from benchmarks.studies._commands import REXPORT
from benchmarks.studies._peers_table import markdown, readme_rows
from benchmarks.studies._random_weights import write_random_weights
from rexport.tuning import comparison
from tests._deep import deep
from tests.benchmarks._rexport import peers_module, run_here, starts_nothing
from tests.faults.seeds import small_network

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def rexport(*arguments: str, cwd: Path) -> Any:
        return json.loads(run_here([*REXPORT, *arguments, "--json"], cwd=cwd).stdout)

    for name in ("files", "speed"):
        starts_nothing(monkeypatch, peers_module(name))
    monkeypatch.setattr(peers_module("networks"), "rexport", rexport)


# settings


def test_settings_are_told_apart_by_their_files() -> None:
    settings = peers_module("settings")
    every = [*settings.SPEED, *settings.ACCURACY]
    files = [setting.file for setting in every]
    assert sorted(set(files)) == sorted(files)
    assert {setting.environment for setting in every} == {e.name for e in peers_module("environments").ENVIRONMENTS} | {
        None
    }
    for setting in every:
        if setting.program[0].endswith(".py"):
            assert Path(setting.program[0]).is_file()


def test_scripts_of_the_peers_need_nothing_of_rexport() -> None:
    scripts = {s.program[0] for s in peers_module("settings").SPEED if s.program[0].endswith(".py")}
    assert len(scripts) == 4
    for script in scripts:
        assert "import rexport" not in Path(script).read_text()
        assert "from rexport" not in Path(script).read_text()


# files


def _save_model(path: Path, weight: float) -> None:
    model = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["": 17]>
        tiny (float[N, 3, 8, 8] images) => (float[N, 3] logits) {{
            factor = Constant<value = float[1] {{{weight}}}>()
            scaled = Mul(images, factor)
            pooled = GlobalAveragePool(scaled)
            logits = Flatten(pooled)
        }}""")
    onnx.save(model, path)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A network's folder: a model of three means, and eight pictures."""
    images = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "calibration.npy", images)
    np.savez(tmp_path / "test.npz", images=images)
    for name in ("fp32.onnx", "plain.onnx"):
        _save_model(tmp_path / name, 1.0)
    return tmp_path


def _setting(code: str, **changes: Any) -> Any:
    """A tool that is a line of Python: ``model`` and ``output`` are the names of its files."""
    script = f"import sys; model, images, output = sys.argv[1:4]; {code}"
    setting = peers_module("settings").Setting(
        tool="a tool",
        name="one",
        environment=None,
        program=("-c", script),
        arguments=("{model}", "{images}", "{output}"),
    )
    return replace(setting, **changes)


def _make(setting: Any, home: Path, **options: Any) -> Any:
    defaults = {"python": Path(sys.executable), "again": False, "limit": 60.0}
    return peers_module("files").make(setting, home, **{**defaults, **options})


@pytest.mark.usefixtures("_in_this_process")
def test_a_file_is_made_once_and_again_when_its_tool_changes(home: Path) -> None:
    copy = _setting("import shutil; shutil.copy(model, output)")
    made = _make(copy, home)
    assert (made.file, made.reason, made.input) == ("a-tool-one.onnx", None, "fused")
    assert made.agreement == 1.0
    assert not made.is_broken
    assert made.bytes == (home / made.file).stat().st_size
    assert _make(copy, home) == made  # times included
    assert _make(copy, home, again=True).seconds != made.seconds
    other = _setting("import shutil, time; shutil.copy(model, output)")
    assert _make(other, home).seconds != made.seconds


@pytest.mark.usefixtures("_in_this_process")
def test_a_tool_cant_change_what_the_others_get(home: Path) -> None:
    before = (home / "fp32.onnx").read_bytes()
    vandal = _setting("import shutil; shutil.copy(model, output); open(model, 'w').close(); open(images, 'w').close()")
    assert _make(vandal, home).file is not None
    assert (home / "fp32.onnx").read_bytes() == before
    assert np.load(home / "calibration.npy").shape == (8, 3, 8, 8)


@pytest.mark.usefixtures("_in_this_process")
def test_what_fails_on_one_file_is_given_the_other(home: Path) -> None:
    picky = _setting("import shutil; assert model == 'plain.onnx', 'no ' + model; shutil.copy(model, output)")
    made = _make(picky, home)
    assert (made.input, made.reason) == ("plain", None)
    failed = _make(_setting("raise ValueError('never')", name="two"), home)
    assert failed.file is None
    assert failed.reason == "from the fused file: It ended with exit code 1: ValueError: never"
    assert _make(_setting("pass", name="three"), home).reason == (
        "from the fused file: It says that it succeeded, and wrote no file."
    )


@pytest.mark.usefixtures("_in_this_process")
def test_a_file_that_computes_something_else_is_broken(home: Path) -> None:
    (home / "other").mkdir()
    _save_model(home / "other" / "wrong.onnx", -1.0)
    wrong = str(home / "other" / "wrong.onnx")
    made = _make(_setting(f"import shutil; shutil.copy({wrong!r}, output)"), home)
    assert made.is_broken
    # r - y = 2 r: 10 log10(1 / 4)
    assert made.sqnr_db == pytest.approx(-6.02, abs=0.01)


@pytest.mark.usefixtures("_in_this_process")
def test_a_file_that_cant_be_run_is_none(home: Path) -> None:
    made = _make(_setting("open(output, 'w').write('not a model')"), home)
    assert made.file is None
    assert made.reason.startswith("its file can't be used: error: a-tool-one.onnx")


def test_messages_name_no_place_of_this_machine() -> None:
    without_places = peers_module("files").without_places
    assert without_places("no /home/me/models/x.onnx here", Path("/home/me")) == "no models/x.onnx here"
    assert without_places("File /usr/lib/python3/site.py: 1/2 of a/b", Path("/x")) == "File site.py: 1/2 of a/b"


# speed and summary


def _contest(files: list[tuple[str, str, str, float]], seconds: dict[str, float]) -> Any:
    """A contest between files of ``(tool, setting, precision, SQNR)``, whose calls take so many ``seconds``."""
    made = peers_module("files").Made
    entered = [
        (
            _setting("pass", tool=tool, name=name, precision=precision),
            made(tool=tool, setting=name, precision=precision, file=f"{tool}-{name}.onnx", sqnr_db=sqnr),
        )
        for tool, name, precision, sqnr in files
    ]

    def bench(home: Path, names: Any, runtime: str, batch: int, least: float) -> list[dict[str, Any]]:
        return [
            {
                "model": name,
                "runtime": runtime,
                "batch": batch,
                "status": "ok" if name in seconds else "failed",
                "reason": None,
                "images_per_second": batch / seconds[name] if name in seconds else None,
                "seconds": [seconds[name]] * 3 if name in seconds else [],
                "calls_per_round": [1, 1, 1] if name in seconds else [],
            }
            for name in names
        ]

    return peers_module("speed").Contest(home=Path(), network="net", runtime="cpu", files=entered, bench=bench)


_FILES = [
    ("A", "slow", "int8", 30.0),
    ("A", "fast", "int8", 30.0),
    ("A", "broken", "int8", 3.0),
    ("A", "failing", "int8", 30.0),
    ("B", "only", "int8", 30.0),
    ("B", "float", "fp32", 120.0),
    ("rexport", "x86", "int8", 40.0),
]
_SECONDS = {
    "plain.onnx": 1.0,
    "A-slow.onnx": 0.5,
    "A-fast.onnx": 0.3,
    "A-broken.onnx": 0.1,
    "B-only.onnx": 0.4,
    "B-float.onnx": 0.9,
    "rexport-x86.onnx": 0.2,
}


def _finals() -> tuple[Any, list[dict[str, Any]]]:
    contest = _contest(_FILES, _SECONDS)
    return contest, [{**row, "launch": 0} for row in contest.finals(contest.screen(8, 0.5), 8, 4.0)]


def test_the_fastest_of_each_tool_that_is_not_broken_is_compared() -> None:
    _, rows = _finals()
    assert [(row["tool"], row["setting"]) for row in rows] == [
        ("PyTorch's export", ""),
        ("A", "fast"),
        ("B", "only"),
        ("B", "float"),
        ("rexport", "x86"),
    ]


def test_what_a_runtime_computes_wrongly_is_not_compared() -> None:
    contest = _contest(_FILES, _SECONDS)
    screened = [{**row, "broken": row["broken"] or row["setting"] == "fast"} for row in contest.screen(8, 0.5)]
    assert ("A", "slow") in [(row["tool"], row["setting"]) for row in contest.finals(screened, 8, 4.0)]


def test_where_nothing_runs_there_are_no_finals() -> None:
    contest = _contest(_FILES, {})
    assert contest.finals(contest.screen(8, 0.5), 8, 4.0) == []


def test_files_for_another_runtime_are_not_measured() -> None:
    contest = _contest(_FILES, _SECONDS)
    elsewhere = [(replace(setting, runtimes=("openvino",)), made) for setting, made in contest.files]
    assert replace(contest, files=elsewhere).entered == []


def test_ours_is_compared_with_every_peer_and_the_best() -> None:
    _, rows = _finals()
    (line,) = peers_module("summary").speed_summary(rows)
    assert line["best_peer"]["tool"] == "A"
    assert line["ratio"] == pytest.approx(0.3 / 0.2)
    assert line["interval"] == pytest.approx([1.5, 1.5])
    assert [(one["tool"], one["ratio"]) for one in line["ratios"]] == [
        ("A", pytest.approx(1.5)),
        ("B", pytest.approx(2.0)),
    ]
    assert (line["network"], line["runtime"], line["batch"], line["precision"]) == ("net", "cpu", 8, "int8")


def test_launches_are_joined_where_both_were_measured() -> None:
    _, rows = _finals()
    slower = [{**row, "launch": 1, "seconds": [2 * second for second in row["seconds"]]} for row in rows]
    without_a = [row for row in slower if row["tool"] != "A"]
    (line,) = peers_module("summary").speed_summary([*rows, *without_a])
    assert line["ratio"] == pytest.approx(1.5)
    screened_only = [{**row, "stage": "screening"} for row in rows]
    assert peers_module("summary").speed_summary(screened_only) == []


def test_for_every_figure_the_best_setting_of_a_tool_counts() -> None:
    made = peers_module("files").Made
    rows = [
        {
            "network": "net",
            **made(tool="A", setting=name, precision="int8", top1=t, fp32_top1=0.9, agreement=a, sqnr_db=s).to_json(),
        }
        for name, t, a, s in (("x", 0.89, 0.99, 25.0), ("y", 0.88, 0.98, 30.0))
    ]
    (line,) = peers_module("summary").accuracy_summary([*rows, {**rows[0], "top1": None}])
    assert (line["settings"], line["agreement"], line["sqnr_db"]) == (2, 0.99, 30.0)
    assert line["drop_points"] == pytest.approx(1.0)


def test_the_tables_hold_every_figure_and_failure() -> None:
    _, rows = _finals()
    made = peers_module("files").Made
    failed = made(tool="C", setting="z", precision="int8", reason="It ended | badly.")
    document = {
        "rows": [{"network": "net", **failed.to_json()}],
        "summary": {"speed": peers_module("summary").speed_summary(rows), "accuracy": []},
    }
    text = markdown(json.loads(json.dumps(document)))
    assert "| net | INT8 | ONNX Runtime | 8 | 40.0 (x86) | A (fast) | 26.7 | 1.500 (1.500 to 1.500) |" in text
    assert r"fails: It ended \| badly." in text
    assert list(readme_rows(document, on=", there")) == [
        (
            "net INT8 on ONNX Runtime against the fastest peer, there",
            "batch 8: 1.50 × A (1.50 to 1.50), 40 img/s",
            "peers",
        )
    ]


@pytest.mark.usefixtures("_in_this_process")
def test_a_runtime_that_is_not_there_gives_rows_that_say_so(home: Path) -> None:
    rows = peers_module("speed").rexport_bench(home, ["plain.onnx", "fp32.onnx"], "no-such-runtime", 1, 0.1)
    assert [row["status"] for row in rows] == ["failed", "failed"]
    assert "no-such-runtime" in rows[0]["reason"]


@pytest.mark.slow
@pytest.mark.usefixtures("_in_this_process")
def test_real_files_are_benched(home: Path) -> None:
    rows = peers_module("speed").rexport_bench(home, ["plain.onnx", "fp32.onnx"], "cpu", 2, 0.05)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert len(rows[0]["seconds"]) == sum(rows[0]["calls_per_round"]) >= 10


# the command


@pytest.mark.slow
def test_the_command_says_how_it_is_run() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers", "--help"], cwd=_ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "--environments" in done.stdout
    assert "--json" in done.stdout


def test_a_tool_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="nobody is none of"):
        peers_module("__main__").main(environments=tmp_path / "e", files=tmp_path / "f", only="nobody")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("_in_this_process")
@pytest.mark.parametrize(
    "name",
    [
        *("fuse", "openvino", "openvino, stem in blocks"),
        pytest.param("x86, measured at batch 8", marks=pytest.mark.slow),
        *deep("x86, measured at batch 1"),
    ],
)
def test_a_setting_of_ours_makes_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_SECONDS", 0.02)
    settings = peers_module("settings")
    (setting,) = (one for one in settings.SPEED if (one.tool, one.name) == (settings.OURS, name))
    np.save(tmp_path / "images.npy", np.random.default_rng(0).standard_normal((8, 3, 16, 16)).astype(np.float32))
    onnx.save(small_network(), tmp_path / "m.onnx")
    done = run_here(setting.command(None, model="m.onnx", images="images.npy", output=setting.file), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / setting.file).exists()


@pytest.mark.slow
@pytest.mark.usefixtures("_in_this_process")
def test_the_command_makes_and_judges_the_files_of_a_network(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one setting, which is not one of those that measure what is fastest."""
    command = peers_module("__main__")
    monkeypatch.setattr(command, "SPEED", [setting for setting in command.SPEED if setting.name == "openvino"])
    for path in (data_dir / "cifar10").glob("*/*/*[05].png"):
        copy = tmp_path / path.relative_to(data_dir)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    write_random_weights("cifar_resnet8", tmp_path / "random.safetensors")
    command.main(
        environments=tmp_path / "e",
        files=tmp_path / "f",
        trained=[f"cifar_resnet8:{tmp_path / 'random.safetensors'}:{tmp_path / 'cifar10'}"],
        trained_samples=16,
        only="rexport",
        json_file=tmp_path / "peers.json",
    )
    _check(tmp_path / "peers.json", tmp_path / "f" / "random-on-cifar10", settings=1)


@pytest.mark.deep
@pytest.mark.slow
def test_ours_goes_all_the_way(tmp_path: Path, data_dir: Path) -> None:
    trained = f"cifar_resnet20:{data_dir / 'weights' / 'cifar_resnet20.th'}:{data_dir / 'cifar10'}"
    folders = ["--environments", str(tmp_path / "e"), "--files", str(tmp_path / "f")]
    options = ["--trained", trained, "--trained-samples", "16", "--only", "rexport"]
    command = [sys.executable, "-m", "benchmarks.peers", *folders, *options, "--json", str(tmp_path / "peers.json")]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _check(tmp_path / "peers.json", tmp_path / "f" / "cifar_resnet20-on-cifar10", settings=5)


def _check(results: Path, home: Path, *, settings: int) -> None:
    document = json.loads(results.read_text())
    assert document["schema"] == "rexport.study.peers/1"
    assert [row["reason"] for row in document["rows"]] == [None] * settings
    (line,) = document["summary"]["accuracy"]
    assert line["tool"] == "rexport"
    assert line["agreement"] > 0.97  # calibrated on 16 pictures; 0.99 and more are usual on 512
    assert not [place for place in ("/work/", "/home/", "/tmp/") if place in str(document)]
    judge = [*REXPORT, "eval", "fp32.onnx", "--data", "test.npz", "--reference", "plain.onnx", "--json"]
    assert json.loads(run_here(judge, cwd=home).stdout)["agreement"] == 1.0
