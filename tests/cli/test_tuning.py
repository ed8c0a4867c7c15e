"""``--regroup`` and ``--stem`` of `rexport fuse` and `rexport quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest

from rexport.benchmarks.interleave import Timing
from rexport.tuning import Comparison
from tests.cli._run import invoke, run, run_json

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("images")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def resnext(export: Callable[..., object], images: Path) -> None:
    """A network of three grouped convolutions in the file m.onnx."""
    export("m.onnx", network="resnext[depth=11,stages=3,cardinality=4,base_width=4,stem_width=16,input_size=32]")


def groups(path: str) -> list[int]:
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    found = [next((a.i for a in node.attribute if a.name == "group"), 1) for node in nodes]
    return [count for count in found if count > 1]


@pytest.mark.slow
@pytest.mark.usefixtures("resnext")
def test_a_number_of_groups_is_taken_everywhere() -> None:
    assert groups("m.onnx") == [4, 4, 4]
    text = run("fuse m.onnx --regroup 2 -o two.onnx")
    assert groups("two.onnx") == [2, 2, 2]
    assert "regrouped: 3 convolutions" in text
    document = run_json("quantize m.onnx --data images --regroup 4 -o int8.onnx")
    assert groups("int8.onnx") == []
    assert (document["regrouping"]["changed"], document["regrouping"]["speedup"], document["stem"]) == (3, None, None)
    assert len(document["recovery"]["projections_joined"]) == 3
    assert document["executed"]["QLinearConv"] == 10


@pytest.mark.slow
@pytest.mark.usefixtures("resnext")
def test_what_does_not_divide_the_groups_is_said() -> None:
    text = run("fuse m.onnx --regroup 3 -o three.onnx")
    assert "regrouped: 0 convolutions, 3 refused (its 4 groups can't merge by 3; choose a divisor)" in text
    assert groups("three.onnx") == [4, 4, 4]


@pytest.mark.slow
@pytest.mark.usefixtures("resnext")
def test_measuring_prints_each_layer_and_remembers_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timing = Timing(rounds=((0.001,) * 8,) * 8, peak_memory_mib=None)
    monkeypatch.setattr("rexport.tuning.groups.measure", lambda jobs, **_: [timing] * len(jobs))
    faster = Comparison(speedup=1.2, interval=(1.1, 1.3))
    monkeypatch.setattr("rexport.tuning.groups.compare", lambda *_, **__: faster)
    run("quantize m.onnx --data images -o int8.onnx")
    command = "fuse int8.onnx --regroup measure --for-batch 2 --threads 1 -o tuned.onnx"
    text = run(command)
    assert "grouped convolution" in text
    assert "3×3, 16 → 16 of 32×32" in text
    assert (cache / "layer-timings.json").is_file()
    again = run_json(command)["regrouping"]
    assert [layer["remembered"] for layer in again["layers"]] == [True] * 3
    assert (again["batch"], again["threads"]) == (2, 1)
    assert again["kept"] == (groups("tuned.onnx") != groups("int8.onnx"))


@pytest.mark.slow
def test_only_a_faster_stem_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    run("onnx resnet[depth=10,stem_width=8,input_size=32] -o m.onnx")
    always = run("fuse m.onnx --stem on -o on.onnx")
    assert "stem: it reads 2 × 2 blocks" in always
    assert onnx.load("on.onnx").graph.node[0].op_type == "SpaceToDepth"
    slower = Comparison(speedup=0.97, interval=(0.96, 0.98))
    monkeypatch.setattr("rexport.tuning.stem.compare", lambda *_, **__: slower)
    text = run("fuse m.onnx --stem measure --threads 1 -o measured.onnx")
    assert "stem: unchanged: no significant gain, the whole model would be 0.97 × as fast (0.96 to 0.98)" in text
    assert "at batch 1 on 1 thread" in text
    assert onnx.load("measured.onnx").graph.node[0].op_type == "Conv"


@pytest.mark.parametrize("wrong", ["0", "-1", "all", "2.5", ""])
def test_nonsense_is_refused_before_anything_is_done(wrong: str) -> None:
    result = invoke("fuse", "missing.onnx", "--regroup", wrong, "-o", "out.onnx")
    assert result.exit_code == 2
    assert f"--regroup {wrong}: choose measure, off, or a number of groups such as 4." in result.stderr
    assert not Path("out.onnx").exists()
