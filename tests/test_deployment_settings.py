"""Deployment settings: what is written is read again, and what is broken is refused, naming the place."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport._errors import InputError, ModelFileError, OutputError
from rexport._files import file_sha256
from rexport.choices import Goal
from rexport.deployment_settings import (
    SCHEMAS,
    DeploymentSettings,
    Expected,
    Goals,
    RunSettings,
    TunedMachine,
    TunedModel,
    load_settings,
    write_settings,
)
from tests._settings import SETTINGS

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # lone surrogates are no text
_NUMBER = st.floats(min_value=1e-300, allow_infinity=False, allow_nan=False)
_COUNT = st.integers(1, 2**63 - 1)
_INTERVAL = st.tuples(_NUMBER, _NUMBER).map(lambda ends: (min(ends), max(ends)))
_SETTINGS = st.builds(
    DeploymentSettings,
    model=st.builds(
        TunedModel,
        file=_TEXT.map(lambda text: "./" + text.replace("\0", "")),
        sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
        precision=st.sampled_from(["fp32", "fp16", "int8"]),
        regroup=st.sampled_from(["off", "measure"]),
    ),
    run=st.builds(RunSettings, runtime=st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,20}\Z"), threads=_COUNT, batch=_COUNT),
    asked=st.builds(
        Goals,
        goal=st.sampled_from(Goal),
        latency_bound_ms=st.none() | _NUMBER,
        max_drop_points=st.none() | st.floats(0, 100),
    ),
    expected=st.builds(
        Expected,
        images_per_second=_NUMBER,
        images_per_second_interval=_INTERVAL,
        p50_ms=_NUMBER,
        p50_ms_interval=_INTERVAL,
        p90_ms=_NUMBER,
        p90_ms_interval=_INTERVAL,
        calls=_COUNT,
        drop_points=st.none() | st.floats(-100, 100),
    ),
    machine=st.builds(TunedMachine, cpu=_TEXT, int8=_TEXT, cores=_COUNT),
    versions=st.dictionaries(_TEXT, _TEXT),
)


@pytest.mark.slow
@given(settings=_SETTINGS)
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, settings: DeploymentSettings) -> None:
    path = tmp_path_factory.getbasetemp() / "s.toml"
    write_settings(settings, path)
    assert load_settings(path) == settings


def test_the_keys_are_those_that_others_rely_on() -> None:
    document = tomllib.loads(SETTINGS.to_toml())
    assert document["schema"] == SCHEMAS[0] == "rexport.deployment-settings/1"
    assert {name: list(table) for name, table in document.items() if name != "schema"} == {
        "model": ["file", "sha256", "precision", "regroup"],
        "run": ["runtime", "threads", "batch"],
        "asked": ["goal", "latency_bound_ms"],
        "expected": [
            "images_per_second",
            "images_per_second_interval",
            "p50_ms",
            "p50_ms_interval",
            "p90_ms",
            "p90_ms_interval",
            "calls",
        ],
        "machine": ["cpu", "int8", "cores"],
        "versions": ["rexport", "onnx runtime"],
    }


def test_the_older_name_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(SETTINGS.to_toml().replace(SCHEMAS[0], "rexport.profile/1"))
    assert load_settings(tmp_path / "p.toml") == SETTINGS


def test_keys_of_later_versions_are_left_alone(tmp_path: Path) -> None:
    text = SETTINGS.to_toml().replace("[run]", 'cores = "0-3"\n\n[later]\nx = 1\n\n[run]\nnuma = 0')
    (tmp_path / "s.toml").write_text(text)
    assert load_settings(tmp_path / "s.toml") == SETTINGS


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (SCHEMAS[0], "rexport.deployment-settings/2", "holds no deployment settings that this version reads"),
        (f'schema = "{SCHEMAS[0]}"', "", "its schema is None"),
        ("[run]", "[ran]", "object missing required field `run`"),
        ("[run]", "[[run]]", "run: expected `object`, got `array`"),
        ("threads = 2", "threads = 0", "run.threads: expected `int` >= 1"),
        ("threads = 2", "threads = true", "run.threads: expected `int`, got `bool`"),
        ("threads = 2", "threads = 2.0", "run.threads: expected `int`, got `float`"),
        ("threads = 2\n", "", "run: object missing required field `threads`"),
        ("batch = 8", "batch = -1", "run.batch: expected `int` >= 1"),
        ('runtime = "cpu"', 'runtime = "../cpu"', "run.runtime: expected `str` matching"),
        ('runtime = "cpu"', "runtime = 1", "run.runtime: expected `str`, got `int`"),
        ('precision = "int8"', 'precision = "int4"', "model.precision: invalid enum value 'int4'"),
        ('goal = "throughput"', 'goal = "fame"', "asked.goal: invalid enum value 'fame'"),
        ('file = "sub/m.onnx"', 'file = "/etc/m.onnx"', "a path from the folder of the settings on"),
        ('file = "sub/m.onnx"', 'file = "C:/m.onnx"', "a path from the folder of the settings on"),
        ('file = "sub/m.onnx"', 'file = ""', "a path from the folder of the settings on"),
        (f'"{"0" * 64}"', f'"{"0" * 63}"', "model.sha256: expected `str` matching"),
        ("latency_bound_ms = 20.0", "latency_bound_ms = 0", "asked.latency_bound_ms: expected `float` > 0"),
        ("latency_bound_ms = 20.0", "max_drop_points = -1", "asked.max_drop_points: expected `float` >= 0"),
        ("p50_ms = 80.0", "p50_ms = nan", "expected.p50_ms: expected `float` > 0"),
        ("p50_ms = 80.0", "p50_ms = true", "expected.p50_ms: expected `float`, got `bool`"),
        ("p50_ms = 80.0", "p50_ms = inf", "expected.p50_ms: expected `float` <="),
        ("p50_ms = 80.0", f"p50_ms = {'9' * 400}", "expected.p50_ms: number out of range"),
        ("calls = 64", "calls = 64\ndrop_points = nan", "expected.drop_points: expected `float` >="),
        ("p50_ms = 80.0", "p50_ms = 80.0\ndrop_points = -inf", "expected.drop_points: expected `float` >="),
        ("[90.0, 110.0]", "[110.0, 90.0]", "has its ends the wrong way round"),
        ("[90.0, 110.0]", "[90.0]", "images_per_second_interval: expected `array` of length 2, got 1"),
        ('rexport = "0.1.0"', "rexport = 0.1", "versions[...]: expected `str`, got `float`"),
        ("[run]", "[run", "is not TOML"),
        ("threads = 2", f"threads = {'9' * 5000}", "is not TOML"),
    ],
)
def test_what_is_broken_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "s.toml"
    assert old in SETTINGS.to_toml()
    path.write_text(SETTINGS.to_toml().replace(old, new, 1))
    with pytest.raises(InputError, match=r"s\.toml") as caught:
        load_settings(path)
    assert words in str(caught.value)


def test_what_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not text"):
        load_settings(tmp_path / "s.toml")
    for wrong in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(InputError, match="can't be read"):
            load_settings(wrong)


def test_a_name_that_is_no_text_is_not_written(tmp_path: Path) -> None:
    wrong = replace(SETTINGS, model=replace(SETTINGS.model, file="m\udcff.onnx"))
    with pytest.raises(OutputError, match="rename the file"):
        write_settings(wrong, tmp_path / "s.toml")
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_known_by_its_bytes(tmp_path: Path) -> None:
    model = tmp_path / "sub" / "m.onnx"
    model.parent.mkdir()
    model.write_bytes(b"weights")
    settings = replace(SETTINGS, model=replace(SETTINGS.model, sha256=file_sha256(model)))
    assert settings.model_path(tmp_path / "s.toml") == model
    settings.check_model(model)
    model.write_bytes(b"Weights")
    with pytest.raises(ModelFileError, match=r"m.onnx is not the file .* run `rexport tune` again"):
        settings.check_model(model)
    model.unlink()
    with pytest.raises(ModelFileError, match="can't be read"):
        settings.check_model(model)


def test_another_machine_is_told_by_what_differs() -> None:
    machine = SETTINGS.machine
    assert machine.differences(machine) == ()
    assert machine.differences(replace(machine, cores=4)) == ("usable cores: 2 there, 4 here",)
    assert len(machine.differences(TunedMachine(cpu="x", int8="y", cores=1))) == 3


def test_the_one_in_the_guide_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "tuning.md").read_text()
    (tmp_path / "s.toml").write_text(text.partition("```toml\n")[2].partition("```")[0])
    settings = load_settings(tmp_path / "s.toml")
    assert (tmp_path / "s.toml").read_text() == settings.to_toml()
