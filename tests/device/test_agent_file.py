from __future__ import annotations

import ast
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rexport.deploy.agent_file import agent_bytes
from tests.device._vendor import write

if TYPE_CHECKING:
    from tests.faults.vendor import Vendor

_SOURCES = sorted((Path(__file__).parents[2] / "exporter" / "device").glob("*.py"))
_AFTER_3_8 = {
    *(
        "removeprefix",
        "removesuffix",
        "readlink",
        "is_relative_to",
        "with_stem",
        "file_digest",
        "pairwise",
        "to_thread",
    ),
    *("hardlink_to", "walk", "bit_count", "batched", "cache", "tomllib", "StrEnum", "UTC", "zip_strict"),
}
_IN_THE_WORKER = {"_backends.py", "_pictures.py", "_worker.py"}
_PYTHONS = ("python3.8", "python3.9", "python3.10", "python3.12", "python3.13", "python3.14")


def test_it_is_always_the_same() -> None:
    assert agent_bytes() == agent_bytes()
    with zipfile.ZipFile(io.BytesIO(agent_bytes())) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        assert {f"rexport_agent/{file.name}" for file in _SOURCES} - set(names) == {"rexport_agent/__main__.py"}
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        for name in names[1:]:
            assert archive.read(name).decode() == (_SOURCES[0].parent / Path(name).name).read_text()


@pytest.mark.parametrize("file", _SOURCES, ids=lambda file: file.name)
def test_it_is_python_3_8_and_the_standard_library(file: Path) -> None:
    tree = ast.parse(file.read_text(), feature_version=(3, 8))
    allowed = set(sys.stdlib_module_names) | ({"numpy", "PIL"} if file.name in _IN_THE_WORKER else set())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert str(node.module).split(".")[0] in allowed, node.module
        elif isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.Attribute):
            assert node.attr not in _AFTER_3_8 or ast.unparse(node.value) == "os"
        elif isinstance(node, ast.keyword):
            assert node.arg not in {"kw_only", "slots", "strict"}
    for node in tree.body:  # at the module's level, nothing but the standard library
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert "numpy" not in ast.unparse(node)


def _version_of(python: str) -> str | None:
    found = shutil.which(python)
    if found is None:
        return None
    done = subprocess.run([found, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


@pytest.mark.slow
@pytest.mark.parametrize("python", _PYTHONS)
def test_other_pythons_run_it(python: str, agent_file: Path, tmp_path: Path, vendor: Vendor) -> None:
    """All of it but the self-check, for which they have no runtime."""
    executable = _version_of(python)
    if executable is None:
        pytest.skip(f"there is no {python} on the PATH")

    def run(*arguments: str | Path) -> tuple[int, dict[str, object]]:
        command = [executable, agent_file, "--root", tmp_path / "root", "--json", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout)

    (tmp_path / "key.pem").write_bytes(vendor.key.public_pem())
    assert run("key", "add", tmp_path / "key.pem")[0] == 0
    code, document = run("install", write(vendor.bundle(), tmp_path / "b.rxb"))
    assert (code, document["kind"]) in ((5, "UnusableError"), (0, None))
    assert "onnxruntime" in str(document["error"])
    assert run("status")[1]["active"] is None


@pytest.mark.slow
def test_help_and_usage(agent_file: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, agent_file, *arguments], capture_output=True, text=True)

    verbs = run("--help").stdout
    for verb in ("install", "serve-once", "status", "run", "check", "rollback", "gc", "key", "version"):
        assert f"    {verb} " in verbs or f"    {verb}\n" in verbs
    assert run().returncode == run("install").returncode == run("no-such-verb").returncode == 2
    assert run("install", "/no/such.rxb", "--root", "/tmp/none").returncode == 2
    assert not Path("/tmp/none").exists()


def test_no_runtime_and_no_numpy_outside_the_worker(agent_file: Path, tmp_path: Path) -> None:
    seen = subprocess.run(
        [sys.executable, "-X", "importtime", agent_file, "status", "--root", tmp_path], capture_output=True, text=True
    )
    assert seen.returncode == 0
    assert not [line for line in seen.stderr.splitlines() if line.endswith(("numpy", "onnxruntime", "rexport"))]
