"""A process that has imported rexport once and forks for every wrong file, so that thousands take minutes.

    python -m tests.faults._mutation_worker FOLDER FIRST END STEP [KEEP]

``FOLDER/seeds.pickle`` holds the seeds, made by the parent. Each line on stdout is the JSON object of one case.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tests.faults import mutators

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.faults.seeds import Seed

__all__ = ["CANARY", "main", "run_case"]

CANARY = b"a secret that no command may read" * 32
"""What lies outside the folder of a case, where its paths may lead."""
_SECONDS = 30.0
_MEMORY = 3 * 2**30  # bytes beyond what the imports map
_CODES = range(6)
_CRASHED = 99
_READABLE = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/", "/dev/urandom", "/etc/localtime")
_MUTATORS: dict[str, Callable[[bytes, Random], bytes]] = {
    "onnx": mutators.mutate_onnx,
    "json": mutators.mutate_json,
    "toml": mutators.mutate_toml,
    "bytes": mutators.mutate_bytes,
    "bundle": mutators.mutate_bundle,
}


def main(folder: str, first: str, end: str, step: str, keep: str = "") -> None:
    """Run the cases ``range(first, end, step)``; the files of those that fail are copied to ``keep``."""
    home = Path(folder)
    seeds: tuple[Seed, ...] = pickle.loads((home / "seeds.pickle").read_bytes())
    work = home / f"worker{os.getpid()}"
    work.mkdir()
    _import_what_is_used(seeds, work)
    for number in range(int(first), int(end), int(step)):
        outcome = run_case(number, seeds, work)
        if keep and outcome["problem"] is not None:
            shutil.copytree(work / "case", Path(keep) / str(number), symlinks=True, dirs_exist_ok=True)
        print(json.dumps(outcome), flush=True)
    shutil.rmtree(work)


def run_case(number: int, seeds: Sequence[Seed], work: Path) -> dict[str, Any]:
    """Make the files of a case, give them to a command in a limited child process, and say what came of it."""
    random = Random(number)
    seed = seeds[number % len(seeds)]
    command = seed.commands[number // len(seeds) % len(seed.commands)]
    case = _fresh(work)
    _write(case, {**seed.beside, seed.name: _MUTATORS[seed.mutator](seed.data, random)})
    if random.random() < 0.1 and "weights.bin" in seed.beside:
        (case / "weights.bin").unlink()
        (case / "weights.bin").symlink_to(random.choice(("../secret.bin", "/etc/passwd", "model.onnx", ".")))
    start = time.monotonic()
    status = _in_child(command, case, work)
    problem = _problem(status, case, work)
    return {
        "case": number, "kind": seed.kind, "command": command[0], "problem": problem,
        "code": os.waitstatus_to_exitcode(status) if status is not None else None,
        "seconds": round(time.monotonic() - start, 2), "said": _last_line(work / "stderr") if problem else "",
    }  # fmt: skip


def _fresh(work: Path) -> Path:
    case = work / "case"
    shutil.rmtree(case, ignore_errors=True)
    (case / "sub").mkdir(parents=True)
    (work / "secret.bin").write_bytes(CANARY)
    (work.parent / "secret.bin").write_bytes(CANARY)
    (case / "link.bin").symlink_to("../secret.bin")
    return case


def _write(case: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        (case / name).parent.mkdir(parents=True, exist_ok=True)
        (case / name).write_bytes(data)


def _in_child(command: Sequence[str], case: Path, work: Path) -> int | None:
    """Return the status that the child ended with; ``None`` where it had to be ended."""
    pid = os.fork()
    if pid == 0:
        _run(command, case, work)
    descriptor = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ended = poll.poll(_SECONDS * 1000)
    os.close(descriptor)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return status if ended else None


def _run(command: Sequence[str], case: Path, work: Path) -> None:
    """Be the child: run the command line as a user's shell would, and end."""
    code = _CRASHED
    try:
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(work / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        os.chdir(case)
        os.environ |= {"REXPORT_CACHE": str(case / "cache"), "COLUMNS": "10000"}
        tempfile.tempdir = str(case / "sub")
        _limit()
        outside: list[str] = []
        report = os.open(work / "outside", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        sys.addaudithook(_watch(str(case), outside))
        sys.argv = ["rexport", *command]
        try:
            from rexport.cli import main as cli

            cli()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        os.write(report, "\n".join(outside).encode(errors="replace"))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _limit() -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for limit, value in (
        (resource.RLIMIT_AS, mapped + _MEMORY),
        (resource.RLIMIT_CPU, int(2 * _SECONDS)),
        (resource.RLIMIT_FSIZE, 2**28),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def _watch(case: str, outside: list[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook (https://peps.python.org/pep-0578/) that notes what is opened outside the folder."""
    home = Path(mutators.__file__).resolve().parents[2]
    code = (sys.prefix, sys.base_prefix, str(home), *(path for path in sys.path if path), *_READABLE)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], str | bytes):
            return
        path, _, flags = arguments
        real = os.path.realpath(os.fsdecode(path))
        if real in (os.devnull, f"/proc/{os.getpid()}/cgroup"):
            return
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        if real != case and not real.startswith(case + "/") and (writes or not real.startswith(code)):
            outside.append(f"{event} {real}")

    return hook


def _problem(status: int | None, case: Path, work: Path) -> str | None:
    """Return what is wrong with how a case ended, if anything is."""
    if status is None:
        return f"hangs for {_SECONDS:.0f} s"
    code = os.waitstatus_to_exitcode(status)
    said = (work / "stderr").read_text(errors="replace")
    if code < 0:
        return f"dies of {signal.Signals(-code).name}"
    if code == _CRASHED or "Traceback (most recent call last)" in said:
        return "ends in a traceback"
    if code not in _CODES:
        return f"ends with exit code {code}"
    if code and "error: " not in said and "Usage: " not in said:
        return f"ends with exit code {code} and no error"
    outside = (work / "outside").read_text()
    if outside:
        return f"opens what lies outside its folder: {outside.splitlines()[0]}"
    left = [path for path in case.iterdir() if path.name.endswith(".part") or (code and path.name == "out.onnx")]
    if left:
        return f"ends with exit code {code} and leaves {left[0].name} behind"
    written = [work / "stdout", work / "stderr", *(path for path in case.glob("out*") if path.is_file())]
    if any(CANARY[:33] in path.read_bytes() for path in written):
        return "gives away what lies outside its folder"
    return None


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


def _import_what_is_used(seeds: Sequence[Seed], work: Path) -> None:
    """Import what the commands import, found out by running each once in a child: a fork then costs no import."""
    first = {command: seed for seed in reversed(seeds) for command in seed.commands}
    for command, seed in first.items():
        case = _fresh(work)
        _write(case, {**seed.beside, seed.name: seed.data})
        read, write = os.pipe()
        if os.fork() == 0:
            _scout(command, case, work, write)
        os.close(write)
        with os.fdopen(read) as names:
            found = names.read().split()
        os.wait()
        for name in found:
            with suppress(Exception):  # made up at run time, or another's private part
                importlib.import_module(name)


def _scout(command: Sequence[str], case: Path, work: Path, write: int) -> None:
    code = 1
    try:
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(work / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        os.chdir(case)
        before = set(sys.modules)
        sys.argv = ["rexport", *command]
        from rexport.cli import main as cli

        with suppress(SystemExit):
            cli()
        os.write(write, "\n".join(name for name in sys.modules if name not in before).encode())
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
