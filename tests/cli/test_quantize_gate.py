"""``rexport quantize`` with a gate: layers left in float for it, files that are not written, and what is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rexport.model_file import save, to_bytes
from rexport.runtimes.onnxruntime import open_session
from rexport.tuning import Comparison
from tests._graphs import convolution, graph
from tests.cli._run import invoke, run, run_json

_BODY = """
    a = Conv<pads = [1, 1, 1, 1]>(x, w1) r = Relu(a) b = Conv<pads = [1, 1, 1, 1]>(r, w2) c = Relu(b)
    d = Conv<pads = [1, 1, 1, 1]>(c, w3) e = Relu(d) g = Conv<pads = [1, 1, 1, 1]>(e, w4) h = Relu(g)
    p = GlobalAveragePool(h) f = Flatten(p) y = Gemm<transB = 1>(f, wf)
"""
_QUANTIZE = "quantize m.onnx --data images.npy --recover none -o out.onnx --target x86"


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network that its second tensor breaks in INT8, and images with the labels that it gives them in float."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "cache"))
    weights = {"w1": convolution(8, 3), "wf": convolution(5, 8, 1)[:, :, 0, 0]}
    weights |= {f"w{index}": convolution(8, 8, seed=index) for index in (2, 3, 4)}
    weights["w1"][0] *= 3000  # the tensor's range is that of a channel that the next layer hardly reads
    weights["w2"][:, 0] /= 3000
    model = graph(_BODY, weights, outputs="float[N, 5] y")
    save(model, Path("m.onnx"))
    images = np.random.default_rng(0).standard_normal((200, 3, 16, 16)).astype(np.float32)
    np.save("images.npy", images)
    (scores,) = open_session(to_bytes(model)).run(None, {"x": images})
    np.savez("test.npz", images=images, labels=scores.argmax(axis=1))
    monkeypatch.setattr(
        "rexport.tuning.mixed_precision.compare", lambda *_, **__: Comparison(speedup=1.5, interval=(1.4, 1.6))
    )
    return tmp_path


@pytest.mark.slow
def test_layers_stay_in_float_until_the_gate_holds(workshop: Path) -> None:
    refused = invoke(*f"{_QUANTIZE} --eval-data test.npz".split())
    assert (refused.exit_code, "is not usable" in refused.stderr) == (3, True)
    whole = run_json(f"{_QUANTIZE} --eval-data test.npz --no-verify")["gate"]
    assert (whole["holds"], whole["float_layers"], whole["fp32_top1"]) == (True, [], 1.0)
    assert whole["drop_points"] > 10
    document = run_json(f"{_QUANTIZE} --eval-data test.npz --max-drop 5")  # accuracy decides, and not the scores
    gate = document["gate"]
    assert gate["holds"]
    assert gate["drop_points"] <= 5
    assert gate["float_layers"]
    assert {la["name"] for la in document["layers"] if la["precision"] == "float32"} == set(gate["float_layers"])
    assert {point["speedup"] for point in gate["curve"]} == {1.5, None}  # not of those that a cheaper one beats
    assert run_json("eval out.onnx --data test.npz")["top1"] == gate["top1"]


def test_recovery_can_be_all_that_the_gate_takes(workshop: Path) -> None:
    document = run_json(f"{_QUANTIZE.replace('none', 'equalize')} --eval-data test.npz --max-drop 5")
    assert document["gate"]["float_layers"] == []
    assert document["gate"]["drop_points"] <= 5


@pytest.mark.slow
def test_nothing_is_written_where_the_gate_does_not_hold(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rexport.tuning.mixed_precision._Search._affordable", lambda *_: [])
    command = f"{_QUANTIZE} --eval-data test.npz --max-drop 0.5"
    result = invoke(*command.split())
    assert result.exit_code == 4, result.stderr
    assert "(limit 0.5)" in " ".join(result.stderr.split())
    assert "(limit 0.5)" in result.stdout
    assert not Path("out.onnx").exists()
    result = invoke(*command.split(), "--json")
    assert result.exit_code == 4
    document = json.loads(result.stdout)
    assert (document["file"], document["gate"]["holds"]) == (None, False)
    assert not Path("out.onnx").exists()


@pytest.mark.slow
def test_a_file_that_is_not_fast_enough_is_not_written(workshop: Path) -> None:
    result = invoke(*f"{_QUANTIZE} --min-speedup 1.6 --no-verify".split())
    assert result.exit_code == 4
    assert "1.50 × as fast (1.40 to 1.60) as the float one" in " ".join(result.stderr.split())
    assert not Path("out.onnx").exists()
    assert "1.50 × as fast (1.40 to 1.60) as FP32 here" in run(f"{_QUANTIZE} --min-speedup 1.4 --no-verify")
    document = run_json(f"{_QUANTIZE} --min-speedup 1.4 --no-verify")
    assert (document["speedup"], document["speedup_interval"], document["gate"]) == (1.5, [1.4, 1.6], None)


def test_speeds_of_another_machine_are_not_measured(workshop: Path) -> None:
    command = _QUANTIZE.replace("x86", "tensorrt")
    result = invoke(*f"{command} --min-speedup 1".split())
    assert result.exit_code == 2
    assert "which is not what --target tensorrt is for" in " ".join(result.stderr.split())
    gate = run_json(f"{command} --eval-data test.npz --no-verify")["gate"]
    assert [point["speedup"] for point in gate["curve"]] == [None]
