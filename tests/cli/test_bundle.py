"""The command: a bundle in one line, and every mistake in a sentence, with nothing written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rexport._errors import UsageError
from rexport.cli.bundle import parse_expiry, parse_runtimes
from rexport.deploy import container
from rexport.deploy.manifest import from_bytes
from rexport.deploy.signing import load_public_key, new_key_pair
from rexport.device._manifest import Limits
from rexport.model_file import Metadata, save
from tests.cli._run import invoke, rexport, run
from tests.deploy._bundles import classifier, saved


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model and a key pair."""
    monkeypatch.chdir(tmp_path)
    saved(tmp_path)
    new_key_pair(Path("k.pem"))
    return tmp_path


@pytest.mark.slow
def test_from_nothing_to_a_bundle_that_openssl_verifies(folder: Path) -> None:
    done = rexport("bundle", "m.onnx", "--new-key", "private.pem", "--version", "3", "-o", "b", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == [
        "private.pem: the private key; whoever has it can sign for your devices",
        "private.pub.pem: the public key, for devices",
    ]
    assert "b: m 3, 0.00 MiB, expires on" in done.stdout
    assert "for linux on aarch64, x86_64; runs on onnxruntime>=1.17" in done.stdout
    command = ["openssl", "dgst", "-sha256", "-verify", "private.pub.pem", "-signature", "b/manifest.sig"]
    verified = subprocess.run([*command, "b/manifest.json"], cwd=folder, capture_output=True, text=True)
    assert verified.stdout == "Verified OK\n"
    assert "m 3, " in run("inspect b --public-key private.pub.pem")
    assert invoke("inspect", "b", "--public-key", "k.pub.pem").exit_code == 3


def test_every_option_is_in_the_manifest(folder: Path) -> None:
    Path("names").write_text("a\nb\nc\nd\n")
    command = (
        "bundle m.onnx --key k.pem --name net --version 7 --expires 2999-12-31 --classes names --target-system linux "
        "--machine x86_64,aarch64 --runtime onnxruntime>=1.20,<2 --min-sqnr 20 --max-latency 250 --max-seconds 60 "
        "--max-memory 512 --openssf --json"
    )
    document = json.loads(run(command))
    assert document["schema"] == "rexport.bundle.made/1"
    assert document["file"] == "net-7.rxb"
    contents = container.read(Path("net-7.rxb"))
    load_public_key(Path("k.pub.pem")).verify(contents.manifest, contents.signature)
    assert document["manifest"] == json.loads(contents.manifest)
    manifest = from_bytes(contents.manifest)
    assert (manifest.name, manifest.version) == ("net", 7)
    assert manifest.expires == datetime(2999, 12, 31, tzinfo=UTC)
    assert manifest.target.runtimes == {"onnxruntime": (">=1.20", "<2")}
    assert manifest.target.machines == ("aarch64", "x86_64")
    assert manifest.golden.min_sqnr_db == 20
    assert manifest.limits == Limits(latency_ms=250.0, seconds=60, memory_mib=512)
    assert json.loads(contents.files["classes.json"]) == ["a", "b", "c", "d"]
    assert "model.sig" in contents.files


def test_the_same_command_writes_the_same_bytes(folder: Path) -> None:
    for name in ("one.rxb", "other.rxb"):
        printed = run(f"bundle m.onnx --key k.pem --version 1 --expires never -o {name}")
        assert printed.startswith(f"{name}: m 1, 0.00 MiB, never expires\n")
    assert Path("one.rxb").read_bytes() == Path("other.rxb").read_bytes()
    assert from_bytes(container.read(Path("one.rxb")).manifest).expires is None


def test_a_repository_for_triton_needs_no_key(folder: Path) -> None:
    assert "serve it with `tritonserver --model-repository=models`" in run(
        "bundle m.onnx --triton models --triton-batch 4"
    )
    assert "max_batch_size: 4" in Path("models/m/config.pbtxt").read_text()
    assert not list(folder.glob("*.rxb"))


def test_how_pictures_become_the_input_can_be_stated(folder: Path) -> None:
    model = classifier()
    Metadata().write_to(model)
    save(model, Path("other.onnx"))
    run("bundle other.onnx --key k.pem --version 1 --mean 0,0,0 --std 1,1,1")
    manifest = from_bytes(container.read(Path("other-1.rxb")).manifest)
    assert manifest.preprocessing["mean"] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("", 2, "Name an ONNX file to bundle, or make a key pair"),
        ("m.onnx --version 1", 2, "name your private key with --key"),
        ("m.onnx --key k.pem", 2, "State the bundle's --version"),
        ("m.onnx --key k.pem --version 0", 1, "0 is not a valid version"),
        ("m.onnx --key k.pem --version 1 --name Net", 1, "'Net' is not a valid name"),
        ("m.onnx --key k.pem --version 1 --expires 2020-01-01", 1, "which is in the past"),
        ("m.onnx --key k.pem --version 1 --expires soon", 2, "--expires takes a date such as"),
        ("m.onnx --key k.pem --version 1 --runtime >=1", 2, "--runtime takes a name and versions"),
        ("m.onnx --key k.pem --version 1 --runtime abacus", 2, "no runtime 'abacus'"),
        ("m.onnx --key k.pub.pem --version 1", 1, "is a public key"),
        ("m.onnx --key none.pem --version 1", 2, "none.pem does not exist"),
        ("none.onnx --key k.pem --version 1", 2, "none.onnx does not exist"),
        ("k.pem --key k.pem --version 1", 1, "is not an ONNX file"),
        ("m.onnx --key k.pem --version 1 -o .", 1, "is not empty; name another folder"),
        ("m.onnx --key k.pem --version 1 -o none/b.rxb", 1, "mkdir -p none"),
        ("m.onnx --key k.pem --new-key n.pem --version 1", 2, "pass only one of them"),
        ("--new-key k.pem", 1, "never overwritten"),
        ("m.onnx --new-key n.pem", 2, "State the bundle's --version"),
        ("none.onnx --new-key n.pem --version 1", 2, "none.onnx does not exist"),
        ("m.onnx --triton . -o b.rxb", 2, "A bundle is signed"),
        ("m.onnx --key k.pem --version 1 --engine k.pem", 1, "k.pem"),
        ("m.onnx --key k.pem --version 1 --golden k.pem", 1, "not an image"),
        ("m.onnx --key k.pem --version 1 --table m.onnx", 1, "it is not text"),
        ("m.onnx --key k.pem --version 1 --profile k.pem", 1, "is not TOML"),
        ("m.onnx --key k.pem --version 1 --classes none", 2, "none does not exist"),
        ("m.onnx --key k.pem --version 1 --max-seconds 0", 1, "limits.seconds"),
    ],
)
def test_mistakes_write_nothing(folder: Path, arguments: str, code: int, words: str) -> None:
    before = sorted(folder.rglob("*"))
    result = invoke("bundle", *arguments.split())
    assert (result.exit_code, result.exception is None or isinstance(result.exception, SystemExit)) == (code, True)
    assert words in " ".join(result.stderr.split())
    assert sorted(folder.rglob("*")) == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_can_not_be_written_to(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0o500)
    result = invoke("bundle", "m.onnx", "--key", "k.pem", "--version", "1", "-o", "closed/b.rxb")
    assert (result.exit_code, "can't be written to" in result.stderr) == (1, True)


def test_without_cryptography_it_says_what_to_install(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "cryptography.py").write_text("raise ImportError('not installed')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "hidden")}

    command = [sys.executable, "-m", "rexport", "bundle", "--new-key", "n.pem"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 5
    assert "pip install 'rexport[deploy]'" in done.stderr
    assert not Path("n.pem").exists()


def test_expiry() -> None:
    now = datetime(2026, 11, 28, 13, 5, tzinfo=UTC)
    assert parse_expiry("30d", now) == datetime(2026, 12, 29, tzinfo=UTC)
    assert parse_expiry("2w", now) == datetime(2026, 12, 13, tzinfo=UTC)
    assert parse_expiry("2027-01-02", now) == datetime(2027, 1, 2, tzinfo=UTC)
    assert parse_expiry("never", now) is None
    for text in ("", "30", "d", "2027-13-01", "99999999d", "-1d"):
        with pytest.raises(UsageError):
            parse_expiry(text, now)


def test_runtimes() -> None:
    assert parse_runtimes(["onnxruntime >= 1.20, <2", "tensorrt"]) == {"onnxruntime": (">=1.20", "<2"), "tensorrt": ()}
    for text in ("", "1.20", "onnxruntime 1.20", "onnxruntime>=1,,<2"):
        with pytest.raises(UsageError):
            parse_runtimes([text])
