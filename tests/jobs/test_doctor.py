"""What is looked for on a machine."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from rexport._errors import UnavailableError
from rexport.benchmarks import machine_facts
from rexport.jobs.doctor import EXTRAS, DoctorResult, Extra, _try_rtx_build
from rexport.runtimes.probes import Finding


def test_the_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {extra.name for extra in EXTRAS} == set(project["optional-dependencies"]) - {"dev", "docs"}


def test_an_extra_is_installed_if_all_of_its_modules_are() -> None:
    extra = Extra(name="report", purpose="", modules=("json",))
    assert extra.installed
    assert not replace(extra, modules=("json", "no_such_module")).installed
    assert extra.command == "pip install 'rexport[report]'"


def test_what_rexport_needs_is_required() -> None:
    fine = Finding(name="cpu", what="ONNX Runtime on the CPU", usable=True)
    broken = Finding(name="torch", what="PyTorch", usable=False, reason="It crashed.", advice="pip install torch")
    result = DoctorResult(machine=machine_facts(), runtimes=(fine, replace(broken, name="cuda")), rtx_build=fine)
    result.require()
    with pytest.raises(UnavailableError, match=r"PyTorch does not work here: It crashed\. Try: pip install torch"):
        replace(result, runtimes=(fine, broken)).require()


def test_a_compiler_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("libnvinfer.so: cannot open shared object file")

    monkeypatch.setattr("rexport.engine.compile_model", fail)
    finding = _try_rtx_build()
    assert not finding.usable
    assert finding.reason == "libnvinfer.so: cannot open shared object file"
    assert finding.advice == "pip install 'rexport[rtx]'"
