"""Real agents on several devices: batches that stop, connections that are cut, and runs that go on."""

from __future__ import annotations

import asyncio
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rexport._errors import VerificationError
from rexport.deploy import container
from rexport.deploy.bundle import sign_files
from rexport.deploy.installation import Installation, ask_status, go_back
from rexport.deploy.manifest import from_bytes
from rexport.deploy.remote import Cargo
from rexport.deploy.rollout import Outcome, Pace, Report, Result, roll_out
from rexport.deploy.signing import load_private_key, load_public_key
from rexport.deploy.ssh import Access, Source
from tests.deploy._cargo import faulty_runtime, new_keys, write_bundle
from tests.faults.agent import everything_below
from tests.faults.ssh_device import Cut
from tests.faults.ssh_site import Site, site

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.deploy.conftest import Supplies


class _Journal(Report):
    """Remembers who began when."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.finished_: list[int] = []

    def step(self, device, step) -> None:  # type: ignore[no-untyped-def]
        if step == "connecting":
            self.begun.append(device.port)

    def finished(self, result: Result) -> None:
        assert result.device.port is not None
        self.finished_.append(result.device.port)


def _roll(
    there: Site,
    work,  # type: ignore[no-untyped-def]
    *,
    numbers: Sequence[int] | None = None,
    pace: Pace | None = None,
    journal: Report | None = None,
    step_timeout: float = 60,
) -> tuple[Result, ...]:
    numbers = range(len(there.machines)) if numbers is None else numbers
    return asyncio.run(
        roll_out(
            [there.device(number) for number in numbers],
            work,
            access=Access(
                identity=there.identity,
                known_hosts=there.known_hosts,
                step_timeout=step_timeout,
                install_timeout=120,
            ),
            pace=pace or Pace(parallel=2),
            report=journal or Report(),
        )
    )


def _installation(bundle: Path, supplies: Supplies, *, trust: bool = True, dry_run: bool = False) -> Installation:
    key = load_public_key(supplies.public) if trust else None
    return Installation(cargo=Cargo.load(bundle), trust=key, dry_run=dry_run)


def _outcomes(results: Sequence[Result]) -> list[Outcome]:
    return [result.outcome for result in results]


@pytest.mark.slow
def test_a_batch_with_a_failure_is_the_last_one(tmp_path: Path, supplies: Supplies) -> None:
    first, second = _installation(supplies.first, supplies), _installation(supplies.second, supplies)
    with site(tmp_path, 5) as there:
        assert _outcomes(_roll(there, first, numbers=[2])) == [Outcome.INSTALLED]
        there.machines[2].environment["PYTHONPATH"] = str(faulty_runtime(tmp_path))
        journal = _Journal()
        results = _roll(there, second, pace=Pace(parallel=2, batch_size=2), journal=journal)
        installed, failed, left = Outcome.INSTALLED, Outcome.FAILED, Outcome.NOT_STARTED
        assert _outcomes(results) == [installed, installed, failed, installed, left], results
        was, now = first.cargo.manifest.id, second.cargo.manifest.id
        assert [there.active(number) for number in range(5)] == [now, now, was, now, None]
        assert [result.active for result in results] == [now, now, was, now, None]
        assert (results[2].exit_code, results[2].step) == (6, "installing")
        assert results[2].reason is not None
        assert "self-check" in results[2].reason
        # the second batch began when the first had ended
        ports = [machine.port for machine in there.machines]
        assert set(journal.begun[:2]) == set(ports[:2])
        assert set(journal.finished_[:2]) == set(ports[:2])
        assert there.machines[4].commands == []

        # once it is mended, the same run goes on, and leaves alone what has been done
        del there.machines[2].environment["PYTHONPATH"]
        already = Outcome.ALREADY
        assert _outcomes(_roll(there, second, numbers=range(4))) == [already, already, installed, already]
        (back,) = _roll(there, go_back, numbers=[2])
        assert (back.outcome, back.active, back.previous) == (Outcome.ROLLED_BACK, was, now)
        assert [there.active(number) for number in range(4)] == [now, now, was, now]


@pytest.mark.slow
def test_connections_cut_at_every_step_leave_the_device_whole(tmp_path: Path, supplies: Supplies) -> None:
    """One device, whose connection is cut a step later each time; nothing is lost, and nothing is done twice."""
    work = _installation(supplies.second, supplies)
    size, agent_size = work.cargo.source.size, work.agent.size
    with site(tmp_path, 1) as there:
        machine = there.machines[0]
        steps = [
            (Cut("probe"), "looking"),
            (Cut("receive", at_byte=agent_size // 2), "sending the agent"),
            (Cut("receive", at_byte=agent_size // 2), "sending the agent"),
            (Cut("status"), "asking the agent"),
            (Cut("add"), "placing the key"),
            (Cut("receive"), "sending the bundle"),
            (Cut("receive", at_byte=size // 3), "sending the bundle"),
            (Cut("receive", after=True), "sending the bundle"),
            (Cut("install", reboot=True), "installing"),
        ]
        for cut, step in steps:
            machine.cut = cut
            (result,) = _roll(there, work)
            assert (result.outcome, result.step, cut.done) == (Outcome.UNREACHABLE, step, True), result
            assert "lost; run it again" in str(result.reason)
            assert there.active(0) is None
        (gone,) = _roll(there, work)
        assert (gone.outcome, gone.step) == (Outcome.UNREACHABLE, "connecting")
        there.do(machine.start())
        # what the device has is not sent again: of the bundle, a third of it came at first, and the rest then
        assert machine.received < agent_size * 2 + size + 2048
        machine.cut = Cut("install", after=True)
        (unsure,) = _roll(there, work)
        assert unsure.outcome is Outcome.UNREACHABLE
        assert there.active(0) == work.cargo.manifest.id  # the device had gone on by itself
        (result,) = _roll(there, work)
        assert (result.outcome, result.active, result.sent_bytes) == (Outcome.ALREADY, work.cargo.manifest.id, 0)


@pytest.mark.slow
def test_an_install_that_is_still_under_way_is_not_taken_for_done(tmp_path: Path, supplies: Supplies) -> None:
    """An agent whose connection was cut goes on, and until its last self-check it may still go back."""
    fcntl = pytest.importorskip("fcntl", reason="the devices run Linux")
    first, second = _installation(supplies.first, supplies), _installation(supplies.second, supplies)
    with site(tmp_path, 1) as there:
        machine = there.machines[0]
        for work in (first, second):
            _roll(there, work)
        state = json.loads((machine.root / "state.json").read_text())
        was = {"verb": "install", "to": second.cargo.manifest.id, "active": first.cargo.manifest.id, "previous": None}
        (machine.root / "state.json").write_text(json.dumps({**state, "pending": was}))
        lock = os.open(machine.root / "lock", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)  # as the agent that is at work
        machine.steps.clear()

        def let_go() -> None:
            until = time.monotonic() + 60
            while "install" not in machine.commands and time.monotonic() < until:
                time.sleep(0.05)
            os.close(lock)

        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(let_go)
            (result,) = _roll(there, second)
            assert "install" in machine.commands, result
            waiting.result()
        # that agent never ended its work, so that the switch was undone, and then made
        assert (result.outcome, there.active(0)) == (Outcome.INSTALLED, second.cargo.manifest.id)
        assert json.loads((machine.root / "state.json").read_text())["pending"] is None


def test_a_device_that_stops_answering_is_given_up(tmp_path: Path, supplies: Supplies) -> None:
    with site(tmp_path, 1) as there:
        there.machines[0].silent = {"probe"}
        (result,) = _roll(there, _installation(supplies.first, supplies), step_timeout=0.5)
    assert (result.outcome, result.step) == (Outcome.UNREACHABLE, "looking")
    assert "no answer for 0.5 s" in str(result.reason)


@pytest.mark.slow
def test_nothing_is_changed_in_a_dry_run_or_without_trust(tmp_path: Path, supplies: Supplies) -> None:
    with site(tmp_path, 1) as there:
        root = there.machines[0].root
        (looked,) = _roll(there, _installation(supplies.first, supplies, dry_run=True))
        assert looked.outcome is Outcome.PLANNED
        assert not root.exists()
        (asked,) = _roll(there, ask_status)
        assert "has no agent" in str(asked.reason)
        (refused,) = _roll(there, _installation(supplies.first, supplies, trust=False))
        assert refused.outcome is Outcome.FAILED
        assert "--trust KEY.pem" in str(refused.reason)
        assert not (root / "incoming").exists() or list((root / "incoming").iterdir()) == []


@pytest.mark.slow
def test_a_dry_run_names_all_that_would_fail(
    tmp_path: Path, supplies: Supplies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes nothing on a device with the key, with another one, and without a runtime or room."""
    private, public = new_keys(tmp_path, "other")
    foreign = Cargo.load(write_bundle(tmp_path / "tiny-3.rxb", key=private, version=3))
    work = _installation(supplies.first, supplies)
    look = _installation(supplies.first, supplies, trust=False, dry_run=True)
    with site(tmp_path, 1) as there:
        machine = there.machines[0]
        assert _outcomes(_roll(there, work)) == [Outcome.INSTALLED]
        before = everything_below(machine.root, but=("lock",))
        assert _outcomes(_roll(there, look)) == [Outcome.ALREADY]
        second = _installation(supplies.second, supplies, trust=False, dry_run=True)
        (result,) = _roll(there, second)
        assert (result.outcome, result.active) == (Outcome.PLANNED, work.cargo.manifest.id)

        (result,) = _roll(there, replace(second, cargo=foreign))
        assert (result.outcome, result.step, result.exit_code) == (Outcome.FAILED, "checking", 3)
        assert "not signed by any of the trusted keys" in str(result.reason)
        (result,) = _roll(there, replace(second, cargo=foreign, trust=load_public_key(public)))
        assert result.outcome is Outcome.PLANNED

        monkeypatch.setattr("rexport.deploy.installation._SPARE_ROOM", 1 << 60)
        newer = _for_another_runtime(supplies.second, supplies.public.with_name("private.pem"))
        (result,) = _roll(there, replace(second, cargo=newer))
        assert (result.outcome, result.exit_code) == (Outcome.FAILED, 5)
        assert "The bundle needs onnxruntime>=99, and" in str(result.reason)
        assert "MiB are needed; free some there" in str(result.reason)
        assert everything_below(machine.root, but=("lock",)) == before


def _for_another_runtime(bundle: Path, key: Path) -> Cargo:
    """Return the bundle, signed to run on a version of ONNX Runtime that no device has."""
    contents = container.read(bundle)
    manifest = from_bytes(contents.manifest)
    target = manifest.target._replace(runtimes={"onnxruntime": (">=99",)})
    signed = sign_files(manifest._replace(target=target), contents.files, load_private_key(key))
    return Cargo(manifest=from_bytes(signed.manifest), source=Source(container.to_rxb(signed)))


def test_a_bundle_of_another_key_is_not_even_sent(tmp_path: Path, supplies: Supplies) -> None:
    _, other = new_keys(tmp_path, "other")
    with pytest.raises(VerificationError, match="is not signed with the key of"):
        Cargo.load(supplies.first, trust=other)
    assert Cargo.load(supplies.first, trust=supplies.public).manifest.name == "tiny"


@pytest.mark.slow
def test_a_bundle_of_another_key_is_refused_there(tmp_path: Path, supplies: Supplies) -> None:
    _, other = new_keys(tmp_path, "other")
    work = replace(_installation(supplies.first, supplies), trust=load_public_key(other))
    with site(tmp_path, 1) as there:
        (result,) = _roll(there, work)
        assert (result.outcome, result.exit_code) == (Outcome.FAILED, 3)
        assert list((there.machines[0].root / "incoming").iterdir()) == []
        assert there.active(0) is None
