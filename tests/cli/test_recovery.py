"""``--recover``: what is done by default, what is said of it, and that it helps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from rexport.model_file import save
from tests._graphs import convolution, graph
from tests.cli._run import invoke, run, run_json

_BODY = """
    a = Conv<pads = [1, 1, 1, 1]>(x, w1) r = Relu(a) b = Conv<pads = [1, 1, 1, 1]>(r, w2) c = Relu(b)
    p = GlobalAveragePool(c) f = Flatten(p) y = Gemm<transB = 1>(f, wf)
"""


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a network whose channels differ a lot, and images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "cache"))
    weights = {"w1": convolution(8, 3), "w2": convolution(8, 8), "wf": convolution(5, 8, 1)[:, :, 0, 0]}
    spread = np.geomspace(1, 30, 8).astype(np.float32)
    weights["w1"] = weights["w1"] / spread[:, None, None, None]
    weights["w2"] = weights["w2"] * spread[None, :, None, None]
    save(graph(_BODY, weights, outputs="float[N, 5] y"), Path("m.onnx"))
    images = np.random.default_rng(0).standard_normal((60, 3, 16, 16)).astype(np.float32)
    np.save("images.npy", images[:50])
    np.save("others.npy", images[50:])
    return tmp_path


def _said(path: str) -> str:
    props = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    return str(json.loads(props["rexport.quantization"])["recovered"])


@pytest.mark.slow
def test_by_default_all_is_done_that_images_or_a_table_allow(workshop: Path) -> None:
    document = run_json("quantize m.onnx --data images.npy -o a.onnx --save-table t.json")
    recovery = document["recovery"]
    assert (recovery["level"], recovery["images"], len(recovery["layers_rounded"])) == ("adaround", 50, 3)
    assert recovery["tensors_equalized"] > 0
    assert _said("a.onnx") == f"{recovery['tensors_equalized']} tensors equalized, AdaRound on 3 layers"

    printed = run("quantize m.onnx --table t.json -o e.onnx")
    assert f"recovery: {recovery['tensors_equalized']} tensors equalized, 0." in printed
    assert _said("e.onnx") == f"{recovery['tensors_equalized']} tensors equalized"

    assert "recovery" not in run("quantize m.onnx --table t.json -o n.onnx --recover none")
    assert _said("n.onnx") == "nothing"


@pytest.mark.slow
def test_beside_a_table_images_are_for_recovery_alone(workshop: Path) -> None:
    run("quantize m.onnx --data images.npy -o a.onnx --save-table t.json")
    document = run_json("quantize m.onnx --table t.json --data images.npy -o b.onnx --save-table again.json")
    assert document["images"] == document["recovery"]["images"] == 50
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()
    other = run_json("quantize m.onnx --table t.json --data others.npy -o c.onnx --save-table again.json")
    assert (other["images"], other["recovery"]["images"]) == (50, 10)
    assert Path("again.json").read_text() == Path("t.json").read_text()


@pytest.mark.slow
def test_each_level_is_closer_to_the_float_model(workshop: Path) -> None:
    sqnr = {}
    for level in ("none", "equalize", "adaround"):
        run(f"quantize m.onnx --data images.npy -o {level}.onnx --recover {level}")
        sqnr[level] = run_json(f"eval {level}.onnx --data others.npy --reference m.onnx")["sqnr_db"]
    assert sqnr["equalize"] > sqnr["none"] + 3  # channels of a thirtieth have a thirtieth of the integers before
    assert sqnr["adaround"] > sqnr["none"] + 3


@pytest.mark.slow
def test_as_many_images_as_were_asked_for_and_no_more_than_it_takes(workshop: Path) -> None:
    assert run_json("quantize m.onnx --data images.npy -o a.onnx --samples 20")["recovery"]["images"] == 20
    np.save("many.npy", np.random.default_rng(1).standard_normal((600, 3, 16, 16)).astype(np.float32))
    document = run_json("quantize m.onnx --data many.npy -o b.onnx --samples 600")
    assert (document["images"], document["recovery"]["images"]) == (600, 128)


def test_images_that_can_not_be_read_are_named_once(images: Path, workshop: Path) -> None:
    (images / "bad.png").write_bytes(b"no picture")
    result = invoke(*f"quantize m.onnx --data {images} -o a.onnx --resize 16 --skip-bad --json".split())
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [Path(bad["path"]).name for bad in document["skipped"]] == ["bad.png"]
    assert (document["images"], document["recovery"]["images"]) == (6, 6)
    assert result.stderr.count("bad.png") == 1
