"""``rexport eval --workers``: the same numbers from all of them, and what each can't do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rexport.model_file import save
from tests._graphs import convolution, graph
from tests.cli._run import invoke, run_json

_BODY = "a = Conv<pads = [1, 1, 1, 1]>(x, w) r = Relu(a) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, v)"


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two networks, and labelled images."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    head = random.standard_normal((8, 6)).astype(np.float32)
    for seed, name in enumerate(("a.onnx", "b.onnx")):
        save(graph(_BODY, {"w": convolution(8, 3, seed=seed), "v": head}, outputs="float[N, 6] y"), Path(name))
    images = random.standard_normal((150, 3, 16, 16)).astype(np.float32)
    np.savez("test.npz", images=images, labels=random.integers(0, 6, 150))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "workers",
    ["--workers 1", "--engine processes --workers 3", "--workers ray,2"],
)
def test_workers_make_no_difference(workshop: Path, workers: str) -> None:
    if "ray" in workers:
        pytest.importorskip("ray", reason="needs Ray: pip install 'rexport[ray]'")
    command = "eval a.onnx --data test.npz --reference b.onnx --batch 8 --threads 1"
    local = run_json(command)
    assert (local["images"], local["top1"] is None, local["sqnr_db"] is None) == (150, False, False)
    assert run_json(f"{command} {workers}") == local


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("eval cifar_resnet8 --weights w.pt --data test.npz --workers 2", "--workers runs ONNX files"),
        ("eval a.onnx --data test.npz --workers processes", "--workers processes: choose local, a number"),
    ],
)
def test_options_that_make_no_sense(workshop: Path, command: str, message: str) -> None:
    Path("w.pt").touch()
    result = invoke(*command.split())
    assert (result.exit_code, message in " ".join(result.stderr.split())) == (2, True), result.stderr
