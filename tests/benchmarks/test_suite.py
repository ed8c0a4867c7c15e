"""Real models on real runtimes; how fast they are is not for a test to say."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from rexport._errors import DataError, ModelFileError, UsageError
from rexport.benchmarks import BenchInterrupted, BenchResult, Status, bench, suite
from rexport.benchmarks.jobs import Failure, Job
from rexport.exporting import export
from rexport.model_file import save
from rexport.models import build
from rexport.preprocessing import Preprocessing, Takes
from rexport.runtimes.source import Source
from tests._networks import export_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests._products import Products
    from tests.benchmarks.conftest import MakeModel


def quick(models: Sequence[str | Path], **options: Any) -> BenchResult:
    return bench(models, min_seconds=0.05, min_calls=3, launches=1, threads=1, **options)


@pytest.fixture
def trained(data_dir: Path, products: Products) -> Path:
    """A trained network's file."""

    def write(folder: Path) -> None:
        exported = export(
            build("cifar_resnet20", weights=data_dir / "weights" / "cifar_resnet20.th"),
            preprocessing=Preprocessing(size=32),
            network="cifar_resnet20",
            classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        )
        save(exported.model, folder / "resnet20.onnx")

    return products.folder("a trained cifar_resnet20 with classes", make=write) / "resnet20.onnx"


@pytest.fixture
def small(products: Products, tmp_path: Path) -> Path:
    """A file of a small network of the zoo."""
    save(export_once(products, "cifar_resnet8").model, tmp_path / "resnet8.onnx")
    return tmp_path / "resnet8.onnx"


def _changed_bias(bias: np.ndarray) -> np.ndarray:
    return bias + np.float32([0.1, *[0] * 9])


def _permuted(head: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.roll(head, 1, axis=0))


@pytest.mark.slow
def test_a_file_and_its_network_on_both_runtimes(make_model: MakeModel) -> None:
    path = make_model("m.onnx", size=32, network="cifar_resnet8")
    result = quick([path], runtimes=["cpu", "torch"], batches=[1, 2])
    assert [(row.batch, row.runtime, row.status) for row in result.rows] == [
        (1, "cpu", Status.OK),
        (1, "torch", Status.OK),
        (2, "cpu", Status.OK),
        (2, "torch", Status.OK),
    ]
    for row in result.rows:
        assert row.model == str(path)
        assert row.threads == 1
        assert len(row.seconds) >= 3
        assert row.peak_memory_mib is not None
        assert row.speedup_interval is not None
        assert row.images_per_second == pytest.approx(row.batch * 1e3 / (row.latency_ms.p50 or 0))
    assert [row.speedup for row in result.rows if row.runtime == "cpu"] == [1, 1]
    # an eager ResNet-8 takes many times one convolution in ONNX Runtime
    assert all((row.speedup or 1) < 1 for row in result.rows if row.runtime == "torch")


@pytest.mark.slow
def test_raw_images_are_pixels_and_its_network_gets_normalised_ones(make_model: MakeModel) -> None:
    path = make_model("raw.onnx", size=32, raw=True, network="cifar_resnet8")
    rows = quick([path], runtimes=["cpu", "torch"], batches=[3]).rows
    assert [(row.runtime, row.batch, row.status, row.reason) for row in rows] == [
        (runtime, 3, Status.OK, None) for runtime in ("cpu", "torch")
    ]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """What would be measured."""
    jobs: list[Job] = []

    def measure(asked: Sequence[Job], **_: Any) -> list[Failure]:
        jobs.extend(asked)
        return [Failure(reason="not measured", kind="Error") for _ in asked]

    monkeypatch.setattr(suite, "measure", measure)
    return jobs


def test_from_pixels_all_start_with_the_same(make_model: MakeModel, jobs: list[Job]) -> None:
    bench([make_model("m.onnx", size=32), make_model("raw.onnx", size=32, raw=True)], batches=[2], from_pixels=True)
    assert [(job.shape, job.dtype, job.preprocessing) for job in jobs] == [
        ((2, 32, 32, 3), "uint8", Preprocessing(size=32)),
        ((2, 32, 32, 3), "uint8", None),
    ]


@pytest.mark.slow
def test_a_file_that_cuts_pictures_gets_those_of_a_camera(make_model: MakeModel, jobs: list[Job]) -> None:
    whole = Preprocessing(size=8, resize=9, takes=Takes.PICTURES).to_json()
    paths = [
        make_model("whole.onnx", size="S", raw=True, preprocessing=whole),
        make_model("pixels.onnx", raw=True),
        make_model("any.onnx", size="S", raw=True),
        make_model("plain.onnx"),
    ]
    quick(paths, batches=[2])
    assert [(job.shape, job.dtype) for job in jobs] == [
        ((2, 480, 640, 3), "uint8"),
        ((2, 8, 8, 3), "uint8"),
        ((2, 224, 224, 3), "uint8"),
        ((2, 3, 8, 8), "float32"),
    ]


def test_files_go_to_onnx_runtime_and_networks_to_pytorch(make_model: MakeModel, jobs: list[Job]) -> None:
    rows = quick(["cifar_resnet8", make_model("m.onnx")], batches=[1]).rows
    assert [row.runtime for row in rows] == [job.runtime for job in jobs] == ["torch", "cpu"]


@pytest.mark.slow
def test_a_copy_agrees_and_planted_faults_are_wrong(trained: Path, data_dir: Path, tmp_path: Path) -> None:
    """A real trained network on real pictures."""
    faults = {"copy": lambda head: head, "bias": _changed_bias, "classes": _permuted, "constant": np.zeros_like}
    for name, fault in faults.items():
        model = onnx.load(trained)
        for tensor in model.graph.initializer:
            if tensor.name.startswith("fc.") and (name != "bias" or tensor.name == "fc.bias"):
                tensor.CopyFrom(onnx.numpy_helper.from_array(fault(onnx.numpy_helper.to_array(tensor)), tensor.name))
        onnx.save(model, tmp_path / f"{name}.onnx")
    models = [trained, *(tmp_path / f"{name}.onnx" for name in faults)]
    result = quick(models, batches=[16], data=data_dir / "cifar10" / "test", samples=128)
    rows = result.rows
    assert result.to_json()["pictures"] == {"used": 128, "total": 846}
    assert [row.wrong for row in rows] == [False, False, True, True, True]
    first, copy, *others = rows
    assert (copy.agreement, copy.sqnr_db) == (1, None)
    assert first.top1 == copy.top1
    # of 846 pictures it knows 91.7 %; of 128 the deviation is 2.4 points
    assert first.top1 == pytest.approx(0.917, abs=0.075)
    assert all(any("WRONG" in flag for flag in row.flags) for row in others)
    assert (others[-1].agreement or 0) < 0.3


@pytest.mark.slow
def test_weights_from_a_seed_are_not_compared_with_a_file_and_given_ones_are(trained: Path, data_dir: Path) -> None:
    weights = data_dir / "weights" / "cifar_resnet20.th"
    given = Source(network="cifar_resnet20", weights=weights)
    rows = quick([trained, given, "cifar_resnet20"], batches=[1]).rows
    assert [(row.agreement, row.wrong) for row in rows] == [(1, False), (1, False), (None, None)]
    assert (rows[1].sqnr_db or 0) > 80  # PyTorch and ONNX Runtime add in another order: 1e-5, squared, are 100 dB


@pytest.mark.slow
def test_a_file_that_says_it_is_another_network_is_no_wrong_one(small: Path, tmp_path: Path) -> None:
    model = onnx.load(small)
    for tensor in model.graph.initializer:
        if tensor.name == "fc.weight":
            tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), tensor.name))
    for name, network in (("silent", "cifar_resnet8"), ("other", "cifar_resnet14")):
        onnx.helper.set_model_props(
            model, {**{one.key: one.value for one in model.metadata_props}, "rexport.network": network}
        )
        onnx.save(model, tmp_path / f"{name}.onnx")
    rows = quick([small, tmp_path / "silent.onnx", tmp_path / "other.onnx"], batches=[8]).rows
    assert [row.wrong for row in rows] == [False, True, None]
    assert rows[2].agreement == rows[1].agreement
    assert (rows[2].agreement or 0) < 1


@pytest.mark.slow
def test_raw_and_normalised_files_see_the_same_pictures(make_model: MakeModel) -> None:
    """The raw one divides by nothing: its convolution sums bytes, and the normalised one's sums are another scale."""
    plain, raw = make_model("m.onnx", size=32), make_model("raw.onnx", size=32, raw=True)
    rows = quick([plain, raw, plain], batches=[4]).rows
    assert [row.agreement is not None for row in rows] == [True, True, True]
    assert [row.wrong for row in rows] == [False, True, False]


def test_pictures_of_another_size_are_refused_with_model_and_size(make_model: MakeModel, data_dir: Path) -> None:
    with pytest.raises(DataError, match=r"m\.onnx takes pictures of 8×8 pixels.*has 32×32"):
        quick([make_model("m.onnx")], data=data_dir / "cifar10" / "test")


def test_folders_that_are_not_the_classes_leave_the_speed(make_model: MakeModel, data_dir: Path) -> None:
    (row,) = quick([make_model("m.onnx", size=32)], batches=[1], data=data_dir / "cifar10" / "test", samples=8).rows
    assert row.status is Status.OK
    assert row.top1 is None
    assert "10 class folders and the model has 4 outputs" in row.flags[-1]


@pytest.mark.slow
def test_ctrl_c_keeps_the_batch_sizes_that_are_measured(make_model: MakeModel) -> None:
    opened: list[str] = []

    @contextmanager
    def interrupt_the_second(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
        opened.append(description)

        def advance(steps: int) -> None:
            if len(opened) == 2:
                raise KeyboardInterrupt

        yield advance

    with pytest.raises(BenchInterrupted) as caught:
        quick([make_model("m.onnx")], batches=[1, 2, 4], progress=interrupt_the_second)
    rows = caught.value.result.rows
    assert [(row.batch, row.status) for row in rows] == [(1, Status.OK), (2, Status.FAILED), (4, Status.FAILED)]
    assert "interrupted" in (rows[1].reason or "")
    assert "interrupted" in (rows[2].reason or "")


def test_what_can_not_run_says_why(make_model: MakeModel) -> None:
    models = {
        "nameless": make_model("nameless.onnx"),
        "quantized": make_model("quantized.onnx", network="cifar_resnet8", quantization="{}"),
        "foreign": make_model("foreign.onnx", network="package.module:network"),
    }
    rows = quick([*models.values()], runtimes=["torch"], batches=[1]).rows
    assert [row.status for row in rows] == [Status.UNAVAILABLE] * 3
    for row, word in zip(rows, ("does not say", "quantized", "package.module:network"), strict=True):
        assert word in (row.reason or "")
    (row,) = quick(["cifar_resnet8"], runtimes=["cpu"], batches=[1]).rows
    assert row.status is Status.UNAVAILABLE
    assert "rexport onnx cifar_resnet8" in (row.reason or "")


@pytest.mark.slow
def test_a_fixed_batch_runs_at_that_batch_only(make_model: MakeModel) -> None:
    rows = quick([make_model("m.onnx", batch=2)], batches=[1, 2, 4]).rows
    assert [row.status for row in rows] == [Status.UNAVAILABLE, Status.OK, Status.UNAVAILABLE]
    assert "batches of 2" in (rows[0].reason or "")


@pytest.mark.slow
def test_a_model_that_fails_when_run_leaves_the_others_alone(make_model: MakeModel) -> None:
    # takes any size, says that it is 1 pixel, and its 3 × 3 kernel does not fit there
    stated = '{"size": 1, "resize": null, "mean": [0,0,0], "std": [1,1,1]}'
    path = make_model("m.onnx", size="S", preprocessing=stated)
    rows = quick([path, make_model("good.onnx")], batches=[1]).rows
    assert [row.status for row in rows] == [Status.FAILED, Status.OK]
    assert rows[0].reason
    assert rows[1].speedup == 1


@pytest.mark.slow
def test_a_size_that_the_file_leaves_open_comes_from_its_metadata(make_model: MakeModel) -> None:
    stated = '{"size": 16, "resize": null, "mean": [0,0,0], "std": [1,1,1]}'
    (row,) = quick([make_model("m.onnx", size="S", preprocessing=stated)], batches=[1]).rows
    assert row.status is Status.OK
    assert not any("any size" in flag for flag in row.flags)


@pytest.mark.slow
def test_a_size_that_nothing_says_is_said_to_be_taken(make_model: MakeModel) -> None:
    (row,) = quick([make_model("m.onnx", size="S")], batches=[1]).rows
    assert "size is dynamic and not stated" in row.flags[0]
    assert "224×224" in row.flags[0]


@pytest.mark.slow
def test_accuracy_by_what_is_assumed_says_so(small: Path, data_dir: Path, tmp_path: Path) -> None:
    model = onnx.load(small)
    kept = [entry for entry in model.metadata_props if entry.key != "rexport.preprocessing"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tmp_path / "m.onnx")
    rows = quick([small, tmp_path / "m.onnx"], batches=[1], data=data_dir / "cifar10" / "test", samples=8).rows
    assert [any("assumed" in flag for flag in row.flags) for row in rows] == [False, True]


@pytest.mark.slow
def test_a_network_of_grey_pictures_is_measured_by_name() -> None:
    (row,) = quick(["tests.cli._own:grey"], batches=[1]).rows
    assert row.status is Status.OK


def test_a_bad_file_stops_everything_before_it_starts(make_model: MakeModel, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model at all")
    with pytest.raises(ModelFileError, match=r"bad\.onnx"):
        quick([make_model("m.onnx"), tmp_path / "bad.onnx"])


@pytest.mark.parametrize(
    ("models", "options", "words"),
    [
        ([], {}, "at least one"),
        (["cifar_resnet9000000"], {}, "no network"),
        (["missing.onnx"], {}, "does not exist"),
        (["cifar_resnet8"], {"runtimes": ["abacus"]}, "choose from cpu"),
        (["cifar_resnet8"], {"batches": []}, "at least 1 image"),
        (["cifar_resnet8"], {"batches": [4, 0]}, "at least 1 image"),
        (["cifar_resnet8"], {"threads": 0}, "threads must be at least 1"),
        (["cifar_resnet8"], {"min_calls": 0}, "at least 1 call"),
        (["cifar_resnet8"], {"launches": 0}, "launches must be at least 1"),
        (["cifar_resnet8"], {"timeout": 0}, "--timeout"),
        (["cifar_resnet8"], {"timeout": float("nan")}, "--timeout"),
        (["cifar_resnet8"], {"samples": 0}, "pictures must be at least 1"),
        (["cifar_resnet8"], {"min_seconds": float("nan")}, "1 call and 0 seconds"),
    ],
)
def test_arguments_that_make_no_sense(models: list[str], options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        bench(models, **options)
