"""No command writes what it reads, and a name that does not exist is a slip of typing: nothing is done at all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.cli._run import invoke

if TYPE_CHECKING:
    from pathlib import Path

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
    "bench --settings p.toml -o p.toml",
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
    "tune m-tuned.onnx -o m.toml",
    "tune m.onnx --data x.npy -o x.npy",
    "train cifar_resnet8 --data pictures --weights w.safetensors -o w.safetensors",
    "train cifar_resnet8 --data pictures --weights w.safetensors.resume -o w.safetensors",
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


_MISSING = [  # "gone" in each is a name of which there is no file
    *(f"onnx cifar_resnet8 -o new.onnx {option}" for option in ("--weights gone", "--class-names gone")),
    "onnx cifar_resnet8 -o new.onnx --precision fp16 --data gone",
    "fuse gone.onnx -o new.onnx",
    "quantize gone.onnx --data x.npy -o new.onnx",
    "quantize m.onnx --data gone -o new.onnx",
    "quantize m.onnx --table t.json --table gone.json -o new.onnx",
    "quantize m.onnx --data x.npy --eval-data gone -o new.onnx",
    "eval gone.onnx --data x.npy",
    "eval gone.engine --data x.npy",
    *(f"eval m.onnx {options}" for options in ("--data gone", "--data x.npy --reference gone.onnx")),
    "eval cifar_resnet8 --weights gone.pt --data x.npy",
    *(
        f"predict {words}"
        for words in ("gone.onnx pictures", "m.onnx gone.png", "cifar_resnet8 --weights gone.pt x.npy")
    ),
    *(f"bench {words}" for words in ("gone.onnx", "m.onnx --data gone", "m.onnx --compare gone", "--settings gone")),
    *(f"engine {words} -o new.engine" for words in ("gone.onnx", "m.onnx --refit gone.engine")),
    *(f"tune {words} -o new.toml" for words in ("gone.onnx", "m.onnx --data gone", "m.onnx --eval-data gone")),
    *(f"train cifar_resnet8 -o new.safetensors {words}" for words in ("--data gone", "--data pictures --test gone")),
    "train cifar_resnet8 --data pictures --weights gone.pt -o new.safetensors",
    *(f"inspect {words}" for words in ("gone", "folder --public-key gone.pem")),
    "bundle gone.onnx --key k.pem --version 1",
    "bundle m.onnx --key gone.pem --version 1",
    *(
        f"bundle m.onnx --key k.pem --version 1 --{option} gone"
        for option in ("engine", "table", "profile", "classes", "golden")
    ),
    "deploy gone.rxb pi@camera",
    *(f"deploy m.onnx pi@camera --{option} gone" for option in ("trust", "inventory", "identity", "known-hosts")),
    *(
        f"devices {verb} pi@camera --{option} gone"
        for verb in ("status", "rollback")
        for option in ("inventory", "identity", "known-hosts")
    ),
]


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files with nothing in them that could be read, which is the working directory."""
    names = "m.onnx x.npy w.pt w.safetensors w.safetensors.resume t.json t2.json p.toml names.txt k.pem m.engine"
    for name in (*names.split(), "m-tuned.onnx", "m.engine.json", "pictures/a/1.png", "folder/manifest.json"):
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


@pytest.mark.parametrize("command", _MISSING)
def test_a_name_that_does_not_exist_is_exit_code_2(command: str, folder: Path) -> None:
    before = _files(folder)
    result = invoke(*command.split())
    assert result.exit_code == 2, result.output
    assert re.search(r"^error: gone\S* does not\s+exist;", result.stderr, re.MULTILINE)
    assert _files(folder) == before


def test_what_exists_and_is_not_usable_is_exit_code_1(folder: Path) -> None:
    result = invoke("fuse", "m.onnx", "-o", "new.onnx")
    assert result.exit_code == 1
    assert "is not an ONNX file" in result.stderr


def test_the_nearest_name_is_suggested(folder: Path) -> None:
    result = invoke("inspect", "w.safetensor")
    assert "Did you mean w.safetensors?" in " ".join(result.stderr.split())
    result = invoke("quantize", "resnet50", "--data", "x.npy", "-o", "new.onnx")
    assert "`rexport onnx resnet50 -o resnet50.onnx`" in " ".join(result.stderr.split())


def test_a_link_to_the_model_is_the_model(folder: Path) -> None:
    (folder / "link.onnx").symlink_to("m.onnx")
    result = invoke("quantize", "link.onnx", "--data", "x.npy", "-o", "./m.onnx")
    assert result.exit_code == 2
    assert "m.onnx is the same file as link.onnx" in result.stderr
