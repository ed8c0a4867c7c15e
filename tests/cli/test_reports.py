from __future__ import annotations

from typing import TYPE_CHECKING

from rexport.cli._reports import print_passes
from rexport.passes import PassReport, Refusal

if TYPE_CHECKING:
    import pytest

_REPORTS = [
    PassReport(
        name="FuseThings",
        summary="things become one",
        changed=2,
        refusals=(
            *(Refusal(where=f"bn{i}", why="it is shared") for i in range(5)),
            Refusal(where="x", why="it is odd"),
        ),
    ),
    PassReport(name="TakeThings", summary="things are taken", changed=1, notes=("3 things were taken.",)),
    PassReport(name="BreakThings", summary="things break", changed=0, rolled_back="The fused model does not run"),
]


def _refused(capsys: pytest.CaptureFixture[str], *, explain: bool) -> list[str]:
    print_passes(_REPORTS, explain=explain)
    output = capsys.readouterr()
    assert "BreakThings was rolled back: The fused model does not run" in output.err
    assert "3 things were taken." in output.err
    return [line for line in output.out.splitlines() if " skipped " in line]


def test_refusals_of_one_reason_stand_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert _refused(capsys, explain=False) == [
        "FuseThings skipped bn0, bn1, bn2 and 2 more: it is shared",
        "FuseThings skipped x: it is odd",
    ]


def test_each_refusal_is_named_where_all_are_to_be_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert _refused(capsys, explain=True) == [
        *(f"FuseThings skipped bn{i}: it is shared" for i in range(5)),
        "FuseThings skipped x: it is odd",
    ]


def test_passes_that_did_nothing_are_listed_where_all_are(capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*, changed: bool = False, verbose: bool = False) -> list[str]:
        idle = PassReport(name="IdleThings", summary="nothing", changed=0)
        print_passes([*_REPORTS, idle], changed=changed, verbose=verbose)
        return [line.split()[0] for line in capsys.readouterr().out.splitlines() if "Things  " in line]

    assert printed() == ["FuseThings", "BreakThings"]
    assert printed(changed=True) == ["FuseThings", "TakeThings", "BreakThings"]
    assert printed(verbose=True) == ["FuseThings", "TakeThings", "BreakThings", "IdleThings"]


def test_json_has_all_of_it() -> None:
    things, taken, broken = (report.to_json() for report in _REPORTS)
    assert (things["notes"], taken["notes"]) == ([], ["3 things were taken."])
    assert (things["changed"], len(things["refused"]), things["rolled_back"]) == (2, 6, None)
    assert broken["rolled_back"] == "The fused model does not run"
