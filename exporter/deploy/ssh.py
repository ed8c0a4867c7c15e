"""An SSH connection to a device: commands, their output within bounds, and files that arrive whole.

The device's host key must be known; nothing here accepts one by itself. What goes wrong comes out as
:class:`UnreachableError`, in a sentence that says what to type.
"""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import json
import shlex
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rexport._apart import READ
from rexport._errors import DeviceError, InputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    import asyncssh

    from rexport.deploy.inventory import Device

__all__ = [
    "Access",
    "Connection",
    "Finished",
    "KnownHosts",
    "Source",
    "UnreachableError",
    "connect",
    "import_asyncssh",
    "load_identity",
    "no_python",
]

_BLOCK = 1 << 16
_MOST_OUTPUT = 1 << 20
_NOT_FOUND = 127
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
class Access:
    """How to log in to devices, and how long to wait for them.

    Attributes:
        identity: The private key for devices that name none; ``None`` for the usual ones and the SSH agent.
        known_hosts: The file of host keys; ``None`` for the usual ones.
        connect_timeout: Seconds to wait for a connection.
        step_timeout: For an ordinary step, or while nothing of a transfer moves.
        install_timeout: For an installation or a rollback, the self-check included.
    """

    identity: Path | None = field(default=None, metadata=READ)
    known_hosts: Path | None = field(default=None, metadata=READ)
    connect_timeout: float = 20.0
    step_timeout: float = 60.0
    install_timeout: float = 900.0

    def read_known_hosts(self) -> KnownHosts:
        """Read the files of host keys that exist; lines that can't be read are passed over, as OpenSSH does.

        Raises:
            InputError: The one that was named does not exist, or one can't be read.
            UnavailableError: asyncssh is not installed.
        """
        asyncssh = import_asyncssh()
        if self.known_hosts is not None and not self.known_hosts.is_file():
            raise InputError(f"There is no file {self.known_hosts}; name the host keys that you know, or leave it out.")
        paths = [self.known_hosts] if self.known_hosts else [Path(name).expanduser() for name in _USUAL_KNOWN_HOSTS]
        entries, passed_over = asyncssh.import_known_hosts(""), []
        for path in filter(Path.is_file, paths):
            try:
                lines = path.read_bytes().split(b"\n")
            except OSError as error:
                raise InputError(
                    f"The host keys in {path} can't be read: {error.strerror}; repair it, or name another."
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
            f"{path} can't be used as a private key ({error}); one with a passphrase goes into the SSH "
            f"agent, with `ssh-add {path}`, and --identity is left out."
        ) from error


class UnreachableError(DeviceError):
    """A device can't be reached, or the connection to it was lost; what it has is whole."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A command that ended on a device: its exit code, and what it printed."""

    exit_code: int
    stdout: str
    stderr: str

    def document(self) -> dict[str, Any] | None:
        """Return the JSON object in stdout, whatever a shell's start-up files print before it; ``None`` without."""
        lines = self.stdout.splitlines(keepends=True)
        starts = (index for index, line in enumerate(lines) if line.startswith("{"))
        for start in starts:
            with suppress(ValueError, RecursionError):
                document = json.loads("".join(lines[start:]))
                return document if isinstance(document, dict) else None
        return None

    @property
    def last_words(self) -> str:
        """The last line of what was said on stderr, printable."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        return "".join(filter(str.isprintable, "".join(lines[-1:])))[:300]


class Connection:
    """An open connection; see :func:`connect`."""

    def __init__(self, ssh: asyncssh.SSHClientConnection, device: Device, access: Access) -> None:
        self._ssh = ssh
        self._device = device
        self.access = access
        self._receiver = resources.files("rexport.deploy").joinpath("_receiver.py").read_text(encoding="utf-8")

    async def run(self, words: Iterable[str], *, stdin: bytes = b"", seconds: float | None = None) -> Finished:
        """Run a command.

        Args:
            words: The command; each word reaches it as it is.
            stdin: What it is given, held in memory whole.
            seconds: How long it may take; by default as long as an ordinary step.

        Raises:
            UnreachableError: The connection was lost, or the time is up.
        """
        seconds = seconds or self.access.step_timeout
        try:
            async with asyncio.timeout(seconds):
                process = await self._start(words)
                with suppress(OSError):  # it ended without reading
                    process.stdin.write(stdin)
                    process.stdin.write_eof()
                return await self._finish(process)
        except TimeoutError:
            raise UnreachableError(f"{self._device} gave no answer for {seconds:g} s; run it again.") from None

    async def ask_receiver(
        self, verb: str, *arguments: str, stdin: bytes = b"", seconds: float | None = None
    ) -> dict[str, Any]:
        """Run a verb of ``_receiver.py`` on the device, and return its answer.

        Raises:
            UnreachableError: As of :meth:`run`.
            DeviceError: It has no Python, or the verb failed.
        """
        return self._answer(await self.run(self._receiver_words(verb, *arguments), stdin=stdin, seconds=seconds))

    async def send(
        self, name: str, data: Source, *, offset: int, sent: Callable[[int], None] = lambda _: None
    ) -> dict[str, Any]:
        """Send a file from ``offset`` on, and return the receiver's answer.

        Args:
            name: Its place below the root.
            data: What to send.
            offset: How much of it the device has.
            sent: Told how many bytes have gone, now and then.

        Raises:
            UnreachableError: As of :meth:`run`; or nothing moved for as long as a step may take.
            DeviceError: It could not be written there.
        """
        import asyncssh

        words = self._receiver_words("receive", name, data.sha256, str(offset), str(data.size))
        try:
            process = await self._within_step(self._start(words))
            with suppress(ConnectionError, asyncssh.Error):  # the receiver ended; its answer says why
                for block in data.blocks(offset):
                    process.stdin.write(block)
                    await self._within_step(process.stdin.drain())
                    offset += len(block)
                    sent(offset)
                process.stdin.write_eof()
            return self._answer(await self._within_step(self._finish(process)))
        except TimeoutError:
            raise UnreachableError(
                f"{self._device} received nothing for {self.access.step_timeout:g} s; run it again to resume."
            ) from None

    async def _within_step(self, work: Any) -> Any:
        return await asyncio.wait_for(work, self.access.step_timeout)

    def _receiver_words(self, verb: str, *arguments: str) -> list[str]:
        return [self._device.python, "-I", "-c", self._receiver, verb, self._device.root, *arguments]

    def _answer(self, finished: Finished) -> dict[str, Any]:
        answer = finished.document()
        if answer is None:
            raise no_python(self._device, finished)
        if "error" in answer:
            raise DeviceError(_why_not_written(self._device, str(answer.get("errno")), str(answer["error"])))
        return answer

    async def _start(self, words: Iterable[str]) -> asyncssh.SSHClientProcess[bytes]:
        import asyncssh

        try:
            return await self._ssh.create_process(shlex.join(words), encoding=None)
        except (asyncssh.Error, OSError) as error:
            raise self._lost() from error

    async def _finish(self, process: asyncssh.SSHClientProcess[bytes]) -> Finished:
        import asyncssh

        try:
            stdout, stderr = await asyncio.gather(self._read(process.stdout), self._read(process.stderr))
            await process.wait_closed()
        except (asyncssh.Error, OSError) as error:
            raise self._lost() from error
        finally:
            process.close()
        if process.exit_status is None:
            raise self._lost()
        exit_code = process.exit_status if process.exit_status >= 0 else 128
        return Finished(
            exit_code=exit_code, stdout=stdout.decode(errors="replace"), stderr=stderr.decode(errors="replace")
        )

    async def _read(self, stream: asyncssh.SSHReader[bytes]) -> bytes:
        """Read to the end: a device does not fill this machine's memory."""
        data = bytearray()
        while block := await stream.read(_BLOCK):
            data += block
            if len(data) > _MOST_OUTPUT:
                raise DeviceError(
                    f"{self._device} sent an answer of more than {_MOST_OUTPUT >> 20} MiB; is it rexport's agent?"
                )
        return bytes(data)

    def _lost(self) -> UnreachableError:
        return UnreachableError(f"The connection to {self._device} was lost; run it again once the device is back.")


class Source:
    """Bytes to send, and the hash that the device checks."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.size = len(data)

    def blocks(self, offset: int) -> Iterable[bytes]:
        """Yield what follows the first ``offset`` bytes, piece by piece."""
        return (self.data[start : start + _BLOCK] for start in range(offset, self.size, _BLOCK))


@asynccontextmanager
async def connect(device: Device, access: Access) -> AsyncIterator[Connection]:
    """Open a connection to a device whose host key is known.

    Raises:
        UnreachableError: It does not answer, its host key is unknown or another one, or it does not accept the user.
        InputError: The private key, or the file of host keys, can't be used.
        UnavailableError: asyncssh is not installed.
    """
    ssh = await _open(device, access)
    try:
        yield Connection(ssh, device, access)
    finally:
        ssh.close()
        with suppress(Exception):  # how a connection ends that is of no more use
            async with asyncio.timeout(2):
                await ssh.wait_closed()
        ssh.abort()


async def _open(device: Device, access: Access) -> asyncssh.SSHClientConnection:
    import_asyncssh()
    import asyncssh

    known_hosts, login = access.read_known_hosts().entries, _login(device, access)
    try:
        async with asyncio.timeout(access.connect_timeout):
            return await asyncssh.connect(
                device.host,
                known_hosts=known_hosts,
                preferred_auth=("publickey",),  # never ask for a password
                keepalive_interval=max(access.step_timeout / 4, 1),
                **login,
            )
    except TimeoutError:
        raise UnreachableError(
            f"{device} does not answer within {access.connect_timeout:g} s; is it on, and its address right?"
        ) from None
    except asyncssh.HostKeyNotVerifiable as error:
        raise _host_key_error(device, known_hosts) from error
    except asyncssh.KeyExchangeFailed as error:
        if _known_keys(device, known_hosts):  # it has keys, but none of the kinds that are known
            raise _host_key_error(device, known_hosts) from error
        raise UnreachableError(f"{device} and this machine share no encryption algorithm: {error.reason}.") from error
    except asyncssh.PermissionDenied as error:
        raise UnreachableError(
            f"{device} accepts none of the keys; name one with --identity, or copy yours there with "
            f"`ssh-copy-id {_ssh_words(device)}`."
        ) from error
    except asyncssh.Error as error:
        raise UnreachableError(f"{device} ended the connection: {error.reason or type(error).__name__}.") from error
    except ValueError as error:  # a name that can't be one, or ~/.ssh/config
        raise UnreachableError(f"{device} can't be connected to: {error}; look at ~/.ssh/config.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnreachableError(f"{device} can't be reached: {reason}; is it on, and its address right?") from error


def _login(device: Device, access: Access) -> dict[str, Any]:
    """Return asyncssh's options; what nobody stated is left to ``~/.ssh/config``."""
    identity = device.identity or access.identity
    options = {"username": device.user, "port": device.port, "client_keys": identity and [load_identity(identity)]}
    return {name: value for name, value in options.items() if value is not None}


def no_python(device: Device, finished: Finished) -> DeviceError:
    """Return what to say of a device that did not answer as Python does."""
    if finished.exit_code == _NOT_FOUND:
        return DeviceError(
            f"{device} has no {device.python}; install Python 3.8 or later there, or name it with --python."
        )
    words = f": {finished.last_words}" if finished.last_words else ""
    return DeviceError(
        f"{device} gave no readable answer (exit code {finished.exit_code}{words}); try `ssh "
        f"{_ssh_words(device)} {device.python} --version`."
    )


def _known_keys(device: Device, known_hosts: Any) -> bool:
    port = None if device.port in (None, 22) else device.port
    keys, authorities, *_ = import_asyncssh().match_known_hosts(known_hosts, device.host, "", port)
    return bool(keys or authorities)


def _host_key_error(device: Device, known_hosts: Any) -> UnreachableError:
    if _known_keys(device, known_hosts):
        name = device.host if device.port in (None, 22) else f"[{device.host}]:{device.port}"
        return UnreachableError(
            f"{device} shows another host key than the known one: another machine may be answering. If you know why, "
            f"forget the old one with `ssh-keygen -R {shlex.quote(name)}`, and compare the new one on the device."
        )
    return UnreachableError(
        f"The host key of {device} is not known; log in once with `ssh {_ssh_words(device)}` and compare what it shows "
        "with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the device, or name your file with --known-hosts."
    )


def _why_not_written(device: Device, name: str, message: str) -> str:
    if name in ("EACCES", "EPERM", "EROFS"):
        user = device.user or getpass.getuser()
        return (
            f"{device}: {device.root} can't be written there ({message}); make it with "
            f"`sudo install -d -o {user} {shlex.quote(device.root)}` on the device, or choose another with --root."
        )
    if name in ("ENOSPC", "EDQUOT", "EFBIG"):
        return f"{device}: no room in {device.root} ({message}); free some there and run it again."
    return f"{device}: {device.root} can't be used ({message})."


def _ssh_words(device: Device) -> str:
    port = f"-p {device.port} " if device.port else ""
    user = f"{device.user}@" if device.user else ""
    return f"{port}{user}{device.host}"
