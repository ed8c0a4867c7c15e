"""``rexport eval``: what it prints, and what it refuses; engines too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from rexport.engine import BuildOptions, build_engine
from rexport.engine_file import BackendName
from rexport.model_file import load, save
from rexport.runtimes.probes import probe
from tests._classifiers import write_classifiers
from tests.cli._run import invoke, run, run_json


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two networks and labelled images (see ``tests._classifiers``)."""
    monkeypatch.chdir(tmp_path)
    write_classifiers(tmp_path)
    return tmp_path


def test_the_first_layer_that_differs_is_named(workshop: Path) -> None:
    printed = run("eval wrong.onnx --data test.npz --reference right.onnx --find-divergence")
    assert "The first layer that differs is c (Conv), which computes c." in printed


def test_without_the_flag_little_agreement_is_noted(workshop: Path) -> None:
    opposite = load(Path("right.onnx"))
    head = opposite.graph.initializers["h"]
    assert head.const_value is not None
    head.const_value = ir.tensor(-head.const_value.numpy(), name="h")
    save(opposite, Path("wrong.onnx"))
    result = invoke("eval", "wrong.onnx", "--data", "test.npz", "--reference", "right.onnx")
    assert result.exit_code == 0
    assert "--find-divergence names the first layer" in " ".join(result.stderr.split())


def test_classes_and_mistakes(workshop: Path) -> None:
    command = "eval right.onnx --data test.npz --per-class --worst 3"
    document = run_json(command)
    confusion = document["confusion"]
    for index, row in enumerate(document["classes"]):
        assert (row["name"], row["images"]) == (str(index), sum(confusion[index]))
        assert (row["right"], row["accuracy"]) == (confusion[index][index], row["right"] / row["images"])
    assert sum(map(sum, confusion)) == document["images"] == 150
    assert all(mistake["image"].startswith("test.npz[") for mistake in document["worst"])
    assert len(document["worst"]) == 3
    assert not {"classes", "confusion", "worst"} & run_json("eval right.onnx --data test.npz").keys()

    classes, confusions, mistakes = run(command).split("\n\n")[1:]
    worst = min(document["classes"], key=lambda row: row["accuracy"])
    assert classes.splitlines()[4].split()[:3] == [worst["name"], f"{100 * worst['accuracy']:.2f}", "%"]
    most = max(count for label, row in enumerate(confusion) for guess, count in enumerate(row) if guess != label)
    assert confusions.splitlines()[4].split()[0] == str(most)
    assert document["worst"][0]["image"] in mistakes.splitlines()[4]


def test_a_report_is_written_beside_what_is_printed(workshop: Path) -> None:
    pytest.importorskip("jinja2", reason="needs pip install 'rexport[report]'")
    for command in ("eval right.onnx --data test.npz", "eval right.onnx --data test.npz --worst 3 --per-class --json"):
        assert run(f"{command} --report r.html") == run(command)
    assert "right.onnx gets" in Path("r.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("eval cifar_resnet8 --weights w.pt --data test.npz --find-divergence", 2, "compares files"),
        ("eval cifar_resnet8 --weights w.pt --data test.npz --reference right.onnx --find-divergence", 2, "compares f"),
        ("eval cifar_resnet8 --weights w.pt --data test.npz --workers 2", 2, "--workers runs ONNX files"),
        ("eval right.onnx --data test.npz --workers processes", 2, "--workers processes: choose local, a number"),
        ("eval right.onnx --data test.npz --on torch", 5, "PyTorch runs networks"),
        (
            "eval right.onnx --data images.npy --reference right.onnx --per-class",
            2,
            "--per-class needs labelled images",
        ),
        ("eval right.onnx --data images.npy --reference right.onnx --worst 3", 2, "--worst needs labelled images"),
        ("eval right.onnx --data test.npz --on openvin", 2, "Did you mean openvino?"),
        ("eval lost.engine --data test.npz", 2, "does not exist"),
    ],
)
def test_what_makes_no_sense_says_why(workshop: Path, command: str, code: int, message: str) -> None:
    Path("w.pt").touch()
    np.save("images.npy", np.load("test.npz")["images"])
    result = invoke(*command.split())
    assert (result.exit_code, message in " ".join(result.stderr.split())) == (code, True), result.stderr


@pytest.mark.slow
def test_an_engine_says_what_it_takes_and_needs_a_gpu(workshop: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'rexport[rtx]' to build engines without a GPU")
    options = BuildOptions(backend=BackendName.RTX, capabilities=(86,))
    build_engine(Path("right.onnx"), options).save(Path("right.engine"))
    asked = invoke("eval", "right.engine", "--data", "test.npz", "--find-divergence")
    assert (asked.exit_code, "--reference right.onnx" in asked.stderr) == (2, True), asked.stderr
    if probe("tensorrt-rtx-engine").usable:
        pytest.skip("there is a GPU; tests marked gpu run engines")
    result = invoke("eval", "right.engine", "--data", "test.npz")
    assert (result.exit_code, "NVIDIA" in result.stderr) == (5, True), result.stderr
    facts = json.loads(Path("right.engine.json").read_text())
    Path("right.engine.json").write_text(json.dumps(facts | {"inputs": [facts["inputs"][0] | {"dtype": "text"}]}))
    broken = invoke("eval", "right.engine", "--data", "test.npz")
    assert (broken.exit_code, "build the engine again" in " ".join(broken.stderr.split())) == (1, True), broken.stderr
