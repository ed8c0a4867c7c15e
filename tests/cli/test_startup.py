"""Starting the command costs next to nothing, whatever the packages behind it weigh."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from rexport.cli import app

_HEAVY = (
    "torch",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "onnxruntime",
    "numpy",
    "PIL",
    "sklearn",
    "safetensors",
    "rich",
)
_COMMANDS = sorted(command.name for command in app.registered_commands if command.name)


def _loaded_by(arguments: list[str]) -> set[str]:
    code = (
        "import sys\n"
        f"sys.argv = ['rexport', *{arguments!r}]\n"
        "from rexport.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('loaded:', *[name for name in {_HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([command, "--help"] for command in _COMMANDS)])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert _loaded_by(arguments) == set()


def test_the_check_sees_what_is_loaded() -> None:
    assert "numpy" in _loaded_by(["fuse", "missing.onnx", "-o", "fused.onnx"])


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Usage: rexport {command}" in result.output


def test_no_arguments_show_the_help() -> None:
    assert "Commands:" in CliRunner().invoke(app, []).output
