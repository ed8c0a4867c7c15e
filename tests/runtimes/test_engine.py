"""Engine files on their runtimes: the logic on stand-ins for the driver and TensorRT, parity on a GPU where one is."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from rexport._errors import EngineFileError, UnavailableError, UsageError
from rexport.engine import BatchRange, BuildOptions, build_engine
from rexport.engine_file import BackendName
from rexport.runtimes import ENGINE_RUNTIMES, DeviceRuntime, default_runtime, open_runtime
from rexport.runtimes._tensorrt import LoadedEngine
from rexport.runtimes.engine import RtxEngine, TensorRtEngine
from rexport.runtimes.engine_trial import Limits
from rexport.runtimes.probes import probe
from rexport.runtimes.source import Source
from tests.runtimes._engines import at_address, change_facts, on_stand_in, tiny_images, write_stand_in, write_tiny
from tests.runtimes._files import images_for, on_cpu, write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtimes._engines import StandIns


def _open(path: Path, *, cuda_graph: bool = True) -> TensorRtEngine:
    return TensorRtEngine(Source(path=path), cuda_graph=cuda_graph, try_first=False)


@pytest.mark.parametrize("cuda_graph", [True, False], ids=["graph", "no graph"])
@pytest.mark.parametrize("kind", ["float", "raw"])
def test_the_outputs_are_the_models(kind: str, cuda_graph: bool, tmp_path: Path, stand_ins: StandIns) -> None:
    images = tiny_images(19, kind)  # two calls of 8, one of 3
    expected = on_cpu(write_tiny(tmp_path, kind), images)
    launches = stand_ins.launches
    with _open(write_stand_in(tmp_path, kind), cuda_graph=cuda_graph) as runtime:
        np.testing.assert_allclose(runtime.run(images), expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(runtime.run(images[::-1]), expected[::-1], rtol=1e-5, atol=1e-5)
        (everything,) = runtime.run_all(images).values()
        np.testing.assert_allclose(everything, expected, rtol=1e-5, atol=1e-5)
        assert (runtime.why_no_graph is None) == cuda_graph
    assert stand_ins.launches - launches == (9 if cuda_graph else 0)


@pytest.mark.slow
def test_everything_is_freed(tmp_path: Path, stand_ins: StandIns) -> None:
    gc.collect()
    before = stand_ins.live
    with _open(write_stand_in(tmp_path)) as runtime:
        for count in (1, 2, 3, 4, 5, 6, 1):  # more shapes than are kept
            runtime.run(tiny_images(count))
        runtime.keep(tiny_images(2))
        runtime.run_phases(tiny_images(2))
        assert stand_ins.live > before
    gc.collect()
    assert stand_ins.live == before


def test_a_fixed_batch_and_several_profiles(tmp_path: Path, stand_ins: StandIns) -> None:
    images = tiny_images(6)
    expected = on_cpu(write_tiny(tmp_path), images)
    with _open(write_stand_in(tmp_path, batch=4, profiles=[(4, 4, 4)])) as runtime:
        np.testing.assert_allclose(runtime.run(images), expected, rtol=1e-5, atol=1e-5)
        with pytest.raises(UnavailableError, match="takes 4 images at a time, not 6"):
            runtime.keep(images)
    path = write_stand_in(tmp_path, profiles=[(1, 4, 8), (1, 1, 2)])
    with pytest.raises(EngineFileError, match="does not match the file beside it: it has 4 tensors and profiles"):
        _open(path)  # a build makes one profile, and what lies beside it tells of one


def test_profiles_are_chosen_by_batch(tmp_path: Path, stand_ins: StandIns) -> None:
    import tensorrt  # the stand-in

    path, images = write_stand_in(tmp_path, profiles=[(3, 4, 8), (1, 1, 2)]), tiny_images(2)
    engine = LoadedEngine(tensorrt, path.read_bytes())
    memory = engine.memory(2, engine.shapes.profile_for(2).index)
    memory.upload(images)
    memory.compute()
    np.testing.assert_allclose(memory.download(), on_cpu(tmp_path / "float.onnx", images), rtol=1e-5, atol=1e-5)
    with pytest.raises(UnavailableError, match="refuses images of shape"):
        engine.memory(2, 0)


def test_kept_pictures_stay_and_phases_are_timed(tmp_path: Path, stand_ins: StandIns) -> None:
    images = tiny_images(8)
    expected = on_cpu(write_tiny(tmp_path), images)
    with _open(write_stand_in(tmp_path)) as runtime:
        assert isinstance(runtime, DeviceRuntime)
        with pytest.raises(UsageError, match=r"call keep\(images\) first"):
            runtime.run_kept()
        runtime.keep(images[:3])
        runtime.run(images[3:6])  # of the same shape
        np.testing.assert_allclose(runtime.run_kept(), expected[:3], rtol=1e-5, atol=1e-5)
        # the least disturbed of a few: a busy machine may stop for milliseconds in any phase
        phases = min((runtime.run_phases(images) for _ in range(5)), key=lambda phases: phases.download)
    assert phases.clock == "device"
    assert min(phases.upload, phases.compute, phases.download) > 0
    assert phases.compute > phases.download  # a network, against 320 bytes


@pytest.mark.parametrize("cuda_graph", [True, False], ids=["graph", "no graph"])
def test_pictures_on_the_device_are_run_without_a_copy(cuda_graph: bool, tmp_path: Path, stand_ins: StandIns) -> None:
    images = tiny_images(3)
    expected = on_cpu(write_tiny(tmp_path), images)
    with _open(write_stand_in(tmp_path), cuda_graph=cuda_graph) as runtime:
        runtime.run(images[::-1])
        cuda = runtime._engine.cuda
        first = runtime.run_there(on_stand_in(cuda, images))
        second = runtime.run_there(on_stand_in(cuda, images[::-1]))
        results = [at_address(result.ptr, result.shape) for result in (first, second)]
        np.testing.assert_allclose(results[0], expected, rtol=1e-5, atol=1e-5)  # not overwritten by the second
        np.testing.assert_allclose(results[1], expected[::-1], rtol=1e-5, atol=1e-5)
        # at its own addresses again, where the outputs of the first line would still be
        np.testing.assert_allclose(runtime.run(images), expected, rtol=1e-5, atol=1e-5)
        with pytest.raises(UnavailableError, match=r"takes float32 of shape \(3, 3, 16, 16\) here"):
            runtime.run_there(on_stand_in(cuda, images[..., 1:]))
        with pytest.raises(UsageError, match="not on the GPU"):
            runtime.run_there(torch.from_numpy(images))


def test_images_of_another_kind_are_refused(tmp_path: Path, stand_ins: StandIns) -> None:
    with _open(write_stand_in(tmp_path)) as runtime:
        with pytest.raises(UnavailableError, match="takes float32 of shape"):
            runtime.run(tiny_images(2, "raw"))
        with pytest.raises(UsageError, match="no images"):
            runtime.run(tiny_images(2)[:0])


def test_work_that_cannot_be_captured_is_queued_piece_by_piece(
    tmp_path: Path, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tiny_images(2)
    expected = on_cpu(write_tiny(tmp_path), images)
    real = LoadedEngine.execute

    def no_capture(self: LoadedEngine, context: object) -> None:
        if stand_ins.driver.cuStreamSynchronize(1):  # 901 while a stream is captured
            raise UnavailableError("The engine failed while running: not permitted.")
        real(self, context)

    monkeypatch.setattr(LoadedEngine, "execute", no_capture)
    with _open(write_stand_in(tmp_path)) as runtime:
        np.testing.assert_allclose(runtime.run(images), expected, rtol=1e-5, atol=1e-5)
        assert runtime.why_no_graph == "The engine failed while running: not permitted."


def test_the_file_says_which_runtime_runs_it(tmp_path: Path, rtx_engine: Path) -> None:
    assert default_runtime(Source(path=rtx_engine)) == "tensorrt-rtx-engine"
    assert default_runtime(Source(path=write_stand_in(tmp_path))) == "tensorrt-engine"
    assert default_runtime(Source(path=tmp_path / "m.onnx")) == "cpu"
    assert default_runtime(Source(network="cifar_resnet8")) == "torch"
    assert Source.parse(str(rtx_engine)).path == rtx_engine
    with pytest.raises(UsageError, match=r"gone\.engine does not exist"):
        Source.parse(str(tmp_path / "gone.engine"))


def test_other_runtimes_do_not_take_engines_nor_these_anything_else(rtx_engine: Path, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"ONNX Runtime runs ONNX files, and .* is an engine"):
        open_runtime("cpu", Source(path=rtx_engine))
    with pytest.raises(UnavailableError, match=r"so that tensorrt-rtx-engine runs it and tensorrt-engine does not"):
        TensorRtEngine(Source(path=rtx_engine))
    with pytest.raises(UnavailableError, match=r"make one with `rexport engine .*m\.onnx --backend rtx"):
        RtxEngine(Source(path=tmp_path / "m.onnx"))
    with pytest.raises(UnavailableError, match="make one with `rexport onnx cifar_resnet8 -o"):
        RtxEngine(Source(network="cifar_resnet8"))


@pytest.mark.slow
def test_the_probe_runs_what_it_built(stand_ins: StandIns) -> None:
    finding = probe("tensorrt-engine")
    assert (finding.usable, finding.version, finding.reason) == (True, "10.13.0.1", None)
    stand_ins.set(fault="crash")
    assert probe("tensorrt-engine").reason == "Its process ended by SIGSEGV."


def test_without_a_gpu_the_reason_is_given_and_the_process_lives(rtx_engine: Path) -> None:
    if probe("tensorrt-rtx-engine").usable:
        pytest.skip("there is a GPU")
    with pytest.raises(UnavailableError, match=r"needs an NVIDIA GPU\. .*\. To use it: install the NVIDIA driver"):
        open_runtime("tensorrt-rtx-engine", Source(path=rtx_engine), expendable=True)


def _built(backend: str, kind: str, folder: Path, batch: str = "1:4:8") -> Path:
    built = build_engine(write(kind, folder), BuildOptions(backend=BackendName(backend), batch=BatchRange.parse(batch)))
    built.save(folder / f"{kind}.engine")
    return folder / f"{kind}.engine"


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ENGINE_RUNTIMES)
@pytest.mark.parametrize("kind", ["float", "raw", "tensorrt"])
def test_on_a_gpu_the_logits_are_those_of_the_cpu(
    backend: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(f"{ENGINE_RUNTIMES[backend].replace('-', '_')}")
    path, images = _built(backend, kind, tmp_path), images_for(kind, 19)
    expected = on_cpu(tmp_path / f"{kind}.onnx", images)
    # a tenth of the logits' range is what 8 bits may differ by; TF32 has 10 bits
    tolerance = (0.1 if kind == "tensorrt" else 1e-2) * float(np.ptp(expected))
    kind_of = {"tensorrt": TensorRtEngine, "rtx": RtxEngine}[backend]
    results = []
    for cuda_graph in (True, False):
        with kind_of(Source(path=path), cuda_graph=cuda_graph, limits=Limits()) as runtime:
            for count in (1, 4, 5, 8, 19):
                np.testing.assert_allclose(runtime.run(images[:count]), expected[:count], atol=tolerance)
            runtime.keep(images[:4])
            np.testing.assert_allclose(runtime.run_kept(), expected[:4], atol=tolerance)
            phases = runtime.run_phases(images[:4])
            assert min(phases.upload, phases.compute, phases.download) > 0
            if backend == "tensorrt":
                assert (runtime.why_no_graph is None) == cuda_graph
            results.append(runtime.run(images[:8]))
    np.testing.assert_array_equal(*results)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ENGINE_RUNTIMES)
def test_on_a_gpu_pytorchs_tensors_are_run_without_a_copy(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(f"{ENGINE_RUNTIMES[backend].replace('-', '_')}")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    path, images = _built(backend, "float", tmp_path), images_for("float", 4)
    with open_runtime(ENGINE_RUNTIMES[backend], Source(path=path)) as runtime:
        expected = runtime.run(images)
        there = runtime.run_there(torch.from_numpy(images).cuda())  # type: ignore[attr-defined]
        np.testing.assert_array_equal(torch.from_dlpack(there).cpu().numpy(), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ENGINE_RUNTIMES)
def test_on_a_gpu_an_engine_for_another_one_is_refused(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(f"{ENGINE_RUNTIMES[backend].replace('-', '_')}")
    path = _built(backend, "float", tmp_path)
    change_facts(path, capabilities=[61])
    with pytest.raises(UnavailableError, match="built for GPUs of compute capability 61"):
        open_runtime(ENGINE_RUNTIMES[backend], Source(path=path))
