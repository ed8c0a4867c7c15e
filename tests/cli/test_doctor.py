from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from rexport.benchmarks import machine_facts
from rexport.cli.doctor import _facts, _int8, _print
from rexport.jobs.doctor import EXTRAS, DoctorResult
from rexport.runtimes.probes import PROBES, Finding
from tests.cli._run import invoke

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_the_tables_name_the_machine_and_every_runtime() -> None:
    result = invoke("doctor")
    assert result.exit_code == 0, result.output
    for words in (machine_facts().cpu, "INT8", f"Python {sys.version.split()[0]}", *PROBES):
        assert words in result.stdout
    assert all(extra.name in result.stdout for extra in EXTRAS)
    lines = " ".join(result.stderr.split()).split("note: ")
    assert len(lines) == len(set(lines))  # each thing is said once


@pytest.mark.parametrize("width", [80, 100])
def test_the_tables_fit_the_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    machine = replace(machine_facts(), cpu="AMD EPYC 9B45 96-Core Processor", architecture="x86_64", vnni=False)
    reason, advice = "There is no NVIDIA driver: libcuda.so.1 can't be loaded.", "Install the NVIDIA driver."
    findings = [
        Finding(name=name, what=entry.what, usable=False, version="10.15.1.29", reason=reason, advice=advice)
        for name, entry in PROBES.items()
    ]
    rtx_build = Finding(name="rtx-build", what="building TensorRT for RTX engines, without a GPU", usable=True)
    _print(DoctorResult(machine=machine, runtimes=tuple(findings), rtx_build=rtx_build))
    out, err = capsys.readouterr()
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", out).splitlines())) <= width
    assert err.count("There is no NVIDIA driver") == 1


def test_each_missing_runtime_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    missing = Finding(
        name="tensorrt-engine",
        what=PROBES["tensorrt-engine"].what,
        usable=False,
        reason="The package tensorrt is not installed.",
        advice=PROBES["tensorrt-engine"].advice,
    )
    _print(DoctorResult(machine=machine_facts(), runtimes=(missing,), rtx_build=missing))
    assert "Try: pip install 'rexport[tensorrt]'" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_json_is_one_document() -> None:
    result = invoke("doctor", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["schema"] == "rexport.doctor/1"
    assert document["machine"]["cores"] == machine_facts().cores
    assert document["rtx_build"]["usable"] == bool(find_spec("tensorrt_rtx"))
    usable = {runtime["name"]: runtime["usable"] for runtime in document["runtimes"]}
    assert list(usable) == list(PROBES)
    assert usable["cpu"] is usable["torch"] is True


@pytest.mark.slow
def test_a_broken_pytorch_is_exit_code_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so: file too short')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path.rstrip(os.pathsep))
    result = invoke("doctor", "--json")
    assert result.exit_code == 5
    torch = next(runtime for runtime in json.loads(result.stdout)["runtimes"] if runtime["name"] == "torch")
    assert torch["reason"] == "ImportError: libtorch_cpu.so: file too short"
    assert "PyTorch on the CPU does not work here" in result.stderr


def test_a_cpu_quota_is_told() -> None:
    facts = dict(_facts(replace(machine_facts(), cores=2, cpu_quota=1.5)))
    assert "2 usable cores, CPU quota of 1.5)" in facts["processor"]


@pytest.mark.parametrize(
    ("architecture", "vnni", "words"),
    [("x86_64", True, "all 8 bits"), ("x86_64", False, "7 bits"), ("aarch64", False, "--target arm")],
)
def test_it_says_what_the_int8_instructions_mean(architecture: str, vnni: bool, words: str) -> None:
    assert words in _int8(replace(machine_facts(), architecture=architecture, vnni=vnni))
