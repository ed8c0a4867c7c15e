"""Logging in to devices: the keys of hosts, which must be known, and one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rexport._errors import InputError, UnavailableError

__all__ = ["KnownHosts", "Login", "import_asyncssh", "load_identity"]

_USUAL_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts")


@dataclass(frozen=True, kw_only=True)
class KnownHosts:
    """The keys of hosts.

    Attributes:
        entries: asyncssh's ``SSHKnownHosts``; never ``None``, which it takes for accepting any key.
        passed_over: Where a line stands that can't be read, such as ``FILE, line 3``.
    """

    entries: Any
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Login:
    """How devices are known, and how to log in to them.

    Attributes:
        identity: The private key for devices that name none; ``None`` for the usual ones and the SSH agent.
        known_hosts: The file of host keys; ``None`` for the usual ones.
    """

    identity: Path | None = None
    known_hosts: Path | None = None

    def read_known_hosts(self) -> KnownHosts:
        """Read the files of host keys that exist; lines that can't be read are passed over, as OpenSSH does.

        Raises:
            InputError: The one that was named does not exist, or one can't be read.
            UnavailableError: asyncssh is not installed.
        """
        asyncssh = import_asyncssh()
        if self.known_hosts is not None and not self.known_hosts.is_file():
            raise InputError(f"There is no file {self.known_hosts}; name the host keys that you know, or leave it out.")
        usual = [Path(name).expanduser() for name in _USUAL_KNOWN_HOSTS]
        paths = [path for path in usual if path.is_file()] if self.known_hosts is None else [self.known_hosts]
        entries, passed_over = asyncssh.import_known_hosts(""), []
        for path in paths:
            try:
                lines = path.read_bytes().split(b"\n")
            except OSError as error:
                raise InputError(
                    f"The host keys in {path} can't be read: {error.strerror}; mend it, or name another."
                ) from error
            for number, line in enumerate(lines, start=1):
                if not _load(entries, line):
                    passed_over.append(f"{path}, line {number}")
        return KnownHosts(entries=entries, passed_over=tuple(passed_over))


def _load(entries: Any, line: bytes) -> bool:
    """Add a line to asyncssh's known hosts, and say whether it could be read; comments may be in any encoding."""
    try:
        entries.load(line.decode(errors="replace"))
    except ValueError:
        return False
    return True


def import_asyncssh() -> Any:
    """Return asyncssh.

    Raises:
        UnavailableError: It is not installed.
    """
    try:
        import asyncssh
    except ImportError as error:
        raise UnavailableError(f"This needs asyncssh ({error}); `pip install 'rexport[deploy]'` brings it.") from error
    return asyncssh


def load_identity(path: Path) -> Any:
    """Read a private key to log in with.

    Raises:
        InputError: It can't be used, or has a passphrase.
    """
    asyncssh = import_asyncssh()
    try:
        return asyncssh.read_private_key(str(path))
    except OSError as error:
        raise InputError(
            f"The private key {path} can't be read: {error.strerror}; name another with --identity."
        ) from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise InputError(
            f"{path} is no private key that can be used here ({error}); one with a passphrase goes into the SSH "
            f"agent, with `ssh-add {path}`, and --identity is left out."
        ) from error
