"""Devices by address and by inventory: what is understood, and the line of what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from rexport._errors import InputError, UsageError
from rexport.deploy.inventory import (
    DEFAULT_ROOT,
    Device,
    DeviceSelection,
    load_inventory,
    override,
    parse_address,
    select,
)


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("pi@camera-1", "pi", "camera-1", None),
        ("camera-1.local:2222", None, "camera-1.local", 2222),
        ("root@10.0.0.7:22", "root", "10.0.0.7", 22),
        ("pi@[fe80::1%eth0]:2200", "pi", "fe80::1%eth0", 2200),
        ("fe80::1", None, "fe80::1", None),
        ("pi@fe80::1", "pi", "fe80::1", None),
    ],
)
def test_addresses(text: str, user: str | None, host: str, port: int | None) -> None:
    device = parse_address(text)
    assert (device.user, device.host, device.port, device.root) == (user, host, port, DEFAULT_ROOT)
    assert parse_address(str(device)) == device


@pytest.mark.parametrize(
    "text",
    ["", "@host", "pi@", "host:", "host:0", "host:65536", "host:ssh", "-oProxyCommand=x", "a b", "pi@-host", "[::1"],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="not a device address"):
        parse_address(text)


def _write(folder: Path, text: str) -> Path:
    path = folder / "devices.toml"
    path.write_text(text)
    return path


def test_an_inventory(tmp_path: Path) -> None:
    text = """
[defaults]
user = "pi"
port = 2222
identity = "keys/fleet"

[[device]]
host = "one"
groups = ["canary"]

[[device]]
host = "two"
user = "root"
port = 22
root = "/opt/rexport/"
python = "/opt/python/bin/python3.11"
identity = "/etc/key"
"""
    one, two = load_inventory(_write(tmp_path, text))
    assert one == Device(host="one", user="pi", port=2222, identity=tmp_path / "keys/fleet", groups=("canary",))
    assert two == Device(
        host="two",
        user="root",
        port=22,
        root="/opt/rexport",
        python="/opt/python/bin/python3.11",
        identity=Path("/etc/key"),
    )
    assert select((one, two), ["canary"]) == (one,)
    assert select((one, two), []) == (one, two)
    with pytest.raises(UsageError, match="'hall'; there are canary"):
        select((one, two), ["hall"])


_ONE = '[[device]]\nhost = "one"\n'


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        (_ONE + "\n[[device]]\nhost = 7\n", 5, "host is 7"),
        (_ONE + '\n[[device]]\nuser = "pi"\n', 4, "has no host"),
        (_ONE + "prot = 22\n", 3, "there is no 'prot'"),
        (_ONE + "port = 0\n", 3, "port is 0"),
        (_ONE + "port = true\n", 3, "port is True"),
        (_ONE + 'port = "22"\n', 3, "port is '22'"),
        (_ONE + 'groups = "canary"\n', 3, "groups is 'canary'"),
        (_ONE + 'root = "rexport"\n', 3, "absolute"),
        (_ONE + 'root = "/var/../etc"\n', 3, "absolute"),
        (_ONE + 'root = "/"\n', 3, "absolute"),
        (_ONE + 'python = "python3; reboot"\n', 3, "python is"),
        ('[[device]]\nhost = "-oProxyCommand=reboot"\n', 2, "host is"),
        (_ONE + _ONE, 3, "listed twice"),
        (_ONE + "[device2]\n", 3, "there is no 'device2'"),
        ('[defaults]\n\nhost = "one"\n' + _ONE, 3, "there is no 'host'"),
        ("[device]\nhost = 'one'\n", 1, r"under a line \[\[device\]\]"),
    ],
)
def test_what_is_wrong_has_a_line(tmp_path: Path, text: str, line: int, why: str) -> None:
    with pytest.raises(InputError, match=rf"devices\.toml:{line}: .*{why}"):
        load_inventory(_write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "has no devices"), ("[[device]\n", "not TOML .*line 1"), ("device = [{host = 7}]\n", "host is 7")],
)
def test_what_is_wrong_as_a_whole(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        load_inventory(_write(tmp_path, text))


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        load_inventory(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(InputError, match="not text"):
        load_inventory(tmp_path / "bytes.toml")


def test_what_the_command_line_overrides() -> None:
    device = override(Device(host="one", user="pi"), root="/opt/x", python="python3.9")
    assert device == Device(host="one", user="pi", root="/opt/x", python="python3.9")
    assert override(device, root=None, python=None) == device
    with pytest.raises(UsageError, match="--root is 'x'"):
        override(device, root="x", python=None)


def test_a_selection(tmp_path: Path) -> None:
    inventory = _write(tmp_path, _ONE + 'groups = ["canary"]\n\n[[device]]\nhost = "two"\nuser = "pi"\n')
    one, two = DeviceSelection(inventory=inventory).devices()
    assert DeviceSelection(inventory=inventory, groups=("canary",)).devices() == (one,)
    assert DeviceSelection(inventory=inventory, addresses=("pi@two", "one")).devices() == (two, one)
    (elsewhere,) = DeviceSelection(addresses=("pi@two",), root="/opt/x", python="python3.9").devices()
    assert elsewhere == Device(host="two", user="pi", root="/opt/x", python="python3.9")


@pytest.mark.parametrize(
    ("selection", "why"),
    [
        (DeviceSelection(), "No device is named"),
        (DeviceSelection(addresses=("pi@one", "pi@one")), "pi@one is named twice"),
        (DeviceSelection(addresses=("pi@one:x",)), "not a device address"),
        (DeviceSelection(addresses=("pi@one",), root="here"), "--root is 'here'"),
        (DeviceSelection(addresses=("pi@one",), groups=("canary",)), "pass one with --inventory"),
    ],
)
def test_what_selects_no_devices(selection: DeviceSelection, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        selection.devices()


def test_an_address_that_is_in_two_tables(tmp_path: Path) -> None:
    inventory = _write(tmp_path, _ONE + "\n" + _ONE + "port = 2222\n")
    with pytest.raises(UsageError, match="one names 2 of the devices selected from"):
        DeviceSelection(inventory=inventory, addresses=("one",)).devices()
    assert len(DeviceSelection(inventory=inventory, addresses=("one:2222",)).devices()) == 1
