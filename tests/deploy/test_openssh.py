"""``rexport deploy`` and ``rexport devices`` against OpenSSH's server, as this system has it."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rexport.deploy.agent_file import AGENT_NAME, agent_bytes
from rexport.deploy.remote import Cargo
from tests.deploy._openssh import OpenSsh, find_sshd, new_key, openssh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.deploy.conftest import Supplies

pytestmark = pytest.mark.skipif(find_sshd() is None, reason="OpenSSH's server and client are not installed here")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSsh]:
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it, and Debian's service makes it
    with openssh(tmp_path_factory.mktemp("openssh"), user=getpass.getuser()) as started:
        yield started


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The device's folder, which does not exist yet."""
    return tmp_path / "device" / "rexport"


@pytest.mark.slow
def test_there_and_back(server: OpenSsh, root: Path, supplies: Supplies) -> None:
    first, second = (Cargo.load(path).manifest.id for path in (supplies.first, supplies.second))
    trust = ("--trust", supplies.public)
    assert _asked(server, root, "deploy", supplies.first, *trust, "--dry-run")["outcome"] == "would be installed"
    refused = _asked(server, root, "devices", "status", exit_code=6)
    assert "`rexport deploy` installs one" in refused["reason"]
    assert not root.exists()

    installed = _asked(server, root, "deploy", supplies.first, *trust)
    assert (installed["outcome"], installed["active"], installed["previous"]) == ("installed", first, None)
    assert (root / AGENT_NAME).read_bytes() == agent_bytes()
    assert list((root / "incoming").iterdir()) == []
    assert _asked(server, root, "deploy", supplies.first)["outcome"] == "already active"

    (root / AGENT_NAME).unlink()
    installed = _asked(server, root, "deploy", supplies.second)
    assert (installed["outcome"], installed["active"], installed["previous"]) == ("installed", second, first)
    assert (root / AGENT_NAME).read_bytes() == agent_bytes()

    back = _asked(server, root, "devices", "rollback")
    assert (back["outcome"], back["active"], back["previous"]) == ("rolled back", first, second)
    status = _asked(server, root, "devices", "status")
    assert (status["outcome"], status["active"]) == ("answered", first)
    assert (root / "active").readlink().name == first


@pytest.mark.parametrize("hashed", [False, True])
def test_the_host_key_is_compared(server: OpenSsh, root: Path, tmp_path: Path, hashed: bool) -> None:
    """Debian's ssh writes the names of hosts as hashes, and old ssh as they are."""
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    name = server.known_hosts.read_text().partition(" ")[0]
    right.write_text(server.known_hosts.read_text())
    wrong.write_text(f"{name} {new_key(tmp_path / 'other').with_suffix('.pub').read_text()}")
    if hashed:
        for path in (right, wrong):
            subprocess.run(["ssh-keygen", "-H", "-f", path], check=True, capture_output=True)
            assert "127.0.0.1" not in path.read_text()
    # it gets as far as to see that there is no agent
    assert _asked(server, root, "devices", "status", exit_code=6, known_hosts=right)["step"] == "looking"
    refused = _asked(server, root, "devices", "status", exit_code=6, known_hosts=wrong)
    assert (refused["outcome"], refused["step"]) == ("unreachable", "connecting")
    assert "another host key than the known one" in refused["reason"]


def test_an_unknown_host_is_refused(server: OpenSsh, root: Path, tmp_path: Path, supplies: Supplies) -> None:
    (tmp_path / "empty").touch()
    refused = _asked(server, root, "deploy", supplies.first, exit_code=6, known_hosts=tmp_path / "empty")
    assert (refused["outcome"], refused["step"]) == ("unreachable", "connecting")
    assert "is not known; log in once with `ssh -p" in refused["reason"]
    assert (tmp_path / "empty").read_text() == ""
    assert not root.exists()


@pytest.mark.slow
def test_a_stranger_is_refused(server: OpenSsh, root: Path, tmp_path: Path, supplies: Supplies) -> None:
    stranger = new_key(tmp_path / "stranger")
    refused = _asked(server, root, "deploy", supplies.first, exit_code=6, identity=stranger)
    assert (refused["outcome"], refused["step"]) == ("unreachable", "connecting")
    assert "accepts none of the keys" in refused["reason"]
    assert not root.exists()


def _asked(server: OpenSsh, root: Path, *words: str | Path, exit_code: int = 0, **access: Path) -> dict[str, Any]:
    """Run a command of rexport, and return what its document says of the device."""
    return server.asked(*words, "--root", root, "--python", sys.executable, exit_code=exit_code, **access)
