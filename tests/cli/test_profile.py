"""Running by a profile, as ``rexport bench --profile`` does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rexport._cpu import this_cpu
from rexport._errors import InputError, ModelFileError, UsageError
from rexport.cli._profile import profiled_bench
from rexport.deployment_profile import Estimate, Profile, ProfiledMachine, file_sha256, write_profile


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """A profile of this machine beside its file, in another folder than the working one."""
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("there/m.onnx").write_bytes(b"weights")
    written = Profile(
        model="m.onnx",
        sha256=file_sha256(Path("there/m.onnx")),
        precision="fp32",
        regroup="off",
        runtime="cpu",
        threads=2,
        batch=8,
        goal="throughput",
        images_per_second=Estimate(value=1234.5, low=1200, high=1300),
        p50_ms=Estimate(value=6.5, low=6, high=7),
        p90_ms=Estimate(value=7, low=7, high=8),
        calls=64,
        machine=ProfiledMachine(cpu=this_cpu().name, int8=this_cpu().int8, cores=this_cpu().cores),
        versions={},
    )
    write_profile(written, Path("there/p.toml"))
    return written


def test_the_arguments_are_the_profiles(profile: Profile) -> None:
    found = profiled_bench(Path("there/p.toml"))
    assert (found.sources, found.runtimes, found.batches, found.threads) == (("there/m.onnx",), ("cpu",), (8,), 2)
    (note,) = found.notes
    assert note == (
        "by there/p.toml: cpu, batch 8, 2 threads; 1,234.5 images per second are expected (1,200.0 to 1,300.0)"
    )


def test_other_models_come_after_it_and_it_comes_once(profile: Profile) -> None:
    found = profiled_bench(Path("there/p.toml"), ["other.onnx", "./there/m.onnx"])
    assert found.sources == ("there/m.onnx", "other.onnx")


def test_another_machine_is_told(profile: Profile) -> None:
    machine = replace(profile.machine, cores=profile.machine.cores + 62)
    write_profile(replace(profile, machine=machine), Path("there/p.toml"))
    _, note = profiled_bench(Path("there/p.toml")).notes
    assert f"usable cores: {machine.cores} there, {profile.machine.cores} here" in note
    assert "run `rexport tune` here" in note


def test_what_can_not_be_run_is_refused(profile: Profile) -> None:
    write_profile(replace(profile, runtime="abacus"), Path("there/p.toml"))
    with pytest.raises(UsageError, match="asks for the runtime 'abacus'; choose from cpu"):
        profiled_bench(Path("there/p.toml"))
    Path("there/m.onnx").write_bytes(b"others")
    with pytest.raises(ModelFileError, match="is not the file that the profile was measured with"):
        profiled_bench(Path("there/p.toml"))
    with pytest.raises(InputError, match="can't be read"):
        profiled_bench(Path("p.toml"))
