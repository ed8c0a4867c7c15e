"""Connections to real SSH servers: what is refused, what is said, and what is not waited for."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import asyncssh
import pytest

from rexport._errors import DeviceError, InputError
from rexport.deploy.ssh import Access, Connection, Finished, Source, UnreachableError, connect
from tests.faults.ssh_site import Site, site

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from rexport.deploy.inventory import Device

_T = TypeVar("_T")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site"), 1) as made:
        yield made


def _access(one: Site) -> Access:
    return Access(identity=one.identity, known_hosts=one.known_hosts, connect_timeout=10, step_timeout=10)


def _with(
    one: Site,
    work: Callable[[Connection], Awaitable[_T]],
    *,
    device: Device | None = None,
    access: Access | None = None,
) -> _T:
    async def run() -> _T:
        async with connect(device or one.device(0), access or _access(one)) as connection:
            return await work(connection)

    return asyncio.run(run())


async def _true(connection: Connection) -> Finished:
    return await connection.run(["true"])


def test_words_arrive_as_they_are(one: Site) -> None:
    words = ["a b", "$HOME", "it's", '"', "*", "", "\\", "ü", "; exit 7"]
    finished = _with(one, lambda connection: connection.run(["printf", "<%s>", *words]))
    assert finished == Finished(exit_code=0, stdout="".join(f"<{word}>" for word in words), stderr="")


def test_stdin_and_the_exit_code(one: Site) -> None:
    finished = _with(one, lambda connection: connection.run(["sh", "-c", "cat; echo bad >&2; exit 9"], stdin=b"in"))
    assert (finished.exit_code, finished.stdout, finished.last_words) == (9, "in", "bad")


def test_an_unknown_host_key_is_refused(one: Site, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    access = replace(_access(one), known_hosts=tmp_path / "empty")
    before = len(one.machines[0].commands)
    with pytest.raises(UnreachableError, match=rf"not known; log in once with `ssh -p {one.machines[0].port} pi@"):
        _with(one, _true, access=access)
    assert len(one.machines[0].commands) == before
    assert (tmp_path / "empty").read_text() == ""


@pytest.mark.parametrize("algorithm", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
def test_another_host_key_is_refused(one: Site, tmp_path: Path, algorithm: str) -> None:
    port = one.machines[0].port
    other = asyncssh.generate_private_key(algorithm).export_public_key().decode()
    (tmp_path / "other").write_text(f"[127.0.0.1]:{port} {other}")
    for _ in range(5):
        with pytest.raises(UnreachableError) as caught:
            _with(one, _true, access=replace(_access(one), known_hosts=tmp_path / "other"))
        if "Connection lost" not in str(caught.value):  # a server without such a key may hang up before it is asked
            break
    assert re.search(rf"another host key.*ssh-keygen -R '\[127.0.0.1\]:{port}'", str(caught.value))


def test_lines_that_can_not_be_read_are_passed_over(one: Site, tmp_path: Path) -> None:
    file = tmp_path / "odd"
    right = one.known_hosts.read_bytes()
    file.write_bytes(b"# caf\xe9\n=\n@odd a ssh-ed25519 AAAA\n|1|no|hash ssh-ed25519 AAAA\n\n" + right + b"one-word")
    access = replace(_access(one), known_hosts=file)
    end = 6 + right.count(b"\n")
    assert access.read_known_hosts().passed_over == (f"{file}, line 2", f"{file}, line 3", f"{file}, line {end}")
    assert _with(one, _true, access=access).exit_code == 0
    file.write_bytes(b"=\n")
    with pytest.raises(UnreachableError, match="is not known"):
        _with(one, _true, access=access)


def test_a_revoked_host_key_stays_revoked_beside_odd_lines(one: Site, tmp_path: Path) -> None:
    file, right = tmp_path / "revoked", one.known_hosts.read_text().splitlines()[0]
    file.write_text(f"=\n{right}\n@revoked * {right.partition(' ')[2]}\n")
    with pytest.raises(UnreachableError):
        _with(one, _true, access=replace(_access(one), known_hosts=file))


def test_no_file_of_host_keys_is_no_permission(one: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host *\n  UserKnownHostsFile none\n  StrictHostKeyChecking no\n")
    with pytest.raises(UnreachableError, match="is not known"):
        _with(one, _true, access=Access(identity=one.identity))


def test_a_key_that_is_not_accepted(one: Site, tmp_path: Path) -> None:
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(tmp_path / "stranger")
    with pytest.raises(UnreachableError, match=r"accepts none of the keys; .*ssh-copy-id -p"):
        _with(one, _true, access=replace(_access(one), identity=tmp_path / "stranger"))


def test_keys_that_cannot_be_used(one: Site, tmp_path: Path) -> None:
    access = _access(one)
    with pytest.raises(InputError, match="can't be read"):
        _with(one, _true, access=replace(access, identity=tmp_path / "none"))
    (tmp_path / "text").write_text("text")
    with pytest.raises(InputError, match="can't be used as a private key"):
        _with(one, _true, access=replace(access, identity=tmp_path / "text"))
    key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    key.write_private_key(tmp_path / "locked", "pkcs8-pem", passphrase="secret")
    with pytest.raises(InputError, match="ssh-add"):
        _with(one, _true, access=replace(access, identity=tmp_path / "locked"))
    with pytest.raises(InputError, match="There is no file"):
        _with(one, _true, access=replace(access, known_hosts=tmp_path / "none"))


def test_nobody_listens(one: Site) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UnreachableError, match=r"can't be reached: .*is it on"):
        _with(one, _true, device=replace(one.device(0), port=port))


def test_a_server_that_says_nothing_is_not_waited_for(one: Site) -> None:
    import socket

    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        with pytest.raises(UnreachableError, match=r"does not answer within 0.3 s"):
            _with(
                one,
                _true,
                device=replace(one.device(0), port=mute.getsockname()[1]),
                access=replace(_access(one), connect_timeout=0.3),
            )


def test_a_command_that_does_not_end_is_not_waited_for(one: Site) -> None:
    with pytest.raises(UnreachableError, match=r"no answer for 0.5 s"):
        _with(one, lambda connection: connection.run(["sleep", "30"], seconds=0.5))


def test_a_device_without_that_python(one: Site) -> None:
    with pytest.raises(DeviceError, match=r"has no python2.6; install Python 3.8"):
        _with(one, lambda c: c.ask_receiver("probe", "none"), device=replace(one.device(0), python="python2.6"))
    with pytest.raises(DeviceError, match=r"no readable answer .exit code 0"):
        _with(one, lambda c: c.ask_receiver("probe", "none"), device=replace(one.device(0), python="true"))


def test_too_much_output_is_not_listened_to(one: Site) -> None:
    with pytest.raises(DeviceError, match="more than 1 MiB"):
        _with(one, lambda connection: connection.run(["head", "-c", "3000000", "/dev/zero"]))


def test_what_start_up_files_print_is_passed_over() -> None:
    noisy = Finished(exit_code=0, stdout='Welcome!\n{broken\n{"a": {"b": 1}}\n', stderr="")
    assert noisy.document() == {"a": {"b": 1}}
    assert Finished(exit_code=0, stdout="Welcome!\n", stderr="").document() is None
    assert Finished(exit_code=0, stdout="[1]\n", stderr="").document() is None


def test_a_file_is_sent_and_not_where_it_can_not_be(one: Site, tmp_path: Path) -> None:
    source = Source(bytes(300_000))
    told: list[int] = []
    answer = _with(one, lambda c: c.send("blob", source, offset=0, sent=told.append))
    assert answer == {"received": 300_000, "done": True}
    assert (one.machines[0].root / "blob").read_bytes() == source.data
    assert told == sorted(told)
    assert told[-1] == 300_000
    (tmp_path / "file").touch()
    with pytest.raises(DeviceError, match="can't be used"):
        _with(one, lambda c: c.send("blob", source, offset=0), device=replace(one.device(0), root=f"{tmp_path}/file"))
