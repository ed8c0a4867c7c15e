"""A real sshd on 127.0.0.1, the keys to log in to it, and OpenSSH's own client."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cli._run import invoke

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["OpenSsh", "find_sshd", "new_key", "openssh"]

_HOST = "127.0.0.1"
_SECONDS = 30.0  # that the server may take to answer


@dataclass(frozen=True, kw_only=True)
class OpenSsh:
    """A server that is running, and what it takes to log in.

    Attributes:
        user: Who may.
        port: On which it listens.
        identity: The private key that it accepts.
        known_hosts: The file that has its host key.
    """

    user: str
    port: int
    identity: Path
    known_hosts: Path

    @property
    def address(self) -> str:
        """What rexport calls the device."""
        return f"{self.user}@{_HOST}:{self.port}"

    def asked(
        self, *words: str | Path, exit_code: int = 0, identity: Path | None = None, known_hosts: Path | None = None
    ) -> dict[str, Any]:
        """Run a command of rexport on this device, and return what its document says of it.

        Args:
            words: The command.
            exit_code: That it must end with.
            identity: Instead of the right key.
            known_hosts: Instead of the right host key's file.
        """
        access = ["--identity", identity or self.identity, "--known-hosts", known_hosts or self.known_hosts]
        result = invoke(*map(str, [*words, self.address, *access, "--json"]))
        assert result.exit_code == exit_code, result.stderr
        (found,) = json.loads(result.stdout)["devices"]
        assert isinstance(found, dict)
        return found

    def run(self, command: str, given: bytes = b"") -> bytes:
        """Run a command on the device through OpenSSH's client, and return what it prints."""
        options = {"UserKnownHostsFile": self.known_hosts, "StrictHostKeyChecking": "yes", "BatchMode": "yes"}
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        login = ["-F", "none", "-i", str(self.identity), "-p", str(self.port), f"{self.user}@{_HOST}"]
        done = subprocess.run(["ssh", *words, *login, command], input=given, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


def find_sshd() -> str | None:
    """Return the server's path, which sshd insists on, ``None`` without OpenSSH."""
    if not shutil.which("ssh") or not shutil.which("ssh-keygen"):
        return None
    return shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def new_key(path: Path) -> Path:
    """Have OpenSSH make a key pair, and return the private key's file; the public one ends in ``.pub``."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@contextmanager
def openssh(
    folder: Path,
    *,
    user: str,
    settings: Sequence[str] = (),
    start: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
) -> Iterator[OpenSsh]:
    """Run a server, and end it with everything that was run through it.

    Args:
        folder: For its keys, its configuration and ``sshd.log``.
        user: Who may log in.
        settings: Lines of its configuration that come before the usual ones, and so count.
        start: Takes what :class:`subprocess.Popen` does.
    """
    sshd = find_sshd()
    assert sshd is not None
    host_key, identity = new_key(folder / "host_key"), new_key(folder / "client_key")
    with socket.socket() as free:
        free.bind((_HOST, 0))
        port = free.getsockname()[1]
    usual = [
        f"ListenAddress {_HOST}:{port}",
        f"HostKey {host_key}",
        f"AuthorizedKeysFile {identity.with_suffix('.pub')}",
        "AuthenticationMethods publickey",
        "StrictModes no",  # the keys may lie below /tmp
        "UsePAM no",
        "PidFile none",
    ]
    (folder / "sshd_config").write_text("".join(f"{line}\n" for line in [*settings, *usual]))
    (folder / "known_hosts").write_text(f"[{_HOST}]:{port} {host_key.with_suffix('.pub').read_text()}")
    with (folder / "sshd.log").open("wb") as log:
        command = [sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
        server = start(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        _wait_for(server, port, folder / "sshd.log")
        yield OpenSsh(user=user, port=port, identity=identity, known_hosts=folder / "known_hosts")
    finally:
        _end(server)


def _wait_for(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until the server says its name."""
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and server.poll() is None:
        with suppress(OSError), socket.create_connection((_HOST, port), timeout=_SECONDS) as client:
            if client.recv(4) == b"SSH-":
                return
        time.sleep(0.05)
    raise AssertionError(f"sshd does not answer: {log.read_text()}")


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server, its sessions, and what they run."""
    for process in [*_descendants(server.pid), server.pid]:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    server.communicate()


def _descendants(process: int) -> list[int]:
    with suppress(OSError):  # it has ended
        children = [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
        return [found for child in children for found in [*_descendants(child), child]]
    return []
