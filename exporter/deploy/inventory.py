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
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rexport._apart import READ
from rexport._errors import InputError, UsageError
from rexport._words import suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "DEFAULT_PYTHON",
    "DEFAULT_ROOT",
    "Device",
    "DeviceSelection",
    "load_inventory",
    "override",
    "parse_address",
    "select",
]

DEFAULT_PYTHON = "python3"
DEFAULT_ROOT = "/var/lib/rexport"

_HOST = re.compile(r"[A-Za-z0-9_:%][A-Za-z0-9._:%-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@\\-]*")
_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_PYTHON = re.compile(r"[A-Za-z0-9_./+-]+")
_ADDRESS = re.compile(
    r"(?:(?P<user>[^@]+)@)?(?:\[(?P<six>[^\]]+)\]|(?P<bare_six>[^:\[\]]*:[^\[\]]*:[^\[\]]*)|(?P<host>[^:\[\]]+))(?::(?P<port>\d+))?"
)
_LINE = re.compile(r"""\s*(?P<table>\[\[?\s*)?["']?(?P<key>[\w-]+)["']?\s*[=.\]]""")
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
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"{user}{host}{port}"

    @property
    def place(self) -> tuple[str, int | None, str]:
        """What no two devices of a rollout may share."""
        return self.host.lower(), self.port, self.root


def parse_address(text: str) -> Device:
    """Return the device that ``[user@]host[:port]`` means; an IPv6 address with a port stands in brackets.

    Raises:
        UsageError: It is no address.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is not a device address; write user@host or user@host:port.")
    host, port = match["six"] or match["bare_six"] or match["host"], match["port"]
    try:
        return _checked({"host": host, "user": match["user"], "port": port and int(port)})
    except ValueError as error:
        raise UsageError(f"{text!r} is not a device address: {error}.") from None


def override(device: Device, *, root: str | None, python: str | None) -> Device:
    """Return a device with another root or Python, where one is given.

    Raises:
        UsageError: It can't be one.
    """
    changes = {key: value for key, value in (("root", root), ("python", python)) if value}
    try:
        return _checked({**vars(device), **changes})
    except ValueError as error:
        raise UsageError(f"--{error}.") from None


@dataclass(frozen=True, kw_only=True)
class DeviceSelection:
    """Which devices to work on.

    Attributes:
        addresses: ``[user@]host[:port]`` each; with an inventory, some of its devices, written as there.
        inventory: A TOML file of devices.
        groups: Of the inventory, to choose only devices in one of them.
        root: rexport's folder on all of them, instead of what the inventory says.
        python: The Python there, likewise.
    """

    addresses: tuple[str, ...] = ()
    inventory: Path | None = field(default=None, metadata=READ)
    groups: tuple[str, ...] = ()
    root: str | None = None
    python: str | None = None

    def devices(self) -> tuple[Device, ...]:
        """Return the devices, each once.

        Raises:
            UsageError: There are none, one is named twice, or an address is none.
            InputError: The inventory can't be used.
        """
        if self.inventory is None:
            if self.groups:
                raise UsageError("--group selects from an inventory; pass one with --inventory.")
            devices = tuple(map(parse_address, self.addresses))
        else:
            devices = select(load_inventory(self.inventory), self.groups)
            if self.addresses:
                devices = tuple(_named(address, devices, self.inventory) for address in self.addresses)
        if not devices:
            raise UsageError("No device is named; pass user@host, or --inventory FILE.toml.")
        devices = tuple(override(device, root=self.root, python=self.python) for device in devices)
        places = set()
        for device in devices:
            if device.place in places:
                raise UsageError(f"{device} is named twice.")
            places.add(device.place)
        return devices


def _named(address: str, devices: Sequence[Device], inventory: Path) -> Device:
    matching = [device for device in devices if address in (device.host, str(device))]
    if len(matching) == 1:
        return matching[0]
    where = f"names {len(matching)} of the devices" if matching else "is not among the devices"
    raise UsageError(f"{address} {where} selected from {inventory}; write it as it is there.")


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
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
        raise InputError(f"{path} is not an inventory: it is not TOML ({error}).") from error
    return _Inventory(path, text).devices(document)


def select(devices: Iterable[Device], groups: Sequence[str]) -> tuple[Device, ...]:
    """Return the devices that are in any of ``groups``, or all if there are none, in their order.

    Raises:
        UsageError: No device is in one of the groups.
    """
    devices = tuple(devices)
    names = sorted({name for device in devices for name in device.groups})
    for group in groups:
        if group not in names:
            hint = f"there are {', '.join(names)}" if names else "the inventory names no groups"
            near = suggestion(group, names, 3)
            raise UsageError(f"No device is in the group {group!r}; {hint}.{near}")
    return tuple(device for device in devices if not groups or set(groups) & set(device.groups))


class _Inventory:
    """A document on its way to devices, and the numbers of its lines, which tomllib forgets."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = _line_numbers(text)

    def devices(self, document: Mapping[str, Any]) -> tuple[Device, ...]:
        """Return the devices of its tables, each with what the defaults say.

        Raises:
            InputError: A key or a value is none that an inventory has.
        """
        for key in document:
            if key not in ("device", "defaults"):
                raise self._wrong("", key, f"there is no {key!r}; devices are tables [[device]]")
        shared, tables = document.get("defaults", {}), document.get("device", [])
        if not isinstance(shared, dict):
            raise self._wrong("", "defaults", "defaults is a table, under a line [defaults]")
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise self._wrong("", "device", "devices are tables, each under a line [[device]]")
        if not tables:
            raise InputError(f"{self._path} has no devices; give each a line [[device]], and its host below.")
        defaults = self._values("defaults", shared, _SHARED_KEYS)
        devices: dict[tuple[str, int | None, str], Device] = {}
        for index, table in enumerate(tables):
            where = f"device {index}"
            values = self._values(where, table, ("host", *_SHARED_KEYS))
            if "host" not in values:
                raise self._wrong(where, "", "this device has no host")
            device = Device(**{**defaults, **values})
            if device.place in devices:
                raise self._wrong(where, "", f"{device} with this root is listed twice")
            devices[device.place] = device
        return tuple(devices.values())

    def _values(self, where: str, table: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
        values = {}
        for key, value in table.items():
            try:
                if key not in keys:
                    raise ValueError(f"there is no {key!r}; a device has {', '.join(keys)}")
                values[key] = _check(key, value)
            except ValueError as error:
                raise self._wrong(where, key, str(error)) from None
        if "identity" in values:
            values["identity"] = self._path.parent / values["identity"].expanduser()
        return values

    def _wrong(self, where: str, key: str, reason: str) -> InputError:
        line = self._lines.get((where, key))
        place = self._path if line is None else f"{self._path}:{line}"
        return InputError(f"{place}: {reason}.")


def _line_numbers(text: str) -> dict[tuple[str, str], int]:
    """Return the line of each key by its table (``"defaults"``, ``"device 0"`` …), and of each table by ``""``."""
    numbers: dict[tuple[str, str], int] = {}
    where, count = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.match(line)
        key = match["key"] if match else ""
        if match and match["table"]:
            numbers.setdefault(("", key), number)
            where, key = key, ""
            if where == "device":
                where, count = f"device {count}", count + 1
        numbers.setdefault((where, key), number)
    return numbers


def _checked(values: Mapping[str, Any]) -> Device:
    return Device(**{key: _check(key, value) for key, value in values.items() if value is not None})


def _check(key: str, value: Any) -> Any:
    """Return the value of a device's key.

    Raises:
        ValueError: It can't be, and the message says why.
    """
    if key == "port":
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
            raise ValueError(f"port is {value!r} and must be a number from 1 to 65535")
        return value
    if key == "groups":
        is_list = isinstance(value, list | tuple)
        if not is_list or not all(isinstance(name, str) and _GROUP.fullmatch(name) for name in value):
            raise ValueError(f"groups is {value!r} and must be a list of names, such as ['canary']")
        return tuple(value)
    if key == "identity":
        if not isinstance(value, str | Path) or not str(value):
            raise ValueError(f"identity is {value!r} and must be the file of a private key")
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
        raise ValueError(f"root is {text!r} and must be an absolute path, such as {DEFAULT_ROOT}")
    return str(path)
