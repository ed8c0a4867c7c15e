from __future__ import annotations

from pathlib import Path

from tests.faults.system_calls import changing_calls

_LOG = """\
openat(AT_FDCWD</tmp>, "/etc/ld.so.cache", O_RDONLY|O_CLOEXEC) = 3</etc/ld.so.cache>
mkdir("/dev/root/staging/ab", 0755) = 0
openat(AT_FDCWD</tmp>, "/dev/root/staging/ab/model.onnx", O_WRONLY|O_CREAT, 0644) = 5</dev/root/staging/ab/a>
write(4<pipe:[17]>, "{\\"root\\": \\"/dev/root\\"}", 21) = 21
write(5</dev/root/staging/ab/model.onnx>, "abc", 3) = 3
fsync(5</dev/root/staging/ab/model.onnx>) = 0
openat(AT_FDCWD</tmp>, "/dev/root", O_RDONLY|O_CLOEXEC) = 5</dev/root>
fsync(5</dev/root>) = 0
unlinkat(5</dev/root/staging>, "ab", AT_REMOVEDIR) = 0
unlink("/tmp/elsewhere") = 0
getpid() = 7
"""


def test_the_calls_that_change_what_lies_below_the_root() -> None:
    calls = changing_calls(_LOG.splitlines(), Path("/dev/root"))
    assert [(call.name, call.count) for call in calls] == [
        ("mkdir", 1), ("openat", 2), ("write", 2), ("fsync", 1), ("fsync", 2), ("unlinkat", 1),
    ]  # fmt: skip
