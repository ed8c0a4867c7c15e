from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import onnx
import pytest
from PIL import Image

from tests._deep import deep
from tests.cli._run import interrupted, invoke

if TYPE_CHECKING:
    from pathlib import Path

QUICK = ("--min-seconds", "0.05", "--min-calls", "3", "--threads", "1", "--launches", "1")

_TINY = """
    <ir_version: 9, opset_import: ["": 17]>
    tiny (float[N, 3, 8, 8] images) => (float[N, 3] logits) {
        pooled = GlobalAveragePool(images)
        logits = Flatten(pooled)
    }"""


def _rows(printed: str) -> list[str]:
    """Return the lines of the table's rows."""
    return [line for line in printed.splitlines() if line.split()[:1] and line.split()[0].endswith(".onnx")]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(onnx.parser.parse_model(_TINY), tmp_path / "tiny.onnx")
    return tmp_path / "tiny.onnx"


@pytest.mark.slow
def test_the_table_has_what_was_measured_and_the_notes_why_the_rest_was_not(model: Path) -> None:
    result = invoke("bench", model, "--on", "cpu,torch", "--batch", "1,2", *QUICK)
    assert result.exit_code == 0, result.output
    for words in ("img/s", "p50 ms", "speed-up", "95 %", "MiB", "; 1 thread", "1.00"):
        assert words in result.stdout
    assert len(_rows(result.stdout)) == 2
    assert "Fastest at batch 1: tiny.onnx on cpu, " in result.stdout
    for words in ("top-1", "agrees", "compute"):  # no pictures with labels, nothing to compare with, no device
        assert words not in result.stdout
    assert result.stderr.count("does not say which network") == 1  # not once for each batch


@pytest.mark.slow
def test_json_is_the_one_document_on_stdout_and_in_the_file(model: Path, tmp_path: Path) -> None:
    result = invoke("bench", model, "--batch", "2", "--json", "-o", tmp_path / "r.json", *QUICK)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["schema"] == "rexport.bench/1"
    assert json.loads((tmp_path / "r.json").read_text()) == document
    (row,) = document["rows"]
    assert (row["model"], row["runtime"], row["status"]) == (str(model), "cpu", "ok")
    assert (row["batch"], row["threads"]) == (2, 1)
    assert len(row["seconds"]) == sum(row["calls_per_round"]) >= 3
    assert sum(row["rounds_per_launch"]) == len(row["calls_per_round"])
    low, high = row["images_per_second_interval"]
    assert low <= row["images_per_second"] <= high
    assert row["load_seconds"] > 0
    assert row["first_call_seconds"] > 0
    assert row["warm_up_calls"] > 10


@pytest.mark.slow
def test_a_percentile_that_takes_more_calls_is_missing(model: Path) -> None:
    few, many = (
        json.loads(invoke("bench", model, "--batch", "1", "--json", *QUICK, "--min-seconds", "0", *calls).stdout)
        for calls in (("--min-calls", "1"), ("--min-calls", "70"))
    )
    assert [few["rows"][0]["latency_ms"][name] is None for name in ("p50", "p90", "p99")] == [False, True, True]
    assert [many["rows"][0]["latency_ms"][name] is None for name in ("p50", "p90", "p99")] == [False, False, True]


@pytest.mark.slow
def test_a_wrong_model_is_marked_in_the_table_and_in_a_note(model: Path) -> None:
    wrong = onnx.load(model)
    wrong.graph.node[1].op_type = "Neg"  # the logits' signs are changed, and their shape is (N, 3, 1, 1)
    wrong.graph.node.insert(2, onnx.helper.make_node("Flatten", ["negative"], ["logits"]))
    wrong.graph.node[1].output[0] = "negative"
    onnx.save(wrong, model.with_name("wrong.onnx"))
    result = invoke("bench", model, model.with_name("wrong.onnx"), "--batch", "2", *QUICK)
    assert result.exit_code == 0, result.output
    good, bad = _rows(result.stdout)
    assert "100.0 %" in good
    assert "WRONG" not in good
    assert "WRONG" in bad
    assert "wrong.onnx on cpu, batch 2: WRONG: its outputs differ from the first model's: SQNR" in result.stderr


@pytest.mark.slow
def test_top_1_of_pictures_stands_beside_the_speed(tmp_path: Path) -> None:
    """Of red, green and blue pictures, the average of each channel tells which is which."""
    for index, name in enumerate("abc"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for shade in range(3):
            colour = [shade * 20] * 3
            colour[index] = 200
            Image.new("RGB", (8, 8), tuple(colour)).save(tmp_path / "data" / name / f"{shade}.png")
    Image.new("RGB", (8, 8), (0, 200, 0)).save(tmp_path / "data" / "a" / "green.png")  # one that it must get wrong
    path = tmp_path / "tiny.onnx"
    onnx.save(onnx.parser.parse_model(_TINY), path)
    result = invoke("bench", path, "--data", tmp_path / "data", "--batch", "4", "--json", *QUICK)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"][0]["top1"] == 0.9
    assert "90.00 %" in invoke("bench", path, "--data", tmp_path / "data", "--batch", "4", *QUICK).stdout


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.slow
@pytest.mark.parametrize(("sent", "exit_code"), [(signal.SIGINT, 130), *deep((signal.SIGTERM, 143))])
def test_ctrl_c_keeps_what_was_measured(model: Path, tmp_path: Path, sent: signal.Signals, exit_code: int) -> None:
    output = tmp_path / "r.json"
    # the second batch size takes an hour
    program = (
        "import sys; from rexport.benchmarks import suite; from rexport.cli import main; real = suite.measure\n"
        "def measure(jobs, **options):\n"
        "    if jobs[0].shape[0] == 2:\n"
        "        options |= {'min_seconds': 3600.0}\n"
        "        print('second', file=sys.stderr, flush=True)\n"
        "    return real(jobs, **options)\n"
        "suite.measure = measure; main()\n"
    )
    command = [sys.executable, "-c", program, "bench", str(model), "--batch", "1,2", "-o", str(output), *QUICK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while process.stderr.readline() != "second\n":
            assert process.poll() is None
        time.sleep(1.0)
        process.send_signal(sent)
        printed, _ = interrupted(process, exit_code)
    assert "tiny.onnx" in printed
    first, second = json.loads(output.read_text())["rows"]
    assert (first["batch"], first["status"]) == (1, "ok")
    assert second["batch"] == 2
    assert second["status"] == "ok" or "interrupted" in second["reason"]


def test_nothing_measured_is_exit_code_5_with_the_reason(tmp_path: Path) -> None:
    result = invoke("bench", "cifar_resnet20", "--on", "cpu", "--batch", "1", "--json", *QUICK)
    assert result.exit_code == 5
    assert [row["status"] for row in json.loads(result.stdout)["rows"]] == ["unavailable"]
    assert "rexport onnx cifar_resnet20" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cifar_resnet20", "--on", "abacus"), "choose from cpu"),
        (("cifar_resnet20", "--on", "openvno"), "Did you mean openvino?"),
        (("cifar_resnet20", "--batch", "1,many"), "it takes numbers from 1 on, such as"),
        (("missing.onnx",), "does not exist"),
        (("cifar_resnet20", "--timeout", "0"), "--timeout takes"),
        (("cifar_resnet20", "--data", "no-such-folder"), "does not exist"),
    ],
)
def test_a_mistake_is_exit_code_2_and_a_sentence(arguments: tuple[str, ...], words: str) -> None:
    result = invoke("bench", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not result.stdout
