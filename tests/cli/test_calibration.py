"""Where ranges come from: images, tables, workers; and what users get wrong about them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from rexport.calibration import CalibrationTable, TensorStatistics
from rexport.calibration.workers import choose_workers
from rexport.model_file import save
from tests._graphs import convolution, graph
from tests.cli._run import interrupted, invoke, run, run_json

_BODY = """
    a = Conv<pads = [1, 1, 1, 1]>(x, w1) r = Relu(a) b = Conv<pads = [1, 1, 1, 1]>(r, w2) c = Relu(b)
    p = GlobalAveragePool(c) f = Flatten(p) y = Gemm<transB = 1>(f, wf)
"""


def _weights() -> dict[str, np.ndarray]:
    return {"w1": convolution(8, 3), "w2": convolution(8, 8), "wf": convolution(5, 8, 1)[:, :, 0, 0]}


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a network, others of its kind, and images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "cache"))
    save(graph(_BODY, _weights(), outputs="float[N, 5] y"), Path("m.onnx"))
    save(graph(_BODY, {**_weights(), "w2": convolution(8, 8, seed=1)}, outputs="float[N, 5] y"), Path("other.onnx"))
    broken = _weights()["w2"].copy()
    broken[3, 2, 1, 0] = np.nan
    save(graph(_BODY, {**_weights(), "w2": broken}, outputs="float[N, 5] y"), Path("nan.onnx"))
    images = np.random.default_rng(0).standard_normal((100, 3, 16, 16)).astype(np.float32)
    np.save("images.npy", images)
    np.save("first.npy", images[:40])
    np.save("rest.npy", images[40:])
    np.save("one.npy", images[:1])
    np.save("small.npy", images[:, :, :8, :8])
    return tmp_path


def _network_in(path: str) -> bytes:
    """Return the graph of a file without its metadata, which says what the file was proven on."""
    return onnx.load(path).graph.SerializeToString(deterministic=True)


@pytest.mark.slow
def test_a_table_gives_the_same_file_as_its_images(workshop: Path) -> None:
    said = run("quantize m.onnx --data images.npy -o a.onnx --save-table t.json --calibrator entropy --recover none")
    assert "calibrated on 100 images, entropy" in said
    assert "t.json: the calibration table" in said
    run("quantize m.onnx --table t.json -o b.onnx --calibrator entropy --recover none")
    assert _network_in("a.onnx") == _network_in("b.onnx")
    table = CalibrationTable.from_json(Path("t.json").read_text())
    for calibrator in ("minmax", "average", "percentile", "percentile:99", "mse"):
        document = run_json(f"quantize m.onnx --table t.json -o {calibrator[:6]}.onnx --calibrator {calibrator}")
        assert document["calibrator"] == calibrator.replace(
            "percentile", "percentile:99.99", calibrator == "percentile"
        )
        assert (document["images"], document["data_sha256"]) == (100, table.data_sha256)


@pytest.mark.slow
def test_tables_of_parts_add_up_to_that_of_the_whole(workshop: Path) -> None:
    run("quantize m.onnx --data images.npy -o whole.onnx --save-table whole.json --recover equalize")
    run("quantize m.onnx --data first.npy -o a.onnx --save-table first.json")
    run("quantize m.onnx --data rest.npy -o b.onnx --save-table rest.json")
    run("quantize m.onnx --table rest.json --table first.json -o c.onnx --save-table c.json")
    # 40 images are five batches of 8, so that none is of other images
    assert Path("whole.json").read_text() == Path("c.json").read_text()
    assert _network_in("whole.onnx") == _network_in("c.onnx")


@pytest.mark.slow
def test_workers_make_no_difference(workshop: Path) -> None:
    run("quantize m.onnx --data images.npy -o a.onnx --save-table a.json --threads 1")
    run("quantize m.onnx --data images.npy -o b.onnx --save-table b.json --workers 2 --threads 1")
    assert Path("a.json").read_bytes() == Path("b.json").read_bytes()
    assert _network_in("a.onnx") == _network_in("b.onnx")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--engine local", "local"),
        ("--engine processes", "2"),
        ("--engine processes --workers 3", "3"),
        ("--engine ray", "ray"),
        ("--engine ray --workers 8 --address auto", "ray:auto,8"),
        ("--engine ray --address head:6379", "ray:head:6379"),
        ("--engine ray --address ray://head:10001", "ray://head:10001"),
    ],
)
def test_older_options_say_what_to_type(workshop: Path, old: str, new: str) -> None:
    # without a model nothing runs
    result = invoke(*f"quantize missing.onnx --data images.npy -o out.onnx {old}".split())
    assert f"type --workers {new} instead." in " ".join(result.stderr.split())
    assert choose_workers(new)


_TABLE = [
    ("quantize m.onnx --data images.npy -o out.onnx --calibrator kl", 2, "no calibrator 'kl'; choose one of minmax"),
    ("quantize m.onnx --data images.npy -o out.onnx --calibrator percentile:3", 2, "above 50 and at most 100"),
    ("quantize m.onnx --data images.npy -o out.onnx --workers two", 2, "--workers two: choose local, a number"),
    ("quantize m.onnx --data images.npy -o out.onnx --address auto", 2, "type --workers ray:auto instead"),
    ("quantize m.onnx --data images.npy -o out.onnx --save-table no/t.json", 1, "mkdir -p no"),
    ("quantize m.onnx --data small.npy -o out.onnx", 1, "float32 of shape (100, 3, 8, 8); the model needs"),
    ("quantize nan.onnx --data images.npy -o out.onnx", 1, "The tensor 'c' takes values that are not finite"),
    ("quantize m.onnx --table missing.json -o out.onnx", 2, "missing.json does not exist"),
    ("quantize m.onnx --table m.onnx -o out.onnx", 1, "m.onnx can't be read: it is not text"),
    ("quantize m.onnx --table broken.json -o out.onnx", 1, "broken.json: This is not a calibration table"),
    ("quantize m.onnx --table old.json -o out.onnx", 1, "old.json: This calibration table is of an older form"),
    ("quantize m.onnx --table table.json --table t2.json -o out.onnx", 2, "table.json is the calibration table of ano"),
]


@pytest.mark.parametrize(("command", "exit_code", "message"), _TABLE, ids=[row[2] for row in _TABLE])
def test_mistakes_are_explained(workshop: Path, command: str, exit_code: int, message: str) -> None:
    seen = TensorStatistics.of(np.ones((1, 2, 3), np.float32))
    other = CalibrationTable(model_sha256="ab" * 32, images=1, tensors={"x": seen})
    Path("table.json").write_text(other.to_json())
    Path("broken.json").write_text("{")
    Path("t2.json").write_text("{}")
    Path("old.json").write_text(json.dumps({"schema": "rexport.calibration/1"}))
    result = invoke(*command.split())
    assert (result.exit_code, message in " ".join(result.stderr.split())) == (exit_code, True), result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("out.onnx").exists()


@pytest.mark.slow
def test_a_table_of_another_model_is_refused(workshop: Path) -> None:
    run("quantize other.onnx --data images.npy -o a.onnx --save-table other.json")
    result = invoke("quantize", "m.onnx", "--table", "other.json", "-o", "out.onnx")
    assert result.exit_code == 2
    assert "other.json is the calibration table of another model" in " ".join(result.stderr.split())


@pytest.mark.slow
def test_a_single_image_is_enough_but_remarked_on(workshop: Path) -> None:
    for calibrator in ("minmax", "average", "percentile", "entropy", "mse"):
        command = f"quantize m.onnx --data one.npy -o one.onnx --calibrator {calibrator}"
        result = invoke(*command.split())
        assert result.exit_code == 0, result.stderr
        assert "only 1 images to calibrate with" in result.stderr


def _ends(group: int) -> bool:
    """Say whether all processes of a group end by themselves within seconds; Python's own take a moment."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_ctrl_c_ends_all_processes(workshop: Path) -> None:
    np.save("many.npy", np.zeros((30_000, 3, 16, 16), np.float32))
    command = [sys.executable, "-m", "rexport", "quantize", "m.onnx", "--data", "many.npy", "--samples", "30000"]
    command += ["-o", "out.onnx", "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while process.poll() is None and len(children.read_text().split()) < 3:  # one is Python's resource tracker
            time.sleep(0.1)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        interrupted(process)
    assert _ends(process.pid)
    assert not Path("out.onnx").exists()
