from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rexport._errors import OutputError
from rexport._files import atomic_path, check_writable, write_bytes, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_bytes_and_text_are_written(tmp_path: Path) -> None:
    write_bytes(tmp_path / "bytes", b"\x00\xff")
    write_text(tmp_path / "text", "Größe\n")
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"
    assert (tmp_path / "text").read_bytes() == "Größe\n".encode()
    assert names(tmp_path) == ["bytes", "text"]


def test_an_old_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    target.write_bytes(b"old and longer")
    write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["m.onnx"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("old", [b"old", None])
def test_what_goes_wrong_inside_leaves_the_old_file_or_none(
    error: BaseException, old: bytes | None, tmp_path: Path
) -> None:
    target = tmp_path / "m.onnx"
    if old is not None:
        target.write_bytes(old)

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half of")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert names(tmp_path) == ([] if old is None else ["m.onnx"])
    assert old is None or target.read_bytes() == old


def test_the_old_file_is_there_until_the_end(tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    target.write_bytes(b"old")
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path  # so that moving it is one step
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"


def test_two_writers_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as first, atomic_path(tmp_path / "a") as second:
        assert first != second
        first.write_bytes(b"1")
        second.write_bytes(b"2")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"1"  # the outer block ends last


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_permissions_of_any_new_file(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "m.onnx", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "m.onnx").stat().st_mode & 0o777 == mode


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file size limit for processes")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """The system refuses to write more than 4 KiB, as it does where there is no room."""
    target = tmp_path / "m.onnx"
    target.write_bytes(b"old")
    program = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from rexport._errors import OutputError
        from rexport._files import write_bytes

        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_bytes(Path(sys.argv[1]), bytes(100_000))
        except OutputError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", program, target], capture_output=True, text=True, check=True)
    assert f"{target} was not written: no room in {tmp_path}" in done.stdout
    assert "free some or choose another place with -o" in done.stdout
    assert names(tmp_path) == ["m.onnx"]
    assert target.read_bytes() == b"old"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    target.write_bytes(b"old")
    program = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from rexport._files import atomic_path

        with atomic_path(Path(sys.argv[1])) as temporary:
            temporary.write_bytes(b"half of")
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run([sys.executable, "-c", program, target], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"


def test_a_file_system_that_can_t_be_written_says_so(tmp_path: Path) -> None:
    name = "x" * 250  # the temporary file's is longer than any file system takes
    with pytest.raises(OutputError, match="was not written: "):
        write_bytes(tmp_path / name, b"new")
    assert names(tmp_path) == []


def test_where_nothing_can_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "m.onnx")
    with pytest.raises(OutputError, match=r"is a folder; name a file in it"):
        check_writable(tmp_path)
    with pytest.raises(OutputError, match=r"The folder .*missing does not exist; make it with `mkdir -p .*missing`"):
        check_writable(tmp_path / "missing" / "m.onnx")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="does not exist"):
        check_writable(tmp_path / "file" / "m.onnx")
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match=r"is a device or a pipe"):
        write_bytes(tmp_path / "pipe", b"new")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no /dev/null")
def test_a_device_is_not_replaced() -> None:
    with pytest.raises(OutputError, match=r"/dev/null is a device or a pipe"):
        check_writable(Path("/dev/null"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_of_others_is_said_before_the_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match=r"can't be written to; choose another with -o"):
            check_writable(tmp_path / "m.onnx")
    finally:
        tmp_path.chmod(0o700)
