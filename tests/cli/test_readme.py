"""What the README shows is what happens: its commands are run, and the output compared but for times and sizes.

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
from tests.faults.ssh_site import site

if TYPE_CHECKING:
    from rexport.benchmarks import BenchResult
    from tests.cli.conftest import Quickstart

_ROOT = Path(__file__).parents[2]
_README, _TUTORIAL = ((_ROOT / page).read_text() for page in ("README.md", "docs/tutorial.md"))
# What stands in a number's place may differ from machine to machine; the words may not.
_NUMBER = re.compile(r"[+−-]?\d[\d.,]*(?:e[+-]?\d+)?")


def _shape(text: str) -> list[str]:
    """Return the lines of an output without its numbers, spaces and rules.

    A dash is a number that is missing, as a percentile is where a slow machine made too few calls for it.
    """
    plain = (_NUMBER.sub("#", line.replace("─", "")).split() for line in text.splitlines())
    lines = (" ".join("#" if word == "–" else word for word in words) for words in plain)
    return [line for line in lines if line]


def _consoles(text: str) -> dict[str, str]:
    """Return the commands of the consoles in a page, each with the output it shows."""
    commands: dict[str, str] = {}
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            commands[command] = output
    return commands


@pytest.mark.slow
def test_the_four_commands_and_the_tutorial(
    quickstart: Quickstart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short_bench(*models: Any, **options: Any) -> BenchResult:
        return bench(*models, **options | {"min_seconds": 0.1})

    monkeypatch.setattr("rexport.benchmarks.bench", short_bench)
    monkeypatch.chdir(tmp_path)
    Path("rexport-quickstart").symlink_to(quickstart.folder / "rexport-quickstart")
    run("bundle --new-key vendor.pem")
    shown = _consoles(_README)
    tutorial = _consoles(_TUTORIAL)
    del tutorial["rexport bundle --new-key vendor.pem"]
    assert len(shown) == 4
    assert len(tutorial) > 5
    with site(tmp_path, 1) as there:
        device = str(there.device(0))
        access = f" --identity {there.identity} --known-hosts {there.known_hosts} --inventory {there.inventory()}"
        for command in dict.fromkeys((*shown, *tutorial)):
            text = command.removeprefix("rexport ").replace("pi@camera-1", device)
            printed = run(text + (access if text.startswith("deploy") else ""))
            if command in shown:
                # all of the few digits here are calibrated on; of the quickstart's own, enough are left to prove with
                expected = shown[command].replace("held-out pictures", "calibration pictures")
                assert _lines(printed.replace(device, "pi@camera-1")) == _lines(expected), command


def _lines(output: str) -> list[str]:
    """Return the lines as :func:`_shape` does, without those that depend on the processor."""
    return [line for line in _shape(output) if not re.search(r"onnxruntime #|^target x#", line)]


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
