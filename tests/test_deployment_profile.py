"""Profiles: what is written is read again, and what is broken is refused with a sentence that says where."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport._errors import InputError, ModelFileError, OutputError
from rexport.deployment_profile import (
    SCHEMA,
    Estimate,
    Profile,
    ProfiledMachine,
    file_sha256,
    load_profile,
    write_profile,
)

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # lone surrogates are no text
_NUMBER = st.floats(min_value=1e-300, allow_infinity=False, allow_nan=False)
_COUNT = st.integers(1, 2**63 - 1)
_ENDS = st.tuples(_NUMBER, _NUMBER).map(sorted)
_ESTIMATES = st.builds(lambda value, ends: Estimate(value=value, low=ends[0], high=ends[1]), value=_NUMBER, ends=_ENDS)
_PROFILES = st.builds(
    Profile,
    model=_TEXT.map(lambda text: "./" + text.replace("\0", "")),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    precision=st.sampled_from(["fp32", "fp16", "int8"]),
    regroup=st.sampled_from(["off", "measure"]),
    runtime=st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,20}\Z"),
    threads=_COUNT,
    batch=_COUNT,
    goal=st.sampled_from(["throughput", "latency"]),
    latency_bound_ms=st.none() | _NUMBER,
    max_drop_points=st.none() | st.floats(0, 100),
    images_per_second=_ESTIMATES,
    p50_ms=_ESTIMATES,
    p90_ms=_ESTIMATES,
    calls=_COUNT,
    drop_points=st.none() | st.floats(-100, 100),
    machine=st.builds(ProfiledMachine, cpu=_TEXT, int8=_TEXT, cores=_COUNT),
    versions=st.dictionaries(_TEXT, _TEXT),
)
PROFILE = Profile(
    model="sub/m.onnx",
    sha256="0" * 64,
    precision="int8",
    regroup="off",
    runtime="cpu",
    threads=2,
    batch=8,
    goal="throughput",
    latency_bound_ms=20.0,
    images_per_second=Estimate(value=100.0, low=90.0, high=110.0),
    p50_ms=Estimate(value=80.0, low=73.0, high=89.0),
    p90_ms=Estimate(value=85.0, low=80.0, high=99.0),
    calls=64,
    machine=ProfiledMachine(cpu='a "fast" one\\', int8="AVX-512 VNNI", cores=2),
    versions={"rexport": "0.1.0", "onnx runtime": "1"},
)


@pytest.mark.slow
@given(profile=_PROFILES)
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, profile: Profile) -> None:
    path = tmp_path_factory.getbasetemp() / "p.toml"
    write_profile(profile, path)
    assert load_profile(path) == profile


def test_the_keys_are_those_that_others_rely_on() -> None:
    document = tomllib.loads(PROFILE.to_toml())
    assert document["schema"] == SCHEMA == "rexport.profile/1"
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


def test_keys_of_later_versions_are_left_alone(tmp_path: Path) -> None:
    text = PROFILE.to_toml().replace("[run]", 'cores = "0-3"\n\n[later]\nx = 1\n\n[run]\nnuma = 0')
    (tmp_path / "p.toml").write_text(text)
    assert load_profile(tmp_path / "p.toml") == PROFILE


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rexport.profile/1", "rexport.profile/2", "is not a profile that this version reads"),
        ('schema = "rexport.profile/1"', "", "its schema is None"),
        ("[run]", "[ran]", "run is missing"),
        ("[run]", "[[run]]", "run is not a table"),
        ("threads = 2", "threads = 0", "run.threads is 0 and has to be a whole number from 1 on"),
        ("threads = 2", "threads = true", "run.threads is True"),
        ("threads = 2", "threads = 2.0", "run.threads is 2.0"),
        ("threads = 2\n", "", "run.threads is missing"),
        ("batch = 8", "batch = -1", "run.batch is -1"),
        ('runtime = "cpu"', 'runtime = "../cpu"', "run.runtime is '../cpu'"),
        ('runtime = "cpu"', "runtime = 1", "run.runtime is 1 and has to be text"),
        ('precision = "int8"', 'precision = "int4"', "has to be fp32 or fp16 or int8"),
        ('file = "sub/m.onnx"', 'file = "/etc/m.onnx"', "a path from the profile's folder on"),
        ('file = "sub/m.onnx"', 'file = "C:/m.onnx"', "a path from the profile's folder on"),
        ('file = "sub/m.onnx"', 'file = ""', "a path from the profile's folder on"),
        (f'"{"0" * 64}"', f'"{"0" * 63}"', "has to be 64 hexadecimal digits"),
        ("latency_bound_ms = 20.0", "latency_bound_ms = 0", "asked.latency_bound_ms has 0"),
        ("latency_bound_ms = 20.0", "max_drop_points = -1", "has to be 0 or more"),
        ("p50_ms = 80.0", "p50_ms = nan", "expected.p50_ms has nan"),
        ("p50_ms = 80.0", "p50_ms = true", "expected.p50_ms has True"),
        ("p50_ms = 80.0", "p50_ms = inf", "expected.p50_ms has inf"),
        ("p50_ms = 80.0", f"p50_ms = {'9' * 400}", "expected.p50_ms has"),
        ("[90.0, 110.0]", "[110.0, 90.0]", "its first number is the larger one"),
        ("[90.0, 110.0]", "[90.0]", "has to be two numbers"),
        ("[90.0, 110.0]", "90.0", "has to be two numbers"),
        ('rexport = "0.1.0"', "rexport = 0.1", "versions.rexport is 0.1 and has to be text"),
        ("[run]", "[run", "it is no TOML"),
        ("threads = 2", f"threads = {'9' * 5000}", "it is no TOML"),
    ],
)
def test_what_is_broken_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "p.toml"
    assert old in PROFILE.to_toml()
    path.write_text(PROFILE.to_toml().replace(old, new))
    with pytest.raises(InputError, match=r"p\.toml") as caught:
        load_profile(path)
    assert words in str(caught.value)


def test_what_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="it is not text"):
        load_profile(tmp_path / "p.toml")
    for wrong in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(InputError, match="can't be read"):
            load_profile(wrong)


def test_a_name_that_is_no_text_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="rename the file"):
        write_profile(replace(PROFILE, model="m\udcff.onnx"), tmp_path / "p.toml")
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_known_by_its_bytes(tmp_path: Path) -> None:
    model = tmp_path / "sub" / "m.onnx"
    model.parent.mkdir()
    model.write_bytes(b"weights")
    profile = replace(PROFILE, sha256=file_sha256(model))
    assert profile.model_path(tmp_path / "p.toml") == model
    profile.check_model(model)
    model.write_bytes(b"Weights")
    with pytest.raises(ModelFileError, match=r"m.onnx is not the file .* run `rexport tune` again"):
        profile.check_model(model)
    model.unlink()
    with pytest.raises(ModelFileError, match="can't be read"):
        profile.check_model(model)


def test_another_machine_is_told_by_what_differs() -> None:
    machine = PROFILE.machine
    assert machine.differences(machine) == ()
    assert machine.differences(replace(machine, cores=4)) == ("usable cores: 2 there, 4 here",)
    assert len(machine.differences(ProfiledMachine(cpu="x", int8="y", cores=1))) == 3


def test_the_one_in_the_guide_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "tuning.md").read_text()
    (tmp_path / "p.toml").write_text(text.partition("```toml\n")[2].partition("```")[0])
    profile = load_profile(tmp_path / "p.toml")
    assert (tmp_path / "p.toml").read_text() == profile.to_toml()
