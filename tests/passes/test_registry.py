from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rexport._errors import UsageError
from rexport.model_file import save
from rexport.passes import DEFAULT_PASSES, available_passes, choose_passes
from tests._networks import export_once
from tests.cli._run import invoke

if TYPE_CHECKING:
    from pathlib import Path

    from tests._products import Products

NAMES = [one_pass.__name__ for one_pass in DEFAULT_PASSES]


def test_rexports_own_come_first_and_in_their_order() -> None:
    assert list(available_passes())[: len(NAMES)] == NAMES
    assert choose_passes()[: len(NAMES)] == DEFAULT_PASSES


def test_passes_run_in_their_order_however_they_are_named() -> None:
    chosen = choose_passes(only=["RemoveIdentity", "FoldConstants", "FuseConvBatchNorm"], skip=["RemoveIdentity"])
    assert [one_pass.__name__ for one_pass in chosen] == ["FoldConstants", "FuseConvBatchNorm"]


@pytest.mark.parametrize("how", ["only", "skip"])
def test_an_unknown_pass_gets_the_nearest(how: str) -> None:
    with pytest.raises(UsageError, match=r"no pass 'FuseConvBatch'\. Did you mean FuseConvBatchNorm"):
        choose_passes(**{how: ["FuseConvBatch"]})


_OWN = """
from rexport.passes import GraphPass, PassResult

class CountNodes(GraphPass):
    summary = "nothing, but it counts"

    def call(self, model):
        return self.result(model, changed=0)

class FoldConstants(CountNodes):
    pass

class Breaks(GraphPass):
    summary = "the wrong thing"

    def call(self, model):
        model.graph.outputs[0].producer().op_type = "MatMulInteger"
        return self.result(model, changed=1)

number = 7
"""


def _install(folder: Path, name: str, target: str) -> dict[str, str]:
    """Make a distribution with an entry point, and return the environment in which it is installed."""
    (folder / "own_passes.py").write_text(_OWN)
    info = folder / "own_passes-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-passes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rexport.passes]\n{name} = {target}\n")
    return {**os.environ, "PYTHONPATH": str(folder)}


def _rexport(*arguments: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rexport", "fuse", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_a_pass_of_another_package_is_listed_and_run(tmp_path: Path, products: Products) -> None:
    environment = _install(tmp_path, "CountNodes", "own_passes:CountNodes")
    listed = _rexport("--list", cwd=tmp_path, env=environment)
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[0] for line in listed.stdout.splitlines()[3:] if line.strip()] == [*NAMES, "CountNodes"]
    save(export_once(products, "cifar_resnet8", fused=False, opset=18).model, tmp_path / "a.onnx")
    done = _rexport("a.onnx", "-o", "b.onnx", "--skip", "RemoveIdentity", "--json", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    ran = [report["name"] for report in json.loads(done.stdout)["passes"]]
    assert ran == [*(name for name in NAMES if name != "RemoveIdentity"), "CountNodes"]


@pytest.mark.slow
def test_a_wrong_pass_of_another_package_costs_nothing(tmp_path: Path, products: Products) -> None:
    environment = _install(tmp_path, "Breaks", "own_passes:Breaks")
    save(export_once(products, "cifar_resnet8", fused=False, opset=18).model, tmp_path / "a.onnx")
    done = _rexport("a.onnx", "-o", "b.onnx", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert "note: Breaks was rolled back: The fused model" in done.stderr
    assert "39 → 22 nodes" in done.stdout


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("own_passes:missing", "The pass Own of own-passes can't be loaded"),
        ("nowhere:Own", "The pass Own of own-passes can't be loaded: No module named 'nowhere'"),
        ("own_passes:number", "own_passes:number of own-passes is no pass"),
        ("rexport.passes:GraphPass", "is no pass: a GraphPass with a summary is"),
        ("own_passes:FoldConstants", "own-passes registers a pass FoldConstants, and there is one already"),
    ],
)
def test_what_is_no_pass_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, why: str) -> None:
    _install(tmp_path, "Own", target)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_passes", raising=False)
    listed = invoke("fuse", "--list")
    assert listed.exit_code == 5
    assert why in " ".join(listed.stderr.split())
