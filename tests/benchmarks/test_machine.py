from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy
import onnx
import onnxruntime
import pytest
import torch

from rexport._cpu import this_cpu
from rexport.benchmarks import machine_facts


def test_the_facts_are_this_machine() -> None:
    machine = machine_facts()
    assert machine.cores == this_cpu().cores
    assert machine.vnni == this_cpu().has_vnni
    assert machine.python == sys.version.split()[0]
    for package in (numpy, onnx, onnxruntime, torch):
        assert machine.packages[package.__name__] == package.__version__


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux only")
def test_the_memory_is_what_linux_says() -> None:
    kib = int(Path("/proc/meminfo").read_text().split()[1])
    assert machine_facts().memory_gib == pytest.approx(kib / 2**20, abs=0.1)


def test_json_keeps_every_fact() -> None:
    machine = machine_facts()
    document = json.loads(json.dumps(machine.to_json()))
    assert type(machine)(**document) == machine


@pytest.mark.parametrize(("load", "busy"), [(0.0, False), (1.0, False), (1.1, True), (None, False)])
def test_busy_is_more_than_a_quarter_of_the_cores(load: float | None, busy: bool) -> None:
    assert replace(machine_facts(), cores=4, load_average=load).is_busy is busy


def test_gathering_the_facts_loads_no_package() -> None:
    code = "import sys, rexport.benchmarks as b; b.machine_facts(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "onnx", "onnxruntime", "numpy"} & set(modules)
