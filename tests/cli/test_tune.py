"""``rexport tune``: settings that say what was measured, or none and why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from rexport._files import file_sha256
from rexport.benchmarks import machine_facts
from rexport.benchmarks.interleave import Failure, Job, Timing
from rexport.deployment_settings import load_settings
from rexport.model_file import load, save
from rexport.passes.float16 import with_float16
from rexport.tuning import Comparison
from tests._graphs import convolution, graph
from tests.cli._run import interrupted, invoke, run, run_json

if TYPE_CHECKING:
    from collections.abc import Callable

_BODY = "a = Conv<pads = [1, 1, 1, 1]>(x, w1) r = Relu(a) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, wf)"
_WEIGHTS = {"w1": convolution(8, 3), "wf": convolution(8, 5, 1)[:, :, 0, 0]}
_GROUPED = "a = Conv(x, w1) r = Relu(a) b = Conv<group = 4>(r, w2) p = GlobalAveragePool(b) y = Flatten(p)"
_QUICK = "--batch 1,4 --threads 1 --on cpu --seconds 0.5"


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small float model, images for it, and a folder for temporary files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "cache"))
    save(graph(_BODY, _WEIGHTS, outputs="float[N, 5] y"), Path("m.onnx"))
    images = np.random.default_rng(0).standard_normal((40, 3, 16, 16)).astype(np.float32)
    np.save("images.npy", images)
    np.savez("test.npz", images=images, labels=np.zeros(40, np.int64))
    return tmp_path


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Jobs are not run: INT8 takes 2 ms an image and a float file 5, a regrouped one half; ``torch`` fails."""
    asked: list[Job] = []

    def seconds(job: Job) -> float:
        assert job.source.path is not None
        operators = {node.op_type for node in onnx.load(job.source.path).graph.node}
        share = 0.5 if "regrouped" in job.source.path.name else 1.0
        return job.shape[0] * share * (0.002 if "QuantizeLinear" in operators else 0.005)

    def measure(jobs: list[Job], **_: object) -> list[Timing | Failure]:
        asked.extend(jobs)
        return [Timing(rounds=((seconds(job),) * 8,) * 8, peak_memory_mib=None) for job in jobs]

    monkeypatch.setattr("rexport.tuning.deployment.measure", measure)
    return asked


@pytest.mark.slow
def test_the_settings_say_what_was_measured(workshop: Path) -> None:
    document = run_json(f"tune m.onnx -o p.toml {_QUICK}")
    settings = load_settings(Path("p.toml"))
    assert document["schema"] == "rexport.tune/1"
    assert (document["settings"], document["file"], document["sha256"]) == ("p.toml", "m.onnx", settings.model.sha256)
    (chosen,) = (
        one
        for one in document["candidates"]
        if (one["batch"], one["threads"]) == (settings.run.batch, settings.run.threads) and one["precision"] == "fp32"
    )
    assert settings.expected.images_per_second == pytest.approx(chosen["images_per_second"], rel=1e-4)
    assert settings.expected.p50_ms == pytest.approx(1e3 * float(np.median(chosen["stages"][-1]["seconds"])), rel=1e-4)
    assert settings.expected.p90_ms == pytest.approx(chosen["latency_ms"]["p90"], rel=1e-4)
    assert settings.expected.calls == chosen["calls"] == sum(chosen["stages"][-1]["calls_per_round"]) >= 64
    assert [[stage["stage"] for stage in one["stages"]] for one in document["candidates"]] == [
        ["first look", "final"]
    ] * 2
    assert (settings.run.runtime, settings.asked.goal) == ("cpu", "throughput")
    assert (settings.model.precision, settings.model.regroup) == ("fp32", "off")
    assert settings.machine.cpu == document["machine"]["cpu"]
    assert settings.versions["onnxruntime"] == document["machine"]["packages"]["onnxruntime"]
    assert settings.expected.drop_points is None
    settings.check_model(Path("m.onnx"))
    assert sorted(path.name for path in workshop.iterdir()) == ["images.npy", "m.onnx", "p.toml", "test.npz"]


@pytest.mark.slow
def test_a_trained_network_gets_its_integers(
    tmp_path: Path, data_dir: Path, export: Callable[..., object], planted: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # the gate's own comparison of speeds, which takes half a minute and decides nothing here
    monkeypatch.setattr("rexport.tuning.mixed_precision.compare", lambda *_, **__: None)
    export("m.onnx", f"--weights {data_dir}/weights/cifar_resnet20.th", network="cifar_resnet20")
    data = data_dir / "cifar10"
    document = run_json(
        f"tune m.onnx -o p.toml --data {data / 'calibration'} --samples 64 --recover none --eval-data {data / 'test'} "
        "--max-drop 1.5 --batch 1,8 --threads 1 --on cpu"
    )
    settings = load_settings(Path("p.toml"))
    (quantized,) = document["quantized"]
    assert quantized["gate"]["holds"]
    assert settings.asked.max_drop_points == 1.5
    assert {one["precision"] for one in document["candidates"]} == {"fp32", "int8"}
    assert settings.model.precision == "int8"
    assert settings.expected.drop_points == pytest.approx(quantized["gate"]["drop_points"], rel=1e-4)
    settings.check_model(Path("p-tuned.onnx"))
    assert run_json("inspect p-tuned.onnx")["precisions"]["int8"] > 0
    evaluated = run_json(f"eval p-tuned.onnx --data {data / 'test'}")
    assert evaluated["top1"] == quantized["gate"]["top1"]


@pytest.mark.slow
def test_what_had_to_be_made_is_written_beside_the_settings(workshop: Path, planted: list[Job]) -> None:
    Path("out").mkdir()
    text = run("tune m.onnx -o out/p.toml --data images.npy --recover none --on cpu --batch 1,2")
    assert "out/p-tuned.onnx, written for it" in text
    settings = load_settings(Path("out/p.toml"))
    assert (settings.model.file, settings.model.precision) == ("p-tuned.onnx", "int8")
    assert (settings.run.batch, settings.run.threads) == (1, 1)
    assert settings.model_path(Path("out/p.toml")) == Path("out/p-tuned.onnx")
    assert file_sha256(Path("out/p-tuned.onnx")) == settings.model.sha256
    assert settings.expected.images_per_second == 500
    run("tune m.onnx -o out/q.toml --data images.npy --recover none --on cpu --model-out int8.onnx")
    assert load_settings(Path("out/q.toml")).model.file == "../int8.onnx"


@pytest.mark.slow
def test_a_float_file_that_wins_stays_where_it_is(workshop: Path, planted: list[Job]) -> None:
    Path("out").mkdir()
    run("tune m.onnx -o out/p.toml --on cpu")
    assert load_settings(Path("out/p.toml")).model.file == "../m.onnx"
    assert [path.name for path in Path("out").iterdir()] == ["p.toml"]


@pytest.mark.slow
@pytest.mark.parametrize("side", [16, "S"])
def test_a_size_that_nothing_says_is_said_to_be_taken(workshop: Path, planted: list[Job], side: int | str) -> None:
    inputs = f"float[N, 3, {side}, {side}] x"
    save(graph(_BODY, _WEIGHTS, inputs=inputs, outputs="float[N, 5] y"), Path("m.onnx"))
    result = invoke("tune", "m.onnx", "-o", "p.toml", "--on", "cpu", "--batch", "1", "--threads", "1")
    assert ("m.onnx takes pictures of any size" in result.stderr) == (side == "S")
    assert {job.shape[2:] for job in planted} == {(16, 16) if side == 16 else (224, 224)}


@pytest.mark.slow
def test_an_integer_file_is_taken_as_it_is(workshop: Path, planted: list[Job]) -> None:
    run("quantize m.onnx --data images.npy --recover none -o int8.onnx --target x86")
    run("tune int8.onnx -o p.toml --on cpu")
    settings = load_settings(Path("p.toml"))
    assert (settings.model.file, settings.model.precision) == ("int8.onnx", "int8")


@pytest.mark.slow
def test_a_file_in_float16_says_so(workshop: Path, planted: list[Job]) -> None:
    save(with_float16(load(Path("m.onnx"))).model, Path("half.onnx"))
    run("tune half.onnx -o p.toml --on cpu")
    assert load_settings(Path("p.toml")).model.precision == "fp16"
    result = invoke("tune", "half.onnx", "-o", "p.toml", "--on", "cpu", "--data", "images.npy")
    assert result.exit_code == 2
    assert "half.onnx is fp16 already; pass the float model" in " ".join(result.stderr.split())


@pytest.mark.slow
def test_runtimes_get_the_integers_that_they_want(
    workshop: Path, planted: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rexport.jobs.tune.RUNTIMES", {"cpu": "", "openvino": "", "torch": ""})
    document = run_json("tune m.onnx -o p.toml --data images.npy --on cpu,openvino --batch 1 --threads 1")
    assert {one["target"] for one in document["quantized"]} >= {"openvino"}
    names = {(job.runtime, Path(str(job.source.path)).name) for job in planted}
    assert ("openvino", "m-openvino.onnx") in names
    assert ("cpu", "m-openvino.onnx") not in names
    assert {("cpu", "m.onnx"), ("openvino", "m.onnx")} <= names
    tables = {(one["data_sha256"], one["images"]) for one in document["quantized"]}
    assert len(tables) == 1  # one calibration


@pytest.mark.slow
def test_regrouped_files_are_for_onnx_runtime(
    workshop: Path, planted: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"w1": convolution(16, 3), "w2": convolution(16, 4, 1)}
    save(graph(_GROUPED, weights, outputs="float[N, 16] y"), Path("g.onnx"))
    monkeypatch.setattr("rexport.jobs.tune.RUNTIMES", {"cpu": "", "openvino": ""})
    monkeypatch.setattr(
        "rexport.tuning.groups._seconds", lambda layer, forms, conditions: {form: 2.0 / form.merged for form in forms}
    )
    faster = Comparison(speedup=2.0, interval=(1.9, 2.1))
    monkeypatch.setattr("rexport.tuning.groups.compare", lambda *_, **__: faster)
    run("tune g.onnx -o p.toml --on cpu,openvino --batch 1 --threads 1")
    settings = load_settings(Path("p.toml"))
    assert (settings.model.regroup, settings.run.runtime, settings.model.file) == ("measure", "cpu", "p-tuned.onnx")
    names = {(job.runtime, Path(str(job.source.path)).name) for job in planted}
    assert names == {("cpu", "g.onnx"), ("openvino", "g.onnx"), ("cpu", "g-fp32-regrouped.onnx")}
    planted.clear()
    run("tune g.onnx -o p.toml --on cpu,openvino --batch 1 --threads 1 --regroup measure")
    assert {(job.runtime, Path(str(job.source.path)).name) for job in planted} == names - {("cpu", "g.onnx")}
    planted.clear()
    run("tune g.onnx -o p.toml --on cpu,openvino --batch 1 --threads 1 --regroup off")
    assert {Path(str(job.source.path)).name for job in planted} == {"g.onnx"}


@pytest.mark.slow
def test_what_is_as_fast_regrouped_or_not_is_left_out_with_the_reason(
    workshop: Path, planted: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"w1": convolution(16, 3), "w2": convolution(16, 4, 1)}
    save(graph(_GROUPED, weights, outputs="float[N, 16] y"), Path("g.onnx"))
    monkeypatch.setattr("rexport.tuning.groups._seconds", lambda layer, forms, conditions: dict.fromkeys(forms, 1.0))
    document = run_json("tune g.onnx -o p.toml --on cpu --batch 1 --threads 1")
    (left_out,) = document["left_out"]
    assert left_out["reason"] == "Its grouped convolutions stay as they are, as every layer is fastest as it is."


def test_a_bound_that_nothing_meets_is_exit_code_4_with_the_nearest(workshop: Path, planted: list[Job]) -> None:
    result = invoke(*["tune", "m.onnx", "-o", "p.toml", "--on", "cpu", "--latency-bound", "4"])
    assert result.exit_code == 4
    said = " ".join(result.stderr.split())
    assert "the nearest is fp32 on cpu, batch 1, 1 thread" in said or "the nearest is fp32 on cpu, batch 1, 2" in said
    assert "which takes 5.00 ms" in said
    assert "or INT8 with --data IMAGES" in said
    assert not Path("p.toml").exists()
    result = invoke(*["tune", "m.onnx", "-o", "p.toml", "--on", "cpu", "--latency-bound", "4", "--json"])
    assert result.exit_code == 4
    document = json.loads(result.stdout)
    assert (document["settings"], document["chosen"], document["nearest"]["batch"]) == (None, None, 1)
    assert not any(one["holds"] for one in document["candidates"])


def test_a_busy_machine_is_told_before_anything_is_measured(
    workshop: Path, planted: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = replace(machine_facts(), cores=2, load_average=1.5)
    monkeypatch.setattr("rexport.jobs.tune.machine_facts", lambda: busy)
    result = invoke(*["tune", "m.onnx", "-o", "p.toml", "--on", "cpu", "--batch", "1", "--threads", "1"])
    assert " ".join(result.stderr.split()).startswith("note: the machine is busy (load 1.5 on 2 cores)")


@pytest.mark.slow
def test_the_bound_decides_the_batch(workshop: Path, planted: list[Job]) -> None:
    run("tune m.onnx -o p.toml --on cpu --latency-bound 5.1 --goal latency")
    settings = load_settings(Path("p.toml"))
    assert (settings.run.batch, settings.asked.latency_bound_ms, settings.asked.goal) == (1, 5.1, "latency")
    assert {job.shape[0] for job in planted} == {1}  # of latency no larger batch is asked for


@pytest.mark.slow
def test_an_accuracy_that_integers_can_not_have_leaves_the_float_file(
    workshop: Path, planted: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "tune m.onnx -o p.toml --on cpu --data images.npy --recover none --eval-data test.npz --max-drop 0"
    why = "INT8 loses 3.00 points."
    monkeypatch.setattr("rexport.tuning.mixed_precision._Search.holds", lambda *_: False)
    monkeypatch.setattr("rexport.tuning.mixed_precision._Search.run", lambda *_: None)
    monkeypatch.setattr("rexport.tuning.mixed_precision._Search.why_not", lambda *_: why)
    monkeypatch.setattr("rexport.tuning.mixed_precision.compare", lambda *_, **__: None)
    document = run_json(asked)
    assert [one["reason"] for one in document["left_out"]] == [why]
    settings = load_settings(Path("p.toml"))
    assert settings.model.precision == "fp32"
    assert settings.expected.drop_points == settings.asked.max_drop_points == 0.0
    Path("p.toml").unlink()
    result = invoke(*asked.split(), "--precision", "int8")
    assert result.exit_code == 4
    assert why in " ".join(result.stderr.split())
    assert not Path("p.toml").exists()


def test_what_fails_is_a_row_with_the_reason(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "rexport.tuning.deployment.measure", lambda jobs, **_: [Failure(reason="It died.", kind="Died") for _ in jobs]
    )
    result = invoke(*["tune", "m.onnx", "-o", "p.toml", "--on", "cpu", "--json"])
    assert result.exit_code == 5
    assert "It died." in result.stderr
    assert {one["reason"] for one in json.loads(result.stdout)["candidates"]} == {"It died."}
    assert not Path("p.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("--latency-bound 0", 2, "--latency-bound 0: must be above 0 ms"),
        ("--latency-bound nan", 2, "must be above 0 ms"),
        ("--seconds 0", 2, "--seconds 0"),
        ("--batch ,", 2, "--batch ',': it takes numbers from 1 on"),
        ("--batch 0", 2, "it takes numbers from 1 on"),
        ("--threads 1,two", 2, "--threads '1,two'"),
        ("--on abacus", 2, "choose from cpu"),
        ("--on torch", 2, "--on 'torch': choose from cpu"),
        ("--on openvno", 2, "Did you mean openvino?"),
        ("--on ,", 2, "choose from cpu"),
        ("--precision int4", 2, "choose from fp32, int8"),
        ("--precision int8", 2, "INT8 needs images to calibrate with; pass --data IMAGES"),
        ("--regroup 4", 2, "choose from off, measure"),
        ("--max-drop 1", 2, "pass --eval-data DIR too"),
        ("--max-drop 1 --eval-data test.npz", 2, "pass --data IMAGES"),
        ("--data images.npy --precision fp32", 2, "--data is for making INT8 files"),
        ("--data missing", 2, "missing does not exist"),
        ("--data images.npy --eval-data images.npy", 2, "Accuracy needs labels"),
        ("--model-out no/such/m.onnx", 1, "mkdir"),
    ],
)
def test_mistakes_are_sentences(workshop: Path, planted: list[Job], arguments: str, code: int, words: str) -> None:
    result = invoke(*f"tune m.onnx -o p.toml {arguments}".split())
    assert result.exit_code == code, result.output
    assert words in " ".join(result.stderr.split())
    assert not planted
    assert not Path("p.toml").exists()


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("cifar_resnet20", 2, "rexport onnx cifar_resnet20 -o cifar_resnet20.onnx"),
        ("missing.onnx", 2, "does not exist"),
        ("images.npy", 1, "is not an ONNX file"),
    ],
)
def test_models_that_are_none(workshop: Path, model: str, code: int, words: str) -> None:
    result = invoke("tune", model, "-o", "p.toml")
    assert result.exit_code == code, result.output
    assert words in " ".join(result.stderr.split())


def test_integers_are_not_made_of_integers(workshop: Path) -> None:
    run("quantize m.onnx --data images.npy --recover none -o int8.onnx --target x86")
    for option in ("--data images.npy", "--precision fp32", "--eval-data test.npz --max-drop 1"):
        result = invoke(*f"tune int8.onnx -o p.toml {option}".split())
        assert result.exit_code == 2
        assert "int8.onnx is int8 already" in " ".join(result.stderr.split())


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_ctrl_c_leaves_what_was_there(workshop: Path) -> None:
    Path("p.toml").write_text("the old settings")
    Path("temporary").mkdir()
    command = [sys.executable, "-m", "rexport", "tune", "m.onnx", "-o", "p.toml", "--on", "cpu", "--seconds", "60"]
    environment: dict[str, Any] = {**os.environ, "TMPDIR": str(workshop / "temporary")}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        while "ways to run m.onnx" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        output, _ = interrupted(process)
    assert output == ""
    assert Path("p.toml").read_text() == "the old settings"
    # hidden ones are notes of libraries to themselves
    assert [path for path in Path("temporary").iterdir() if not path.name.startswith(".")] == []
    names = sorted(path.name for path in workshop.iterdir())
    assert names == ["images.npy", "m.onnx", "p.toml", "temporary", "test.npz"]
