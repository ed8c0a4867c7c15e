"""Tables fit the terminal: text is folded, numbers are not, and what does not fit follows below."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from rexport.cli import app
from rexport.cli._console import print_facts, print_table
from tests.cli._run import invoke

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = ("model", "runtime", "batch", "img/s", "p50 ms", "speed-up", "95 %", "agrees", "SQNR")
ROW = ("a-very-long-name-of-a-model-int8.onnx", "cpu", "16", "12,345.6", "10.70", "2.82", "2.73–2.91", "100.0%", "34.1")


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()


@pytest.mark.parametrize(("width", "tables"), [(60, 3), (80, 2), (100, 1), (140, 1)])
def test_numbers_are_never_broken(
    width: int, tables: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(COLUMNS, [ROW], left=(0, 1), keys=3)
    lines = _lines(capsys)
    assert max(map(len, lines)) <= width
    words = [word for line in lines for word in line.split()]
    assert words.count("model") == tables
    assert words.count("16") == tables  # what tells the rows apart is there again
    assert all(words.count(number) == 1 for number in ROW[3:])


def test_text_is_folded_at_words_then_behind_punctuation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    rows = [
        ["ReduceMeanToGlobalAveragePool", "turns ReduceMean over height and width into another"],
        ["a/path/to/some_long_name-int8.onnx", "a network"],
    ]
    print_table(("pass", "what it does"), rows, left=(0, 1))
    lines = _lines(capsys)
    assert max(map(len, lines)) <= 60
    cells = [line[:32].strip() for line in lines[3:-1]], [line[32:].strip() for line in lines[3:-1]]
    assert cells == (
        ["ReduceMeanToGlobalAveragePool", "", "", "a/path/to/some_long_name-", "int8.onnx"],
        ["turns ReduceMean over", "height and width into", "another", "a network", ""],
    )


def test_columns_that_are_empty_in_all_rows_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("model", "drop", "loss", "why"), [("a", "–", "0.1", ""), ("b", "–", "–", "")], left=(0, 3))
    heading, _, *rows = capsys.readouterr().out.splitlines()[1:-1]
    assert (heading.split(), [row.split() for row in rows]) == (["model", "loss"], [["a", "0.1"], ["b", "–"]])


def test_facts_are_wrapped_at_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    facts = [("sha256", "0" * 64), ("what", "some words " * 12)]
    print_facts(facts)
    assert capsys.readouterr().out.splitlines() == [f"sha256  {'0' * 64}", f"what    {'some words ' * 12}"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    print_facts(facts)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"sha256  {'0' * 64}"  # a number that is never broken
    assert {line[:8] for line in lines[2:]} == {" " * 8}
    assert max(map(len, lines[1:])) <= 60


def test_a_table_that_is_no_terminals_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(COLUMNS, [ROW], left=(0, 1), keys=3)
    assert ROW[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "resnet50"], "There is no command 'export': `rexport onnx` does that. See `rexport --help`."),
        (["benhc"], "No such command 'benhc'. Did you mean 'bench'? See `rexport --help`."),
        (["bench", "m.onnx", "--bacth", "1"], "No such option: --bacth"),
        (["quantize"], "Missing argument 'MODEL.onnx'"),
        (["devices", "stauts"], "Did you mean 'status'"),
    ],
)
def test_slips_are_errors_like_all_others(arguments: list[str], message: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert message in " ".join(result.stderr.split())
    assert "Usage" not in result.stderr


def _examples(command: Any) -> Iterator[str]:
    """Yield the examples in the help of a command, and of those below it."""
    yield from (command.epilog or "").splitlines()
    for subcommand in getattr(command, "commands", {}).values():
        yield from _examples(subcommand)


@pytest.mark.parametrize("example", list(_examples(get_command(app))))
def test_every_example_parses(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(example)
    assert program == "rexport"
    for word in words:
        if not word.startswith(("-", "/")):  # a folder that must exist is there
            Path(word).mkdir(parents=True, exist_ok=True)
    command: Any = get_command(app)
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    command.make_context(name, words)


def _commands(command: Any, *names: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of a command, and of those below it."""
    yield names
    for name, subcommand in getattr(command, "commands", {}).items():
        yield from _commands(subcommand, *names, name)


@pytest.mark.parametrize("words", list(_commands(get_command(app))), ids=" ".join)
def test_help_fits_80_columns(words: tuple[str, ...]) -> None:
    text = invoke(*words, "--help").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search("<(path|int|float|str|list)", text)  # types, where an engineer expects PATH or N
