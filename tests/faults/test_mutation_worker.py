"""The judge of wrong files, on a command line that does what it must not."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks, and waits with pidfd")

_FAULTS = {
    "pass": None,
    "raise KeyError('x')": "ends in a traceback",
    "os.abort()": "dies of SIGABRT",
    "os.kill(os.getpid(), 11)": "dies of SIGSEGV",
    "time.sleep(60)": "hangs for 2 s",
    "sys.exit(7)": "ends with exit code 7",
    "sys.exit(1)": "ends with exit code 1 and no error",
    "print('error: no.', file=sys.stderr); sys.exit(1)": None,
    "open('../secret.bin').read()": "opens what lies outside its folder",
    "open('/etc/passwd').read()": "opens what lies outside its folder",
    "open(os.path.realpath('..') + '/new', 'w').close()": "opens what lies outside its folder",
    "open('out.onnx', 'wb').close(); print('error: no.', file=sys.stderr); sys.exit(1)": "leaves out.onnx behind",
    "open('.x.part', 'w').close()": "leaves .x.part behind",
    "open('out.onnx', 'wb').write(worker.CANARY)": "gives away what lies outside its folder",
    "x = bytearray(2**45)": "ends in a traceback",
}
_SCRIPT = """
import json, os, sys, time
from pathlib import Path
import rexport.cli
from tests.faults import _mutation_worker as worker
from tests.faults.seeds import Seed

worker._SECONDS = 2.0
seed = Seed(kind="text", name="a", data=b"abc", beside={}, commands=(("inspect",),), mutator="bytes")
work = Path(sys.argv[1])
for fault in json.loads(sys.argv[2]):
    rexport.cli.main = lambda: exec(fault)
    print(json.dumps(worker.run_case(0, [seed], work)["problem"]))
"""


@pytest.mark.slow
@linux
def test_what_a_command_must_not_do_is_seen(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    command = [sys.executable, "-c", _SCRIPT, str(work), json.dumps(list(_FAULTS))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = dict(zip(_FAULTS, map(json.loads, done.stdout.splitlines()), strict=True))
    for fault, expected in _FAULTS.items():
        if expected is None:
            assert found[fault] is None, fault
        else:
            assert expected in (found[fault] or ""), fault
