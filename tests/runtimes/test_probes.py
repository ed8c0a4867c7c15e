"""Probes of the real runtimes; crashes, hangs and wrong numbers are planted in a stand-in for OpenVINO."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import onnxruntime
import pytest

from rexport._errors import UsageError
from rexport.runtimes import probes
from rexport.runtimes.probes import PROBES, probe, probe_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Plant = Callable[[str], None]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Puts an ``openvino`` with this code before any other."""

    def write(code: str) -> None:
        (tmp_path / "openvino.py").write_text(code)
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        monkeypatch.setenv("PYTHONPATH", path.rstrip(os.pathsep))

    return write


FAKE = """
import os, onnx, onnx.reference
__version__ = "1.2.3"
class Core:
    def read_model(self, model):
        print("reading"); os.write(1, b"{}\\n")
        return onnx.load_model_from_string(model)
    def compile_model(self, model, device):
        session = onnx.reference.ReferenceEvaluator(model)
        return lambda images: [session.run(None, {"images": images})[0] FACTOR]
"""


@pytest.mark.slow
def test_what_rexport_needs_is_usable_here() -> None:
    findings = probe_all(["cpu", "torch"])
    assert [(finding.name, finding.usable, finding.reason) for finding in findings] == [
        ("cpu", True, None),
        ("torch", True, None),
    ]
    assert findings[0].version == onnxruntime.__version__


@pytest.mark.slow
def test_every_probe_finds_a_version_or_a_reason() -> None:
    findings = probe_all()
    assert [finding.name for finding in findings] == list(PROBES)
    for finding in findings:
        if finding.usable:
            assert finding.version
        else:
            assert finding.reason
            assert finding.reason.endswith(".")
            assert finding.advice


def test_a_provider_that_is_listed_is_not_thereby_usable() -> None:
    listed = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if not listed or probes._no_gpu() is None:
        pytest.skip("takes a machine that lists CUDA and has no GPU")
    assert probes._onnxruntime("CUDAExecutionProvider") == "ONNX Runtime fell back to CPUExecutionProvider."
    assert not probe("cuda").usable


def test_a_runtime_that_computes_the_right_numbers_is_usable(plant: Plant) -> None:
    plant(FAKE.replace("FACTOR", ""))
    finding = probe("openvino")
    assert (finding.usable, finding.version, finding.reason) == (True, "1.2.3", None)


def test_a_runtime_that_computes_wrong_numbers_is_not(plant: Plant) -> None:
    plant(FAKE.replace("FACTOR", "* 1.01"))
    finding = probe("openvino")
    assert not finding.usable
    assert "wrong numbers" in (finding.reason or "")
    assert finding.version == "1.2.3"


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_a_crash_is_a_finding(plant: Plant) -> None:
    plant("import signal; signal.raise_signal(signal.SIGSEGV)")
    finding = probe("openvino")
    assert (finding.usable, finding.reason) == (False, "Its process ended by SIGSEGV.")


def test_an_exit_is_a_finding(plant: Plant) -> None:
    plant("import os; os.write(2, b'license expired\\n'); os._exit(3)")
    assert probe("openvino").reason == "Its process ended with exit code 3: license expired"


def test_an_exception_is_a_finding(plant: Plant) -> None:
    plant("raise ImportError('libfoo.so is missing')")
    assert probe("openvino").reason == "ImportError: libfoo.so is missing"


def test_a_hang_is_a_finding(plant: Plant) -> None:
    plant("import time; time.sleep(60)")
    finding = probe("openvino", timeout=1)
    assert not finding.usable
    assert "after 1 second" in (finding.reason or "")


def test_an_unknown_probe_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="choose from cpu, torch"):
        probe("abacus")
