"""Real worker processes on real models."""

from __future__ import annotations

import os
import signal
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnxruntime
import pytest

from rexport._child import Child, ChildError
from rexport.benchmarks import interleave
from rexport.benchmarks.interleave import measure
from rexport.benchmarks.jobs import Failure, Interrupted, Job, Pictures, Timing
from rexport.benchmarks.launch import Launch
from rexport.benchmarks.worker import Worker
from rexport.model_file import save
from rexport.model_inputs import TensorInput
from rexport.preprocessing import Preprocessing
from rexport.runtimes.source import Source
from tests._graphs import graph
from tests.benchmarks._processes import becomes, check_end_with_parent, linux

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.benchmarks.conftest import MakeModel


def job(path: Path, *, size: int = 8) -> Job:
    return Job(source=Source(path=path), runtime="cpu", shape=(1, 3, size, size), threads=1)


def load(worker: Child, path: Path, *, runtime: str = "cpu") -> None:
    worker.ask("load", runtime=runtime, path=str(path), threads=1)
    worker.ask("prepare", shape=[2, 3, 8, 8], dtype="float32", seed=0, preprocessing=None)


def timings(jobs: Sequence[Job], **options: Any) -> list[Timing]:
    """Measure jobs that can be."""
    outcomes = measure(jobs, **options)
    assert all(isinstance(outcome, Timing) for outcome in outcomes), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, Timing)]


def calling(advance: Callable[[int], None]) -> Any:
    """A progress bar that does something at every step."""
    return lambda description, total: nullcontext(advance)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    """The processes that were started, in order."""
    children: list[Child] = []

    class Recorded(Child):
        def __init__(self, module: str, **options: Any) -> None:
            super().__init__(module, **options)
            children.append(self)

    monkeypatch.setattr(interleave, "Child", Recorded)
    return children


def test_a_block_has_a_time_for_every_call(make_model: MakeModel) -> None:
    with Child("rexport.benchmarks.worker", rests=True) as worker:
        load(worker, make_model("m.onnx"))
        warm = worker.ask("warm up")
        assert len(warm["seconds"]) >= 10
        assert warm["first"] > 0
        times = worker.ask("run", calls=7)["seconds"]
    assert len(times) == 7
    assert all(0 < second < 10 for second in times)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_images_are_what_the_model_takes(dtype: str) -> None:
    worker = Worker()
    worker.answer({"do": "prepare", "shape": [2, 8, 9, 3], "dtype": dtype, "seed": 0, "preprocessing": None})
    images = worker._images
    assert images is not None
    assert (images.dtype, images.shape) == (np.dtype(dtype), (2, 8, 9, 3))
    assert images.min() < images.mean() < images.max()
    if dtype == "uint8":
        assert images.max() - images.min() > 200


def test_what_goes_wrong_is_told_and_the_worker_lives_on(make_model: MakeModel) -> None:
    path = make_model("m.onnx")
    with Child("rexport.benchmarks.worker", rests=True) as worker:
        with pytest.raises(ChildError, match="load a model") as caught:
            worker.ask("run", calls=1)
        assert caught.value.kind == "ValueError"
        with pytest.raises(ChildError, match="not a command"):
            worker.ask("dance")
        with pytest.raises(ChildError) as caught:
            worker.ask("load", runtime="cpu", network="cifar_resnet8", threads=1)
        assert caught.value.kind == "UnavailableError"
        load(worker, path)
        worker.ask("prepare", shape=[1, 3, 8], dtype="float32", seed=0, preprocessing=None)
        with pytest.raises(ChildError, match=r"rank|dimension") as caught:
            worker.ask("run", calls=1)
        assert "\n" not in str(caught.value)
        load(worker, path)
        assert len(worker.ask("run", calls=1)["seconds"]) == 1


@linux
def test_an_idle_worker_is_stopped(make_model: MakeModel) -> None:
    with Child("rexport.benchmarks.worker", rests=True) as worker:
        load(worker, make_model("m.onnx"))
        worker.ask("run", calls=5)
        assert becomes(worker.pid, "T")


@pytest.mark.slow
@linux
def test_a_worker_holds_its_own_runtime_only(make_model: MakeModel) -> None:
    ballast = np.ones(450 << 20, np.uint8)  # 450 MiB here must not count there
    with Child("rexport.benchmarks.worker", rests=True) as worker:
        load(worker, make_model("m.onnx"))
        assert "libtorch" not in Path(f"/proc/{worker.pid}/maps").read_text()
        assert 20 < worker.ask("peak memory")["mib"] < 400
    assert ballast.all()


def test_what_a_runtime_prints_does_not_reach_the_replies(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(
        "import os\n"
        "class Noisy:\n"
        "    def __init__(self, source, *, threads):\n"
        "        print('{}'); os.write(1, b'loading... {\"seconds\": [1e9]}\\n')\n"
        "    def run(self, images):\n"
        "        os.system('echo a child process prints too')\n"
    )
    (tmp_path / "noisy_worker.py").write_text(
        "from rexport._child import answer_requests; from rexport.benchmarks.worker import Worker\n"
        "from rexport.runtimes import RUNTIMES\n"
        "RUNTIMES['noisy'] = 'noisy:Noisy'; answer_requests(Worker().answer)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with Child("noisy_worker", environment=os.environ | {"PYTHONPATH": path}) as worker:
        loaded = worker.ask("load", runtime="noisy", path="m.onnx", threads=1)
        prepared = worker.ask("prepare", shape=[1, 3, 2, 2], dtype="float32", seed=0, preprocessing=None)
        seconds = worker.ask("run", calls=2)["seconds"]
        errors = worker.errors
    assert [sorted(loaded), sorted(prepared)] == [["affinity", "seconds"], []]
    assert max(seconds) < 100
    assert "loading..." in errors
    assert errors.count("a child process prints too") == 2


def test_a_killed_worker_is_an_error_and_not_a_hang(make_model: MakeModel) -> None:
    with Child("rexport.benchmarks.worker", rests=True) as worker:
        load(worker, make_model("m.onnx"))
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(ChildError, match="SIGKILL") as caught:
            worker.ask("run", calls=1)
    assert caught.value.kind == "Died"


@pytest.mark.slow
def test_a_row_whose_process_is_killed_leaves_the_others_alone(make_model: MakeModel, started: list[Child]) -> None:
    def kill_the_second(steps: int) -> None:
        with suppress(ProcessLookupError):  # from the second time on
            os.kill(started[1].pid, signal.SIGKILL)

    jobs = [job(make_model(f"{name}.onnx")) for name in "abc"]
    first, second, third = measure(jobs, min_seconds=0.1, min_calls=10, progress=calling(kill_the_second))
    assert isinstance(first, Timing)
    assert isinstance(third, Timing)
    assert len(first.rounds) == len(third.rounds) > 1
    assert isinstance(second, Failure)
    assert "SIGKILL" in second.reason


@pytest.mark.slow
def test_every_row_gets_the_calls_and_the_seconds_asked_for(make_model: MakeModel) -> None:
    jobs = [job(make_model("small.onnx")), job(make_model("large.onnx", size=64), size=64)]
    for timing in timings(jobs, min_seconds=0.2, min_calls=15):
        seconds = [second for block in timing.rounds for second in block]
        assert len(seconds) >= 15
        assert sum(seconds) >= 0.2


@pytest.mark.slow
def test_a_model_that_does_not_run_fails_alone(make_model: MakeModel, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    broken, whole = measure([job(tmp_path / "broken.onnx"), job(make_model("m.onnx"))], min_seconds=0, min_calls=1)
    assert isinstance(whole, Timing)
    assert isinstance(broken, Failure)
    assert broken.kind == "ModelFileError"


@linux
def test_a_stopped_worker_does_not_outlive_a_killed_parent(make_model: MakeModel) -> None:
    code = (
        "import sys, time; from rexport._child import Child; w = Child('rexport.benchmarks.worker', rests=True)\n"
        f"w.ask('load', runtime='cpu', path={str(make_model('m.onnx'))!r}, threads=1)\n"
        "print(w.pid, flush=True); time.sleep(60)"
    )
    check_end_with_parent(code, "T")


@pytest.mark.slow
def test_what_is_known_beside_the_times(make_model: MakeModel) -> None:
    (timing,) = timings([job(make_model("m.onnx"))], min_seconds=0.05, min_calls=4, launches=2)
    assert len(timing.launches) == 2
    assert sum(timing.launches) == len(timing.rounds) == len(timing.clocks)
    assert timing.load_seconds is not None
    assert 0 < timing.load_seconds < 30  # of a model of 500 bytes, on a machine that may be busy
    assert timing.first_call_seconds is not None
    assert timing.first_call_seconds > 0
    assert (timing.warm_up_calls or 0) > 10
    assert timing.phases_ms is None


@pytest.mark.slow
def test_every_launch_is_a_process_of_its_own(make_model: MakeModel, started: list[Child]) -> None:
    jobs = [job(make_model(f"{name}.onnx")) for name in "ab"]
    first, second = timings(jobs, min_seconds=0.05, min_calls=4, launches=2)
    assert len({child.pid for child in started}) == 4
    assert first.launches == second.launches
    assert all(rounds >= 1 for rounds in first.launches)


@pytest.mark.slow
def test_each_row_comes_as_often_before_another_as_after_it(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[list[int]] = []
    run_round = Launch.run_round

    def recorded(launch: Launch, order: Sequence[int]) -> None:
        orders.append(list(order))
        run_round(launch, order)

    monkeypatch.setattr(Launch, "run_round", recorded)
    measure([job(make_model(f"{name}.onnx")) for name in "abc"], min_seconds=0.1, min_calls=1)
    assert len(orders) > 3
    for order, back in zip(orders[::2], orders[1::2], strict=False):
        assert sorted(order) == [0, 1, 2]
        assert back == order[::-1]
    assert len({tuple(order) for order in orders}) > 2


@pytest.mark.slow
def test_ctrl_c_keeps_complete_rounds(make_model: MakeModel) -> None:
    steps = iter(range(1, 10**6))

    def interrupt(_: int) -> None:
        if next(steps) == 2 + 5:  # two were loaded; in the third round, when one of two has run
            raise KeyboardInterrupt

    jobs = [job(make_model(f"{name}.onnx")) for name in "ab"]
    with pytest.raises(Interrupted) as caught:
        measure(jobs, min_seconds=0.5, min_calls=10, progress=calling(interrupt))
    for timing in caught.value.outcomes:
        assert isinstance(timing, Timing)
        assert len(timing.rounds) == sum(timing.launches) == 2


def test_ctrl_c_before_anything_was_measured(make_model: MakeModel) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        measure([job(make_model("m.onnx"))], progress=calling(interrupt))
    (outcome,) = caught.value.outcomes
    assert isinstance(outcome, Failure)
    assert "interrupted before" in outcome.reason


def test_a_worker_that_hangs_is_told_in_time_and_ended(fakes: None, make_model: MakeModel) -> None:
    start = time.monotonic()
    with Child("rexport.benchmarks.worker", rests=True) as worker:
        load(worker, make_model("m.onnx"), runtime="hangs")
        with pytest.raises(ChildError, match=r"did not answer for 0\.5 s \(run\)") as caught:
            worker.ask("run", calls=1, limit=0.5)
        assert becomes(worker.pid, "Z", "gone")
    assert caught.value.kind == "TimeoutError"
    assert time.monotonic() - start < 40  # and not the minute that it hangs


@pytest.mark.slow
def test_rows_that_hang_or_crash_leave_the_others_alone(fakes: None, make_model: MakeModel) -> None:
    words = {"hangs": "did not answer for 8 s (warm up)", "crashes": "SIGSEGV", "is killed": "memory runs out"}
    good = job(make_model("m.onnx"))
    jobs = [good, *(replace(good, runtime=runtime) for runtime in words), good]
    first, *bad, last = measure(jobs, min_seconds=0.05, min_calls=4, timeout=8)
    assert isinstance(first, Timing)
    assert isinstance(last, Timing)
    for failure, reason in zip(bad, words.values(), strict=True):
        assert isinstance(failure, Failure)
        assert reason in failure.reason


@pytest.mark.slow
def test_a_device_s_phases_are_reported(fakes: None, make_model: MakeModel) -> None:
    (timing,) = timings([replace(job(make_model("m.onnx")), runtime="device")], min_seconds=0, min_calls=5)
    assert timing.phases_ms == {
        "upload": pytest.approx(1),
        "compute": pytest.approx(2),
        "download": pytest.approx(0.5),
    }


@pytest.mark.slow
def test_pictures_on_the_device_are_kept_once(fakes: None, make_model: MakeModel) -> None:
    path = make_model("m.onnx")
    on_device = replace(job(path), runtime="device", on_device=True)
    (timing, refused) = measure([on_device, replace(job(path), on_device=True)], min_seconds=0, min_calls=5)
    assert isinstance(timing, Timing)
    assert timing.phases_ms is None
    assert isinstance(refused, Failure)
    assert refused.kind == "UnavailableError"
    assert "without --on-device" in refused.reason


@pytest.mark.slow
def test_outputs_are_those_of_every_picture_at_any_batch(make_model: MakeModel, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
    np.save(tmp_path / "pictures.npy", pixels)
    shown = Pictures(path=tmp_path / "pictures.npy", preprocessing=Preprocessing(size=8))
    path = make_model("m.onnx")
    jobs = [replace(job(path), pictures=shown, shape=(batch, 3, 8, 8)) for batch in (3, 8)]
    measured = timings(jobs, min_seconds=0, min_calls=1, launches=2)
    expected = onnxruntime.InferenceSession(path).run(None, {"images": Preprocessing(size=8).normalise(pixels)})[0]
    for timing in measured:
        assert timing.outputs is not None
        # the same sums of 27 products, perhaps in another order: 27 roundings of 6e-8 of numbers up to 3
        np.testing.assert_allclose(timing.outputs, expected, atol=1e-5)


def test_with_a_preprocessing_every_call_starts_from_pixels() -> None:
    class Runtime:
        given: ClassVar[list[np.ndarray]] = []

        def run(self, images: np.ndarray) -> np.ndarray:
            self.given.append(images)
            return images

    stated = Preprocessing(size=8)
    worker = Worker()
    worker._runtime = Runtime()
    worker.answer(
        {"do": "prepare", "shape": [2, 8, 8, 3], "dtype": "uint8", "seed": 0, "preprocessing": stated.to_json()}
    )
    worker.answer({"do": "run", "calls": 2})
    assert len(Runtime.given) == 2
    for images in Runtime.given:
        np.testing.assert_array_equal(images, stated.normalise(worker._images))


def test_models_of_several_inputs_are_timed_and_compared(tmp_path: Path) -> None:
    model = graph("y = Add(a, b)", inputs="float[N, 3] a, int64[N, 3] c, float[N, 3] b", outputs="float[N, 3] y")
    save(model, tmp_path / "m.onnx")
    tensors = tuple(
        TensorInput(name=name, dtype=dtype, shape=(None, 3))
        for name, dtype in (("a", "float32"), ("c", "int64"), ("b", "float32"))
    )
    timed = Job(source=Source(path=tmp_path / "m.onnx"), runtime="cpu", shape=(4,), threads=1, tensors=tensors)
    worker = Worker()
    worker.answer({"do": "load", **timed.loading()})
    worker.answer({"do": "prepare", "seed": 0, **timed.images()})
    assert len(worker.answer({"do": "run", "calls": 2})["seconds"]) == 2
    a, b = np.arange(15, dtype=np.float32).reshape(5, 3), np.ones((5, 3), np.float32)
    np.savez(tmp_path / "x.npz", a=a, b=b, c=np.zeros((5, 3), np.int64))
    to = tmp_path / "o.npy"
    worker.answer(
        {"do": "outputs", "pictures": str(tmp_path / "x.npz"), "preprocessing": None, "batch": 4, "to": str(to)}
    )
    np.testing.assert_array_equal(np.load(to), a + b)
