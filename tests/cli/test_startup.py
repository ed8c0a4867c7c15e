"""Starting the command costs next to nothing, whatever the packages behind it weigh."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rexport.cli import app
from tests.cli._run import invoke

_HEAVY = (
    *("torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "numpy", "PIL", "sklearn", "safetensors"),
    *("rich", "asyncio", "asyncssh", "cryptography", "rexport.models"),
)
_COMMANDS = sorted(command.name for command in app.registered_commands if command.name)


def _loaded_by(*commands: str) -> dict[str, list[str]]:
    """Run one command after the other in a fresh process, and return what of the heavy is loaded after each."""
    code = (
        "import json, sys\n"
        "from rexport.cli import main\n"
        "loaded = {}\n"
        f"for command in {commands!r}:\n"
        "    sys.argv = ['rexport', *command.split()]\n"
        "    try:\n        main()\n    except SystemExit:\n        pass\n"
        f"    loaded[command] = [name for name in {_HEAVY!r} if name in sys.modules]\n"
        "print()\n"
        "print(json.dumps(loaded))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return loaded


@pytest.mark.slow
def test_help_loads_nothing_heavy() -> None:
    commands = ("", "devices", "devices status", *_COMMANDS)
    commands = ("--version", *(f"{command} --help".strip() for command in commands))
    assert _loaded_by(*commands) == {command: [] for command in commands}


@pytest.mark.slow
def test_the_check_sees_what_is_loaded() -> None:
    command = "fuse missing.onnx -o fused.onnx"
    assert "numpy" in _loaded_by(command)[command]


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"Usage: rexport {command}" in result.output


def test_no_arguments_show_the_help() -> None:
    assert "Commands:" in invoke().output
