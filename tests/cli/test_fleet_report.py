"""How it goes with devices: bars on a terminal, lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport.cli._fleet_report import note_reasons, show_steps
from rexport.deploy.inventory import Device
from rexport.deploy.rollout import Outcome, Result, Step

if TYPE_CHECKING:
    import pytest

_DEVICE = Device(host="camera-1", user="pi")
_DONE = Result(device=_DEVICE, outcome=Outcome.INSTALLED, seconds=2.0)


def _install() -> None:
    with show_steps() as report:
        report.begin([_DEVICE, Device(host="one")])
        report.step(_DEVICE, Step.SEND)
        report.sent(_DEVICE, 2**20, 2**22)
        report.finished(_DONE)


def test_lines_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    _install()
    assert capsys.readouterr().err.splitlines() == ["pi@camera-1  sending the bundle", "pi@camera-1  installed (2.0 s)"]


def test_bars_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    _install()
    assert "pi@camera-1  installed (2.0 s)" in capsys.readouterr().err


def test_the_first_failure_is_left_to_the_commands_error(capsys: pytest.CaptureFixture[str]) -> None:
    failed = [
        Result(device=Device(host=name), outcome=Outcome.FAILED, step=Step.INSTALL, reason="The disk is full.")
        for name in ("one", "two")
    ]
    note_reasons([_DONE, *failed])
    assert capsys.readouterr().err == "note: two, installing: The disk is full.\n"
