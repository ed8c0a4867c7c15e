"""What the README shows is what happens: its tour is run, and the output compared but for times and sizes.

The two set-up commands are run by ``.ci/run``, in fresh virtual environments.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rexport.benchmarks import bench
from tests.cli._run import run

if TYPE_CHECKING:
    from rexport.benchmarks import BenchResult
    from tests.cli.conftest import Quickstart

_ROOT = Path(__file__).parents[2]
_README = (_ROOT / "README.md").read_text()
# What stands in a number's place may differ from machine to machine; the words may not.
_NUMBER = re.compile(r"[+−-]?\d[\d.,]*(?:e[+-]?\d+)?")


def _shape(text: str) -> list[str]:
    """Return the lines of an output without its numbers, spaces and rules.

    A dash is a number that is missing, as a percentile is where a slow machine made too few calls for it.
    """
    plain = (_NUMBER.sub("#", line.replace("─", "")).split() for line in text.splitlines())
    lines = (" ".join("#" if word == "–" else word for word in words) for words in plain)
    return [line for line in lines if line]


def _tour() -> list[tuple[str, str]]:
    """Return the commands of the README's consoles, each with the output it shows."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"^```console\n(.*?)^```", _README, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


@pytest.mark.slow
def test_the_tour(quickstart: Quickstart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short_bench(*models: Any, **options: Any) -> BenchResult:
        return bench(*models, **options | {"min_seconds": 0.1})

    monkeypatch.setattr("rexport.benchmarks.bench", short_bench)
    monkeypatch.chdir(tmp_path)
    Path("rexport-quickstart").symlink_to(quickstart.folder / "rexport-quickstart")
    tour = _tour()
    assert len(tour) == 5
    for command, shown in tour:
        printed = _shape(run(command.removeprefix("rexport ")))
        machine = re.compile(r"onnxruntime #|^target x#")  # the lines that depend on the processor
        assert [line for line in printed if not machine.search(line)] == [
            line for line in _shape(shown) if not machine.search(line)
        ], command


def test_the_command_is_installed() -> None:
    done = subprocess.run([Path(sys.executable).with_name("rexport"), "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("rexport "), done.stderr


def test_a_changed_word_is_seen() -> None:
    assert _shape("top-1  99.17 %  (357 right)") == _shape("top-1 98.2 % (353 right)")
    assert _shape("top-1  99.17 %") != _shape("top-5  99.17 %".replace("top-5", "agreement"))


def test_the_two_commands_are_where_ci_looks_for_them() -> None:
    for name in ("quickstart", "test"):
        block = re.search(rf"^<!-- {name} -->\n```sh\n(.+)\n```$", _README, re.MULTILINE)
        assert block is not None
        assert "pip install" in block[1]
    script = (_ROOT / ".ci" / "run").read_text()
    assert "readme_block test" in script
    assert "readme_block quickstart" in script


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", _README)
    assert links
    assert [link for link in links if not (_ROOT / link).exists()] == []


def test_every_folder_is_named() -> None:
    for folder in ("exporter", "calibration", "benchmarks", "tests", "docs"):
        assert f"`{folder}/`" in _README
