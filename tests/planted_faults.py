"""Whether the tests find faults that are planted in the product, one at a time.

    pip install coverage pytest-cov
    python -m tests.planted_faults map                                    # which test runs which line: takes long
    python -m tests.planted_faults plant --faults 300 --json benchmarks/results/planted-faults.json

Faults are drawn with a seed, from every folder in proportion to its code: an operator swapped, a condition turned
round, a number moved by one, a call, an argument or a result left out. Each is planted in a copy of the package, where
also the processes that tests start find it, and those tests run that run the line: those of the same folder first, the
quick ones before the slow. A fault that none of them fails with is missed.
"""

from __future__ import annotations

import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rexport.benchmarks import machine_facts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[1]
FOLDERS = {"exporter": "rexport", "calibration": "rexport/calibration", "benchmarks": "rexport/benchmarks"}
NOT_INSTALLED = {"benchmarks/peers", "benchmarks/studies"}
MAP = Path("build/planted-faults")  # which tests run which line, and how long they take
_MOST_SECONDS, _MOST_TESTS = 240.0, 300  # of the tests for one fault

_SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip

app = typer.Typer()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A piece of a file, from byte ``start`` to ``end``, and what takes its place."""

    file: str
    line: int
    start: int
    end: int
    was: str
    becomes: str

    @property
    def lines(self) -> range:
        """The lines that the piece is on."""
        return range(self.line, self.line + self.was.count("\n") + 1)

    def planted_in(self, source: bytes) -> bytes:
        """Return the file with the fault."""
        return source[: self.start] + self.becomes.encode() + source[self.end :]


def faults_of(file: str, source: bytes) -> Iterator[Fault]:
    """Yield every fault that a file can have; what only people and type checkers read can have none."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node, becomes in _changes(ast.parse(source)):
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        was = source[start:end].decode()
        yield Fault(file=file, line=node.lineno, start=start, end=end, was=was, becomes=becomes)


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield nodes of a tree, each with the text that takes its place."""
    if isinstance(node, ast.JoinedStr):  # whose parts have no places of their own
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    yield from _changes_of(node)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):  # a dataclass that is not frozen does the same
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _changes(child)


def _changes_of(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in _SWAPPED:
            yield node, _with(node, ops=[_SWAPPED[type(op)]()])
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in _SWAPPED:
            yield node, _with(node, op=_SWAPPED[type(op)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, f"({ast.unparse(operand)})"
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield test, f"(not ({ast.unparse(test)}))"
        case ast.Constant(value=bool(value)):
            yield node, str(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield node, f"({value!r} + 1)"
        case ast.Expr(value=ast.Call()):
            yield node, "pass"
        case ast.Return(value=ast.AST() as value) if not isinstance(value, ast.Constant):
            yield value, "None"
        case ast.Call(keywords=[*_, ast.keyword(arg=str())] as keywords):
            yield node, f"{ast.unparse(_changed(node, keywords=keywords[:-1]))}"


def _with(node: ast.AST, **fields: object) -> str:
    return f"({ast.unparse(_changed(node, **fields))})"


def _changed(node: ast.AST, **fields: object) -> ast.AST:
    copy = deepcopy(node)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


def drawn(count: int, seed: int, root: Path = ROOT) -> list[Fault]:
    """Return faults of all folders of the product in ``root``, in proportion to their lines and one at least."""
    by_folder: dict[str, list[Fault]] = defaultdict(list)
    lines: dict[str, int] = defaultdict(int)
    for top in FOLDERS:
        for path in sorted((root / top).rglob("*.py")):
            file = path.relative_to(root).as_posix()
            if _folder(file) in NOT_INSTALLED:
                continue
            source = path.read_bytes()
            by_folder[_folder(file)] += faults_of(file, source)
            lines[_folder(file)] += source.count(b"\n")
    draw = random.Random(seed)
    shares = {folder: max(1, round(count * lines[folder] / sum(lines.values()))) for folder in by_folder}
    return [fault for folder, some in by_folder.items() for fault in draw.sample(some, min(shares[folder], len(some)))]


def _folder(file: str) -> str:
    return "/".join(file.split("/")[:-1])


def _mirrored(file: str) -> str:
    """Return the folder of the tests of a file."""
    top, *rest = file.split("/")[:-1]
    return "/".join(["tests", *([] if top == "exporter" else [top]), *rest]) + "/"


@app.command(name="map")
def map_lines(workers: int = 2) -> None:
    """Run all tests and remember which lines each runs, in the processes that it starts too."""
    folder = ROOT / MAP
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "coveragerc"
    settings.write_text(
        f"[run]\nsource_pkgs = rexport\nparallel = true\npatch = subprocess\ncontext = ${{PYTEST_CURRENT_TEST-}}\n"
        f"data_file = {folder}/lines\n"
    )
    options = [f"--cov-config={settings}", "--cov", "--cov-context=test", "--cov-report="]
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"-n{workers}", *options, f"--junitxml={folder}/tests.xml"], cwd=ROOT
    )


class TestMap:
    """Which tests run a line, and how long they take."""

    def __init__(self, folder: Path) -> None:
        from coverage import CoverageData

        self._lines = CoverageData(str(folder / "lines"))
        self._lines.read()
        self._seconds: dict[str, float] = {}
        for case in ElementTree.parse(folder / "tests.xml").iter("testcase"):
            module, name = case.get("classname", "").replace(".", "/") + ".py", case.get("name", "")
            self._seconds[f"{module}::{name}"] = float(case.get("time", 0))
        self._cached: dict[str, Mapping[int, Sequence[str]]] = {}

    def tests_of(self, fault: Fault) -> list[str]:
        """Return the tests that run a fault's line, in the order to run them."""
        path = str(ROOT / fault.file)
        if path not in self._cached:
            self._cached[path] = self._lines.contexts_by_lineno(path)
        near, found = _mirrored(fault.file), set[str]()
        contexts = {context for line in fault.lines for context in self._cached[path].get(line, ())}
        if contexts <= {""}:  # run when the module is imported, or in processes whose lines coverage can't tell
            found = {test for test in self._seconds if test.startswith(near)}
        for context in contexts:
            name, _, when = context.replace(" (", "|").removesuffix(")").rpartition("|")
            if when == "setup":  # what others of the module look at too
                found |= {test for test in self._seconds if test.startswith(name.partition("::")[0] + "::")}
            elif name:
                found.add(name)
        known = [test for test in found if test in self._seconds]
        known.sort(key=lambda test: (not test.startswith(near), self._seconds[test]))
        kept, seconds = [], 0.0
        for test in known:
            if seconds + self._seconds[test] <= _MOST_SECONDS and len(kept) < _MOST_TESTS:
                kept.append(test)
                seconds += self._seconds[test]
        return kept


@app.command()
def plant(
    faults: int = 300,
    seed: int = 0,
    workers: int = 2,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Plant faults one at a time, and print those that no test finds; those in the file are not tried again."""
    tests, chosen = TestMap(ROOT / MAP), drawn(faults, seed)
    packages: Queue[Path] = Queue()
    rows: list[dict[str, object]] = []
    if json_file is not None and json_file.exists():
        rows = json.loads(json_file.read_text())["faults"]
    known = {(row["file"], row["start"], row["becomes"]) for row in rows}
    chosen = [fault for fault in chosen if (fault.file, fault.start, fault.becomes) not in known]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(workers) as pool:
        for index in range(workers):
            packages.put(_copied(Path(name, str(index))))

        def one(fault: Fault) -> tuple[Fault, str]:
            package = packages.get()
            try:
                return fault, _outcome(fault, package, tests.tests_of(fault))
            finally:
                packages.put(package)

        for fault, outcome in pool.map(one, chosen):
            rows.append({**asdict(fault), "outcome": outcome})
            if json_file is not None:
                head = {"schema": "rexport.planted-faults/1", "machine": machine_facts().to_json(), "seed": seed}
                json_file.write_text(json.dumps(head | _counted(rows), indent=1) + "\n")
            if outcome == "missed" or outcome == "not run":
                print(f"{fault.file}:{fault.line}: {outcome}: {fault.was!r} → {fault.becomes!r}", flush=True)
    counted = _counted(rows)
    for folder, counts in counted["folders"].items():
        print(f"{folder:32} {counts['caught']:4} of {counts['planted']}")
    print(f"{counted['caught']} of {counted['planted']} caught")


def _counted(rows: Sequence[dict[str, object]]) -> dict[str, Any]:
    folders: dict[str, dict[str, int]] = defaultdict(lambda: {"planted": 0, "caught": 0})
    for row in rows:
        counts = folders[_folder(str(row["file"]))]
        counts["planted"] += 1
        counts["caught"] += row["outcome"] == "caught"
    caught = sum(counts["caught"] for counts in folders.values())
    return {"caught": caught, "planted": len(rows), "folders": folders, "faults": rows}


def _copied(folder: Path) -> Path:
    """Copy the product as it is installed, and return where it is found."""
    for top, package in FOLDERS.items():
        shutil.copytree(ROOT / top, folder / package, ignore=shutil.ignore_patterns("__pycache__", "results"))
    return folder


def _outcome(fault: Fault, package: Path, tests: Sequence[str]) -> str:
    """Say what the tests say of a fault: ``caught``, ``missed``, or ``not run`` by any."""
    if not tests:
        return "not run"
    top, _, rest = fault.file.partition("/")
    path = package / FOLDERS[top] / rest
    source = path.read_bytes()
    path.write_bytes(fault.planted_in(source))
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *tests]
        environment = os.environ | {"PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=3 * _MOST_SECONDS + 60)
    except subprocess.TimeoutExpired:
        return "caught"  # it hangs
    finally:
        path.write_bytes(source)
    return "missed" if done.returncode == 0 else "caught"


if __name__ == "__main__":
    app()
