"""Engine files as subjects of a benchmark: measured on the stand-ins, refused with a reason where nothing runs them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from rexport._errors import EngineFileError
from rexport.benchmarks.document import Status
from rexport.benchmarks.jobs import Failure, Job
from rexport.benchmarks.limits import cost_of
from rexport.benchmarks.outputs import Precision
from rexport.benchmarks.subjects import examine
from rexport.benchmarks.suite import bench, planned
from rexport.engine_file import facts_path
from rexport.preprocessing import Preprocessing, Takes
from rexport.runtimes.source import Source
from tests.cli._run import invoke
from tests.runtimes._engines import StandIns, change_facts, compile_driver, write_stand_in, write_tiny

if TYPE_CHECKING:
    from pathlib import Path


def test_what_lies_beside_it_says_what_it_takes(tmp_path: Path) -> None:
    path = write_stand_in(tmp_path)
    stated = Preprocessing(size=16, resize=20)
    layers = [{"name": "c", "op_type": "Conv", "precision": "int8"}]
    metadata = {
        "rexport.network": "cifar_resnet8",
        "rexport.classes": '["cat", "dog"]',
        "rexport.preprocessing": stated.to_json(),
    }
    change_facts(path, metadata=metadata, layers=layers)
    subject = examine(Source(path=path))
    assert subject.classes == ("cat", "dog")
    assert subject.preprocessing == stated
    assert (subject.identity.network, subject.identity.precision) == ("cifar_resnet8", Precision.INT8)
    assert (subject.fixed_batch, subject.batches) == (None, range(1, 9))
    raw = examine(Source(path=write_stand_in(tmp_path, "raw", batch=4, profiles=[(4, 4, 4)])))
    assert (raw.preprocessing.input_shape, raw.fixed_batch, raw.preprocessing.takes) == ((16, 16, 3), 4, Takes.PIXELS)
    assert cost_of(Source(path=path)) == (None, None)


def test_what_takes_no_pictures_is_refused(tmp_path: Path) -> None:
    path = write_stand_in(tmp_path)
    change_facts(path, inputs=[{"name": "x", "dtype": "float", "shape": [-1, 40]}])
    with pytest.raises(EngineFileError, match="has no image input"):
        examine(Source(path=path))


def test_an_engine_goes_to_its_own_runtime_whatever_was_asked_for(tmp_path: Path) -> None:
    model, engine = write_tiny(tmp_path), write_stand_in(tmp_path)
    plans = planned([model, engine], runtimes=["cpu", "openvino"], batches=[1, 16])
    assert [(row.runtime, row.batch) for row, _ in plans] == [
        (runtime, batch) for batch in (1, 16) for runtime in ("cpu", "openvino", "tensorrt-engine")
    ]
    assert isinstance(plans[2][1], Job)
    refused = plans[-1][1]
    assert isinstance(refused, Failure)
    assert "takes batches of 1 to 8" in refused.reason


@pytest.mark.slow
def test_an_engine_is_measured_and_compared_with_its_onnx_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_driver(tmp_path)
    StandIns(tmp_path, monkeypatch)
    model, engine = write_tiny(tmp_path), write_stand_in(tmp_path)
    first, second = bench([model, engine], batches=[4], threads=1, launches=1, min_seconds=0, min_calls=2).rows
    assert (first.runtime, second.runtime, second.status) == ("cpu", "tensorrt-engine", Status.OK), second.reason
    assert second.phases_ms is not None
    assert second.phases_ms["compute"] > 0
    assert (second.wrong, second.agreement) == (False, 1.0)


def test_without_the_backend_the_row_says_why_and_the_exit_code_is_5(tmp_path: Path) -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("the package tensorrt is installed")
    path = write_stand_in(tmp_path)
    result = invoke("bench", str(path), "--batch", "1", "--json")
    assert result.exit_code == 5, result.output
    (row,) = json.loads(result.stdout)["rows"]
    assert (row["runtime"], row["status"]) == ("tensorrt-engine", "unavailable")
    assert "TensorRT 10.13.0.1, which is not installed; type `pip install 'tensorrt-cu13==10.13.0.1'`" in row["reason"]
    facts_path(path).unlink()
    result = invoke("bench", str(path), "--batch", "1")
    assert result.exit_code == 1
    assert "beside the engine, so that nothing is known of it" in result.output
