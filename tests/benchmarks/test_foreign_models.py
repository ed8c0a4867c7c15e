from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.studies._foreign_judge import equal, sqnr
from benchmarks.studies.foreign_models import Limits, judge, outcome, run_limited

if TYPE_CHECKING:
    from pathlib import Path

_LIMITS = Limits(seconds=60, memory_gib=16)


def _write_model(file: Path, factor: float = 1.0) -> None:
    """Write a convolution, its ReLU and a mean over the pixels of any batch."""
    random = np.random.default_rng(3)
    weights = (factor * random.normal(size=(8, 3, 3, 3))).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8, 1, 1])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)


def _write_examples(folder: Path, count: int = 4) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(count):
        np.savez(folder / f"{index}.npz", x=random.normal(size=(1, 3, 16, 16)).astype(np.float32))


def _script(code: str, limits: Limits = _LIMITS) -> tuple[str, str]:
    result = outcome(run_limited([sys.executable, "-c", code], limits))
    return result.verdict, result.why


def test_a_sentence_with_a_documented_exit_code_is_a_refusal() -> None:
    code = "import sys; print('error: not today.', file=sys.stderr); sys.exit(3)"
    assert _script(code) == ("refused", "error: not today.")


def test_a_traceback_is_wrong() -> None:
    verdict, why = _script("raise ValueError('shape')")
    assert (verdict, why) == ("wrong", "traceback: ValueError: shape")


def test_a_crash_is_wrong() -> None:
    verdict, why = _script("import os; os.kill(os.getpid(), 11)")
    assert verdict == "wrong"
    assert "exit code -11" in why


def test_a_process_without_an_answer_is_ended() -> None:
    verdict, why = _script("import time; time.sleep(60)", Limits(seconds=0.5, memory_gib=16))
    assert verdict == "wrong"
    assert why.startswith("no answer within")


def test_a_process_that_takes_too_much_memory_fails() -> None:
    verdict, why = _script("bytearray(2**31)", Limits(seconds=60, memory_gib=1))
    assert (verdict, why) == ("wrong", "traceback: MemoryError")


def test_another_weight_is_seen(tmp_path: Path) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    _write_model(first)
    _write_model(second, factor=1.01)
    _write_examples(tmp_path / "examples")
    paths = str(first), str(second), str(tmp_path / "examples")
    assert equal(paths[0], paths[0], paths[2])["difference"] == 0.0
    assert float(str(equal(*paths)["difference"])) == pytest.approx(0.01, rel=1e-3)
    assert sqnr(*paths)["sqnr_db"] == {"y": pytest.approx(40, abs=0.01)}


@pytest.mark.slow
def test_a_model_goes_through_the_steps(tmp_path: Path) -> None:
    _write_model(tmp_path / "model.onnx")
    for part in ("calibration", "heldout"):
        _write_examples(tmp_path / part)
    (tmp_path / "facts.json").write_text(json.dumps({"data": "calibration", "options": []}))
    row = judge(tmp_path, ["inspect", "fuse", "eval"], _LIMITS)
    assert row["steps"]["inspect"]["verdict"] == "right"
    assert row["steps"]["fuse"]["verdict"] == "right"
    assert row["steps"]["fuse"]["difference"] < 1e-4
    assert row["steps"]["eval"] == {"verdict": "-"}
