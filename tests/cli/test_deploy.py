"""``rexport deploy`` and ``rexport devices``, against real SSH servers and agents."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli._run import interrupted, invoke
from tests.deploy._cargo import new_keys, write_bundle
from tests.faults.ssh_site import Site, site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, with the public key ``private.pub.pem`` beside it."""
    folder = tmp_path_factory.mktemp("bundle")
    private, _ = new_keys(folder)
    return write_bundle(folder / "tiny-1.rxb", key=private, version=1)


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path, 2) as made:
        yield made


def _access(there: Site) -> list[str]:
    return ["--identity", str(there.identity), "--known-hosts", str(there.known_hosts)]


@pytest.mark.slow
def test_from_the_first_look_to_the_way_back(there: Site, bundle: Path) -> None:
    options = ["--inventory", str(there.inventory()), *_access(there)]
    trust = ["--trust", str(bundle.with_name("private.pub.pem"))]
    one = str(there.device(0))

    looked = invoke("deploy", str(bundle), one, *options, *trust, "--dry-run")
    assert looked.exit_code == 0, looked.stderr
    assert "would be installed" in looked.stdout
    assert not there.machines[0].root.exists()

    for dry_run in (["--dry-run"], []):
        refused = invoke("deploy", str(bundle), one, *options, *dry_run)
        assert refused.exit_code == 6
        assert "--trust KEY.pem" in refused.stderr

    done = invoke("deploy", str(bundle), one, *options, *trust)
    assert done.exit_code == 0, done.stderr
    assert one in done.stdout
    lines = [line.removeprefix(one).strip() for line in done.stderr.splitlines()]
    assert lines[:6] == [
        *("connecting", "looking", "asking the agent", "placing the key", "sending the bundle", "installing")
    ]
    assert there.active(1) is None

    again = invoke("deploy", str(bundle), one, *options, "--json")
    document = json.loads(again.stdout)
    assert (again.exit_code, document["schema"], document["counts"]) == (0, "rexport.deploy/1", {"already active": 1})
    assert document["bundle"]["name"] == "tiny"
    assert document["devices"][0]["active"] == there.active(0)

    # the second device has no agent, which is no reason not to show the first
    status = invoke("devices", "status", *options, "--json")
    document = json.loads(status.stdout)
    assert (status.exit_code, document["schema"]) == (6, "rexport.devices/1")
    assert [device["outcome"] for device in document["devices"]] == ["answered", "failed"]
    assert document["devices"][0]["answer"]["last"]["result"] == "done"
    table = invoke("devices", "status", one, *options)
    assert table.exit_code == 0
    assert "install of 1 done, 20" in table.stdout

    back = invoke("devices", "rollback", one, *options)
    assert back.exit_code == 6
    assert "no previous version" in back.stderr
    assert there.active(0) is not None


def test_a_device_that_is_not_there(there: Site, bundle: Path) -> None:
    port = there.machines[0].port
    there.do(there.machines[0].stop())
    gone = invoke("deploy", str(bundle), f"pi@127.0.0.1:{port}", *_access(there), "--json")
    (device,) = json.loads(gone.stdout)["devices"]
    assert (gone.exit_code, device["outcome"], device["step"]) == (6, "unreachable", "connecting")
    assert "can't be reached" in device["reason"]
    assert "Traceback" not in gone.stderr


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        ("BUNDLE", 2, "No device is named"),
        ("BUNDLE --inventory INVENTORY --group canary", 2, "there are first"),
        ("BUNDLE camera --inventory INVENTORY", 2, "camera is not among the devices selected from"),
        ("BUNDLE pi@one --identity none", 2, "none does not exist"),
        ("BUNDLE pi@one --known-hosts none", 2, "none does not exist"),
        ("none.rxb pi@one", 2, "none.rxb does not exist"),
        ("BUNDLE pi@one --trust OTHER", 3, "is not signed with the key of"),
    ],
)
def test_what_makes_no_sense(there: Site, bundle: Path, tmp_path: Path, words: str, exit_code: int, said: str) -> None:
    places = {"BUNDLE": bundle, "INVENTORY": there.inventory()}
    if "OTHER" in words:
        places["OTHER"] = new_keys(tmp_path, "other")[1]
    result = invoke("deploy", *(str(places.get(word, word)) for word in words.split()))
    assert (result.exit_code, result.stdout) == (exit_code, ""), result.stderr
    assert said in " ".join(result.stderr.split())
    assert there.machines[0].commands == []


def test_how_the_roll_out_goes_is_as_the_options_say(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rexport.deploy.rollout import Pace

    paces = []
    monkeypatch.setattr("rexport.jobs.deploy.run", lambda request, **_: paces.append(request.pace))
    for options in ("", "--parallel 3 --max-failures 2", "--parallel 3 --batch-size 5"):
        invoke("deploy", str(bundle), "pi@one", *options.split())
    assert paces == [
        Pace(parallel=8, batch_size=8, max_failures=0),
        Pace(parallel=3, batch_size=3, max_failures=2),
        Pace(parallel=3, batch_size=5, max_failures=0),
    ]


def test_without_asyncssh(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    result = invoke("deploy", str(bundle), "pi@one")
    assert result.exit_code == 5
    assert "pip install 'rexport[deploy]'" in result.stderr


def test_files_for_ansible(bundle: Path, tmp_path: Path) -> None:
    result = invoke("deploy", str(bundle), "--ansible", str(tmp_path))
    assert (result.exit_code, str(tmp_path / "deploy.yml") in result.stdout.splitlines()) == (0, True)
    assert result.stderr == f"Next: ansible-playbook -i {tmp_path / 'inventory.yml'} {tmp_path / 'deploy.yml'}\n"


@pytest.mark.slow
def test_ctrl_c_ends_it(there: Site, bundle: Path) -> None:
    there.machines[0].silent = {"probe"}
    command = [sys.executable, "-m", "rexport", "deploy", str(bundle), str(there.device(0)), *_access(there)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = ""
    while "looking" not in said:
        said = process.stderr.readline()
        assert said, shlex.join(command)
    process.send_signal(signal.SIGINT)
    output, _ = interrupted(process)
    assert output == ""
