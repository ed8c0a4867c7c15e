"""No command writes what it reads: each refuses before it does anything, and leaves every file as it was."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import pytest

from rexport._errors import UsageError
from rexport.cli import app
from rexport.cli._paths import READ, WRITE, Reads, ReadsImages, Writes, kept_apart
from tests.cli._run import invoke

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import typer

_ROLES = (Reads, ReadsImages, Writes)
_WORDS = {  # parameters whose text is never the name of a file here
    "address", "addresses", "backend", "batch", "calibrator", "device", "expires", "features", "group", "head",
    "machine", "mean", "name", "network", "on", "only", "precision", "python", "recipe", "regroup", "result", "root",
    "runtime", "scales", "scenario", "skip", "sm", "std", "target", "target_system", "threads", "workers",
}  # fmt: skip

_COMMANDS = [  # each would destroy what it reads, or write one file twice
    "onnx cifar_resnet8 --weights w.pt -o w.pt",
    "onnx cifar_resnet8 --class-names names.txt -o names.txt",
    "onnx cifar_resnet8 --precision fp16 --data pictures -o pictures/a/1.png",
    "fuse m.onnx -o m.onnx",
    "quantize m.onnx --data x.npy -o m.onnx",
    "quantize m.onnx --data x.npy -o x.npy",
    "quantize m.onnx --table t.json -o t.json",
    "quantize m.onnx --table t.json --table t2.json -o t2.json",
    "quantize m.onnx --data x.npy --save-table m.onnx -o new.onnx",
    "quantize m.onnx --data x.npy --save-table new -o new",
    "quantize m.onnx --table t.json --save-table t.json -o new.onnx",
    "quantize m.onnx --data pictures --eval-data pictures -o pictures/a/1.png",
    "bench m.onnx -o m.onnx",
    "bench cifar_resnet8 m.onnx -o m.onnx",
    "bench m.onnx --report m.onnx",
    "bench m.onnx --markdown m.onnx",
    "bench m.onnx --compare t.json -o t.json",
    "bench m.onnx --compare t.json --report t.json",
    "bench m.onnx -o new --markdown new",
    "bench m.onnx --report new --markdown ./new",
    "bench --profile p.toml -o p.toml",
    "bench m.engine -o m.engine.json",
    "bench m.onnx --data pictures -o pictures/a/1.png",
    "engine m.onnx -o m.onnx --backend onnxruntime",
    "engine m.onnx -o new.engine --timing-cache m.onnx",
    "engine m.onnx -o new.engine --timing-cache new.engine",
    "engine m.onnx -o new.engine --timing-cache new.engine.json",
    "engine m.onnx --refit m.engine -o m.engine",
    "tune m.onnx -o m.onnx",
    "tune m.onnx -o new.toml --model-out m.onnx",
    "tune m.onnx -o new.toml --model-out new.toml",
    "tune m.onnx -o m-tuned.onnx",
    "tune m.onnx --data x.npy -o x.npy",
    "train cifar_resnet8 --data pictures --weights w.safetensors -o w.safetensors",
    "train cifar_resnet8 --data pictures --weights w.safetensors.resume -o w.safetensors",
    "train cifar_resnet8 --data pictures --test pictures -o pictures/a/1.png",
    "bundle m.onnx --key k.pem --version 1 -o m.onnx",
    "bundle m.onnx --key k.pem --version 1 -o k.pem",
    "bundle m.onnx --key k.pem --version 1 --engine m.engine -o m.engine",
    "bundle m.onnx --key k.pem --version 1 --table t.json -o t.json",
    "bundle m.onnx --key k.pem --version 1 --profile p.toml -o p.toml",
    "bundle m.onnx --key k.pem --version 1 --classes names.txt -o names.txt",
    "bundle m.onnx --key k.pem --version 1 --golden x.npy -o x.npy",
    "bundle m.onnx --version 1 --new-key new.pem -o new.pub.pem",
    "bundle m.onnx --version 1 --new-key m.onnx",
    "bundle m.onnx --key k.pem --version 1 --triton new -o new",
    "deploy folder --ansible folder",
    "deploy folder --mender folder/out",
    "deploy m.onnx --inventory p.toml --trust k.pem --mender k.pem",
]


def _commands(group: typer.Typer = app) -> Iterator[Callable[..., Any]]:
    for info in group.registered_commands:
        assert info.callback is not None
        yield info.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _commands(inner.typer_instance)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files with nothing in them that could be read, which is the working directory."""
    names = "m.onnx x.npy w.pt w.safetensors w.safetensors.resume t.json t2.json p.toml names.txt k.pem m.engine"
    for name in (*names.split(), "m.engine.json", "pictures/a/1.png", "folder/manifest.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", _COMMANDS)
def test_what_is_read_is_not_written(command: str, folder: Path) -> None:
    before = _files(folder)
    result = invoke(*command.split())
    assert result.exit_code == 2, result.output
    (sentence,) = result.stderr.splitlines()
    assert sentence.endswith((" name another file.", " name two files.", " name another place."))
    assert _files(folder) == before


def test_a_link_to_the_model_is_the_model(folder: Path) -> None:
    (folder / "link.onnx").symlink_to("m.onnx")
    result = invoke("quantize", "link.onnx", "--data", "x.npy", "-o", "./m.onnx")
    assert result.exit_code == 2
    assert "m.onnx is the same file as link.onnx" in result.stderr


def _a_command(
    models: Annotated[list[str], READ], output: Annotated[Path | None, WRITE], markdown: Annotated[str, WRITE]
) -> tuple[list[str], Path | None, str]:
    return models, output, markdown


def test_text_that_names_no_file_is_not_read(folder: Path) -> None:
    """A network's name stays one where a folder is called so, and - is the terminal."""
    (folder / "resnet18").mkdir()
    values = {"models": ["resnet18", "-"], "output": Path("resnet18/new"), "markdown": "-"}
    assert kept_apart(_a_command)(**values) == tuple(values.values())
    with pytest.raises(UsageError):
        kept_apart(_a_command)(models=["resnet18", "m.onnx"], output=None, markdown="m.onnx")


@pytest.mark.parametrize("command", list(_commands()), ids=lambda command: command.__name__)
def test_every_parameter_that_may_name_a_file_says_what_becomes_of_it(command: Callable[..., Any]) -> None:
    hints = get_type_hints(inspect.unwrap(command), include_extras=True)
    for name, hint in hints.items():
        roles = [role for role in getattr(hint, "__metadata__", ()) if isinstance(role, _ROLES)]
        kinds = str(getattr(hint, "__origin__", hint))
        if "Path" in kinds or ("str" in kinds and name not in _WORDS):
            assert len(roles) == 1, f"{name}: mark it as READ, READ_IMAGES or WRITE"
        else:
            assert not roles, f"{name} names no file"


@pytest.mark.parametrize("command", list(_commands()), ids=lambda command: command.__name__)
def test_every_command_is_checked(command: Callable[..., Any]) -> None:
    assert inspect.unwrap(command) is not command
