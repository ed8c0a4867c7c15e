"""What the providers for GPUs share, run for real on the CPU provider; and the refusals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest

from rexport._errors import ModelFileError, UnavailableError, UsageError
from rexport.runtimes import DeviceRuntime, Phases, open_runtime
from rexport.runtimes._device_memory import OrtMemory, cuda_stream
from rexport.runtimes.onnxruntime import open_session
from rexport.runtimes.onnxruntime_gpu import OnnxRuntimeGpu, check_it_ran_there, open_on_provider
from rexport.runtimes.probes import probe
from rexport.runtimes.source import Source
from tests.runtimes._files import KINDS, images_for, on_cpu, write

if TYPE_CHECKING:
    from collections.abc import Mapping


class _OnTheCpu(OnnxRuntimeGpu):
    """The shared part with nothing replaced but the provider and the device."""

    NAME: ClassVar[str] = "cpu"
    PROVIDER: ClassVar[str] = "CPUExecutionProvider"
    DEVICE: ClassVar[str] = "cpu"
    OPTIONS: ClassVar[Mapping[str, str]] = {}


def _assigned(**operators: str) -> Any:
    """Return a session of CUDA that says which operators run where, as ``Conv="CUDAExecutionProvider"``."""
    parts = [
        SimpleNamespace(ep_name=provider, get_nodes=lambda op=op: [SimpleNamespace(op_type=op)])
        for op, provider in operators.items()
    ]
    return SimpleNamespace(
        get_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        get_provider_graph_assignment_info=lambda: parts,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_are_those_of_a_plain_run(kind: str, tmp_path: Path) -> None:
    path, images = write(kind, tmp_path), images_for(kind, 5)
    expected = on_cpu(path, images)
    with _OnTheCpu(Source(path=path), threads=1) as runtime:
        logits = runtime.run(images)
        np.testing.assert_array_equal(runtime.run(images[:2]), on_cpu(path, images[:2]))
        np.testing.assert_array_equal(runtime.run(images[::-1]), on_cpu(path, images[::-1].copy()))
    np.testing.assert_array_equal(logits, expected)  # still: later calls wrote to the same memory


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    path, images = write("float", tmp_path, batch=4), images_for("float", 6)
    with _OnTheCpu(Source(path=path), threads=1) as runtime:
        np.testing.assert_array_equal(runtime.run(images), on_cpu(path, images))
        with pytest.raises(UsageError, match="takes batches of 4 only, not of 6"):
            runtime.keep(images)


def test_kept_pictures_stay(tmp_path: Path) -> None:
    path, images = write("float", tmp_path), images_for("float", 6)
    with _OnTheCpu(Source(path=path), threads=1) as runtime:
        with pytest.raises(UsageError, match=r"call keep\(images\) first"):
            runtime.run_kept()
        runtime.keep(images[:3])
        first = runtime.run_kept()
        runtime.run(images[3:])  # of the same shape
        again = runtime.run_kept()
    np.testing.assert_array_equal(first, on_cpu(path, images[:3]))
    np.testing.assert_array_equal(again, first)


def test_phases_are_timed(tmp_path: Path) -> None:
    with _OnTheCpu(Source(path=write("float", tmp_path)), threads=1) as runtime:
        assert isinstance(runtime, DeviceRuntime)
        phases = runtime.run_phases(images_for("float", 64))
    assert phases.clock == "host"
    assert 0 < phases.upload < phases.compute  # 0.8 MB copied, against 64 runs of a network
    assert 0 < phases.download < phases.compute


def test_phases_of_several_batches_add_up() -> None:
    one = Phases(upload=1.0, compute=2.0, download=0.5, clock="host")
    assert Phases.sum_of([one, one, one]) == Phases(upload=3.0, compute=6.0, download=1.5, clock="host")


def test_memory_is_allocated_once(tmp_path: Path) -> None:
    images = images_for("float", 3)
    memory = OrtMemory(open_session(write("float", tmp_path), threads=1), images, "cpu")
    places = set()
    for _ in range(3):
        memory.upload(images)
        memory.compute()
        memory.download()
        places.add((memory._images.data_ptr(), memory._binding.get_outputs()[0].data_ptr()))
    assert len(places) == 1


def test_a_pytorch_for_the_cpu_makes_no_stream() -> None:
    if probe("cuda").usable:
        pytest.skip("there is a GPU")
    assert cuda_stream() is None


def test_a_session_on_another_provider_is_refused(tmp_path: Path) -> None:
    session = open_session(write("float", tmp_path), threads=1)
    with pytest.raises(UnavailableError, match=r"fell back to CPUExecutionProvider\. To use it: pip install 'onnx"):
        check_it_ran_there(session, Path("m.onnx"), name="cuda", provider="CUDAExecutionProvider")


def test_a_provider_that_does_not_load_is_refused(tmp_path: Path) -> None:
    if probe("cuda").usable:
        pytest.skip("there is a GPU")
    arguments: dict[str, Any] = {"options": {}, "entries": {}, "threads": 1}
    path = write("float", tmp_path)
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        with pytest.raises(UnavailableError, match="fell back to CPUExecutionProvider"):
            open_on_provider(path, name="cuda", provider="CUDAExecutionProvider", **arguments)
    with pytest.raises(UnavailableError, match=r"TensorRT provider (can't load|is not usable here)"):
        open_on_provider(path, name="tensorrt", provider="TensorrtExecutionProvider", **arguments)


def test_operators_that_run_elsewhere_are_refused() -> None:
    session = _assigned(Conv="CUDAExecutionProvider", Gemm="CPUExecutionProvider", Relu="CUDAExecutionProvider")
    with pytest.raises(UnavailableError, match=r"can't run all of m\.onnx: 1 Gemm would fall back to the CPU"):
        check_it_ran_there(session, Path("m.onnx"), name="cuda", provider="CUDAExecutionProvider", tells_where=True)


def test_the_arithmetic_of_sizes_may_stay_on_the_cpu() -> None:
    where = {"provider": "CUDAExecutionProvider", "name": "cuda", "tells_where": True}
    sizes = {"Shape": "CPUExecutionProvider", "Gather": "CPUExecutionProvider"}
    check_it_ran_there(_assigned(Conv="CUDAExecutionProvider", **sizes), Path("m.onnx"), **where)
    with pytest.raises(
        UnavailableError, match="1 Gather would fall back"
    ):  # without a Shape, it gathers something else
        check_it_ran_there(_assigned(Gather="CPUExecutionProvider"), Path("m.onnx"), **where)
    with pytest.raises(UnavailableError, match="1 Conv would fall back"):
        check_it_ran_there(_assigned(Conv="CPUExecutionProvider", **sizes), Path("m.onnx"), **where)


def test_onnxruntime_says_where_operators_run(tmp_path: Path) -> None:
    """The check reads what the real ONNX Runtime says: there, this is the CPU's model."""
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        pytest.skip("this ONNX Runtime does not say")
    path = write("float", tmp_path)
    session = open_on_provider(path, name="cpu", provider="CPUExecutionProvider", options={}, entries={}, threads=1)
    said = [node.op_type for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()]
    assert said.count("Conv") == sum(node.op_type == "Conv" for node in onnx.load(path).graph.node)
    as_cuda = SimpleNamespace(
        get_providers=lambda: ["CUDAExecutionProvider"],
        get_provider_graph_assignment_info=session.get_provider_graph_assignment_info,
    )
    with pytest.raises(UnavailableError, match=rf"\b{said.count('Conv')} Conv\b.* would fall back to the CPU"):
        check_it_ran_there(as_cuda, path, name="cuda", provider="CUDAExecutionProvider", tells_where=True)


@pytest.mark.parametrize("bad", [b"not a model", b""], ids=["garbage", "empty"])
def test_a_model_that_does_not_load_is_a_model_file_error(bad: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(bad)
    with pytest.raises(ModelFileError, match=r"bad\.onnx does not load"):
        _OnTheCpu(Source(path=tmp_path / "bad.onnx"))


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_asked_for_and_not_there_says_why_and_what_to_install(name: str, tmp_path: Path) -> None:
    if probe(name).usable:
        pytest.skip(f"{name} is usable here")
    with pytest.raises(
        UnavailableError, match=r"is not usable here: .+\. To use it: (Install the NVIDIA driver|pip install)"
    ):
        open_runtime(name, Source(path=write("float", tmp_path)))


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "kind"), [(n, k) for n in ("cuda", "tensorrt") for k in ("float", "raw", "tensorrt")])
def test_on_a_gpu_the_logits_are_those_of_the_cpu(
    name: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue(name)
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "cache"))
    path, images = write(kind, tmp_path), images_for(kind, 5)
    expected = on_cpu(path, images)
    # a tenth of the logits' range is what 8 bits may differ by; TensorRT's TF32 has 10 bits, float32 here 23
    tolerance = (0.1 if kind == "tensorrt" else 1e-2 if name == "tensorrt" else 1e-4) * float(np.ptp(expected))
    with open_runtime(name, Source(path=path), threads=1) as runtime:
        assert isinstance(runtime, DeviceRuntime)
        np.testing.assert_allclose(runtime.run(images), expected, atol=tolerance)
        np.testing.assert_allclose(runtime.run(images[:2]), expected[:2], atol=tolerance)
        runtime.keep(images)
        np.testing.assert_allclose(runtime.run_kept(), expected, atol=tolerance)
        phases = runtime.run_phases(images)
        assert min(phases.upload, phases.compute, phases.download) > 0
