"""Which devices there are: addresses on the command line, and an inventory in TOML.

An inventory has a table ``[[device]]`` for each device, and at most one ``[defaults]`` with what they share::

    [defaults]
    user = "pi"

    [[device]]
    host = "camera-1.local"
    groups = ["canary", "hall-2"]

Keys that mean nothing here are refused rather than left alone: a misspelt ``port`` would send a model elsewhere.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rexport._errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["DEFAULT_PYTHON", "DEFAULT_ROOT", "Device", "load_inventory", "override", "parse_address", "select"]

DEFAULT_PYTHON = "python3"
DEFAULT_ROOT = "/var/lib/rexport"

_HOST = re.compile(r"[A-Za-z0-9_:%][A-Za-z0-9._:%-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@\\-]*")
_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_PYTHON = re.compile(r"[A-Za-z0-9_./+-]+")
_ADDRESS = re.compile(r"(?:(?P<user>[^@]+)@)?(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d+))?")
_SHARED_KEYS = ("user", "port", "root", "python", "groups", "identity")


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where a device is, and where rexport's files are on it.

    Attributes:
        host: Its name or address, or a ``Host`` of ``~/.ssh/config``.
        user: Who to log in as; ``None`` for what ``~/.ssh/config`` says, or else the user here.
        port: Its SSH port; ``None`` likewise, or else 22.
        root: The folder of the agent, its keys and the installed versions; absolute.
        python: The Python that runs the agent: a name in ``PATH``, or a path.
        identity: The file of the private key to log in with; ``None`` for the usual ones and the SSH agent.
        groups: What the inventory calls it, for ``--group``.
    """

    host: str
    user: str | None = None
    port: int | None = None
    root: str = DEFAULT_ROOT
    python: str = DEFAULT_PYTHON
    identity: Path | None = None
    groups: tuple[str, ...] = ()

    def __str__(self) -> str:
        user = "" if self.user is None else f"{self.user}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{user}{host}" + ("" if self.port is None else f":{self.port}")

    @property
    def place(self) -> tuple[str, int | None, str]:
        """What no two devices of a rollout may share."""
        return self.host.lower(), self.port, self.root


def parse_address(text: str) -> Device:
    """Return the device that ``[user@]host[:port]`` means; an IPv6 address with a port stands in brackets.

    Raises:
        UsageError: It is no address.
    """
    bare_six = text.count(":") > 1 and "[" not in text
    match = None if bare_six else _ADDRESS.fullmatch(text)
    if match is None:
        user, _, host = text.rpartition("@")
        if not bare_six or not _HOST.fullmatch(host):
            raise UsageError(f"{text!r} is no address of a device; write user@host or user@host:port.")
        values: dict[str, Any] = {"host": host, "user": user or None}
    else:
        port = match["port"]
        values = {"host": match["six"] or match["host"], "user": match["user"], "port": port and int(port)}
    try:
        return _checked(values)
    except ValueError as error:
        raise UsageError(f"{text!r} is no address of a device: {error}.") from None


def override(device: Device, *, root: str | None, python: str | None) -> Device:
    """Return a device with another root or Python, where one is given.

    Raises:
        UsageError: It can't be one.
    """
    try:
        return _checked({**vars(device), **({"root": root} if root else {}), **({"python": python} if python else {})})
    except ValueError as error:
        raise UsageError(f"{error}.".replace("root", "--root", 1).replace("python", "--python", 1)) from None


def load_inventory(path: Path) -> tuple[Device, ...]:
    """Read an inventory.

    Args:
        path: A TOML file; identities in it are relative to its folder.

    Raises:
        InputError: It can't be read, or says what can't be; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}; name an inventory of devices.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not an inventory: it is not text.") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not an inventory: it is no TOML ({error}).") from error
    return _Inventory(path, text, document).devices()


def select(devices: Iterable[Device], groups: Sequence[str]) -> tuple[Device, ...]:
    """Return the devices that are in any of ``groups``, or all if there are none, in their order.

    Raises:
        UsageError: No device is in one of the groups.
    """
    devices = tuple(devices)
    known = sorted({group for device in devices for group in device.groups})
    for group in groups:
        if group not in known:
            there = f"there are {', '.join(known)}" if known else "the inventory names no groups"
            raise UsageError(f"No device is in the group {group!r}; {there}.")
    return tuple(device for device in devices if not groups or set(groups) & set(device.groups))


class _Inventory:
    """A document on its way to devices; ``text`` is kept for the numbers of its lines, which tomllib forgets."""

    def __init__(self, path: Path, text: str, document: Mapping[str, Any]) -> None:
        self._path = path
        self._lines = text.splitlines()
        self._document = document

    def devices(self) -> tuple[Device, ...]:
        """Return the devices of its tables, each with what the defaults say.

        Raises:
            InputError: A key or a value is none that an inventory has.
        """
        for key in self._document:
            if key not in ("device", "defaults"):
                raise self._wrong(self._find(re.escape(key)), f"there is no {key!r}; devices are tables [[device]]")
        defaults = self._table("defaults", self._document.get("defaults", {}), _SHARED_KEYS, index=None)
        tables = self._document.get("device", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise self._wrong(self._find("device"), "devices are tables, each under a line [[device]]")
        if not tables:
            raise InputError(f"{self._path} has no devices; give each a line [[device]], and its host below.")
        found = [self._device(table, defaults, index) for index, table in enumerate(tables)]
        places: dict[tuple[str, int | None, str], int] = {}
        for index, device in enumerate(found):
            if places.setdefault(device.place, index) != index:
                raise self._wrong(self._header(index), f"{device} with this root stands here for the second time")
        return tuple(found)

    def _device(self, table: Mapping[str, Any], defaults: Mapping[str, Any], index: int) -> Device:
        values = {**defaults, **self._table("device", table, ("host", *_SHARED_KEYS), index=index)}
        if "host" not in table:
            raise self._wrong(self._header(index), "this device has no host")
        return Device(**values)

    def _table(self, name: str, table: Any, keys: Sequence[str], *, index: int | None) -> dict[str, Any]:
        if not isinstance(table, dict):
            raise self._wrong(self._find(name), f"{name} is a table, under a line [{name}]")
        values = {}
        for key, value in table.items():
            try:
                if key not in keys:
                    raise ValueError(f"there is no {key!r}; a device has {', '.join(keys)}")
                values[key] = self._from_here(_check(key, value)) if key == "identity" else _check(key, value)
            except ValueError as error:
                raise self._wrong(self._find(re.escape(key), name, index), str(error)) from None
        return values

    def _from_here(self, identity: Path) -> Path:
        return self._path.parent / identity.expanduser()

    def _wrong(self, line: int | None, why: str) -> InputError:
        where = f"{self._path}:{line}" if line is not None else str(self._path)
        return InputError(f"{where}: {why}.")

    def _header(self, index: int) -> int | None:
        """Return the line of a device's ``[[device]]``, if the devices are written so."""
        lines = [number for number, line in enumerate(self._lines, 1) if re.match(r"\s*\[\[\s*device\s*\]\]", line)]
        return lines[index] if len(lines) == len(self._document.get("device", [])) else None

    def _find(self, key: str, table: str | None = None, index: int | None = None) -> int | None:
        """Return the line where a key, or a table of that name, stands."""
        start = self._header(index) if index is not None else self._find("defaults") if table == "defaults" else 1
        if start is None:
            return None
        wanted = re.compile(rf"""\s*(?:\[\[?\s*)?["']?{key}["']?\s*(?:[=.\]]|$)""")
        return next((at for at, line in enumerate(self._lines[start - 1 :], start) if wanted.match(line)), None)


def _checked(values: Mapping[str, Any]) -> Device:
    return Device(**{key: _check(key, value) for key, value in values.items() if value is not None})


def _check(key: str, value: Any) -> Any:
    """Return the value of a device's key.

    Raises:
        ValueError: It can't be, and the message says why.
    """
    if key == "port":
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
            raise ValueError(f"port is {value!r} and has to be a number from 1 to 65535")
        return value
    if key == "groups":
        names = value if isinstance(value, list | tuple) else None
        if names is None or not all(isinstance(name, str) and _GROUP.fullmatch(name) for name in names):
            raise ValueError(f"groups is {value!r} and has to be a list of names, such as ['canary']")
        return tuple(names)
    if key == "identity":
        if not isinstance(value, str | Path) or not str(value):
            raise ValueError(f"identity is {value!r} and has to be the file of a private key")
        return Path(value)
    pattern = {"host": _HOST, "user": _USER, "python": _PYTHON}.get(key)
    if not isinstance(value, str) or (pattern is not None and not pattern.fullmatch(value)):
        raise ValueError(f"{key} is {value!r}, which can't be the {key} of a device")
    if key == "root":
        return _root(value)
    return value


def _root(text: str) -> str:
    path = PurePosixPath(text)
    if not path.is_absolute() or ".." in path.parts or len(path.parts) < 2 or not text.isprintable():
        raise ValueError(f"root is {text!r} and has to be an absolute path of a folder, such as {DEFAULT_ROOT}")
    return str(path)
