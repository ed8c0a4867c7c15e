"""A child that crashes, hangs, takes too much or forks is an error of its parent, and never a hang."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from rexport._child import Child, ChildError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

posix = pytest.mark.skipif(os.name != "posix", reason="forks and signals are POSIX's")
_PROGRAM = """
import os, sys, time
from rexport._child import answer_requests

def answer(request):
    match request["do"]:
        case "echo":
            return {"said": request["words"]}
        case "fail":
            raise LookupError("nothing is there\\nand nobody")
        case "crash":
            print("the last words", file=sys.stderr, flush=True)
            os._exit(3)
        case "hang":
            time.sleep(60)
        case "eat":
            eaten = bytearray(request["bytes"])
            eaten[::4096] = bytes(len(eaten[::4096]))
            time.sleep(60)
        case "fork":
            if os.fork() == 0:
                sys.stdin.close()
                time.sleep(60)
        case "fork and die":
            if os.fork() == 0:
                time.sleep(60)
            os._exit(4)
    return {}

answer_requests(answer)
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Child]:
    (tmp_path / "obliging.py").write_text(_PROGRAM)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return lambda: Child("obliging")


def test_it_answers_and_what_it_raises_comes_back_in_a_sentence(start: Callable[[], Child]) -> None:
    with start() as child:
        assert child.ask("echo", words=["ä", 1]) == {"said": ["ä", 1]}
        with pytest.raises(ChildError, match=r"^nothing is there$") as caught:
            child.ask("fail")
        assert caught.value.kind == "LookupError"
        assert child.ask("echo", words="again", limit=60) == {"said": "again"}


def test_a_crash_comes_with_its_last_words(start: Callable[[], Child]) -> None:
    with start() as child, pytest.raises(ChildError, match="ended with exit code 3: the last words") as caught:
        child.ask("crash")
    assert caught.value.kind == "Died"


def test_time_is_limited(start: Callable[[], Child]) -> None:
    with start() as child:
        child.ask("echo", words="")
        with pytest.raises(ChildError, match=r"did not answer for 0\.2 s \(hang\)") as caught:
            child.ask("hang", limit=0.2)
    assert caught.value.kind == "TimeoutError"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_memory_is_limited(start: Callable[[], Child]) -> None:
    with start() as child:
        child.send("eat", bytes=300 * 2**20)
        with pytest.raises(ChildError, match=r"took [\d,]+ MiB of memory, more than 200") as caught:
            child.receive(60, most_mib=200)
    assert caught.value.kind == "MemoryError"


@posix
def test_what_it_forked_ends_with_it(start: Callable[[], Child]) -> None:
    began = time.monotonic()
    with start() as child:
        child.ask("fork")
        assert child.ask("echo", words="still here") == {"said": "still here"}
    assert time.monotonic() - began < 40  # and not the minute that the fork sleeps and holds the pipe


@posix
def test_a_fork_that_holds_the_pipe_does_not_hide_the_end(start: Callable[[], Child]) -> None:
    with start() as child, pytest.raises(ChildError, match="exit code 4"):
        child.ask("fork and die", limit=50)
