"""What may go wrong on the device, for real: in each case the version from before stays."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.parser
import pytest

from rexport.deploy.golden import npy
from rexport.device._backends import OnnxRuntime
from rexport.device._errors import InstallError, UsageError
from rexport.device._install import install, load
from rexport.device._self_check import Version, _engine, classify, self_check
from rexport.device._worker_process import Bounds, WorkerError, ask_worker
from tests.deploy._bundles import maps
from tests.device._vendor import device_of, new_vendor, write
from tests.faults import self_checks
from tests.faults.vendor import archive, passed

if TYPE_CHECKING:
    from collections.abc import Callable

    from rexport.deploy.container import Contents
    from rexport.device._state import Device
    from tests.faults.vendor import Vendor


def _fails(vendor: Vendor, device: Device, contents: Contents, reason: str) -> None:
    first = install(device, archive(vendor.bundle(1)), check=passed).manifest
    with pytest.raises(InstallError, match=reason) as error:
        install(device, archive(contents))
    assert str(error.value).endswith(f"{first.id} is still active.")
    assert (device.active, device.read()["highest"], device.read()["pending"]) == (first.id, 1, None)
    assert [path.name for path in device.versions.iterdir()] == [first.id]
    failure = device.read()["failed"][-1]
    assert (failure["version"], failure["reason"] in str(error.value)) == (2, True)


def _logits(vendor: Vendor) -> np.ndarray:
    return np.load(io.BytesIO(vendor.files["golden/logits.npy"]))


def test_wrong_logits(vendor: Vendor, device: Device) -> None:
    near = npy(_logits(vendor) + np.float32(0.05) * np.abs(_logits(vendor)).max())
    _fails(vendor, device, vendor.bundle(2, logits=near), r"an SQNR of \d\d\.\d dB to the golden ones \(min 30 dB\)")


def test_another_likeliest_class(vendor: Vendor, device: Device) -> None:
    contents = vendor.bundle(2, lambda m: m["golden"].update(min_sqnr_db=-100), logits=npy(-_logits(vendor)))
    _fails(vendor, device, contents, "its top class is not that of")


def test_logits_of_another_shape(vendor: Vendor, device: Device) -> None:
    _fails(vendor, device, vendor.bundle(2, logits=npy(_logits(vendor)[:, :3])), r"shape \(1, 4\), and the golden")


@pytest.fixture(scope="module")
def vendor_of_maps(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    """One whose model gives three maps, ``p3`` to ``p5``, and no scores."""
    pytest.importorskip("cryptography", reason="signing takes it: pip install 'rexport[deploy]'")
    return new_vendor(tmp_path_factory.mktemp("maps"), maps())


def test_outputs_that_are_no_scores(tmp_path: Path, vendor_of_maps: Vendor) -> None:
    device = device_of(tmp_path, vendor_of_maps)
    check = install(device, archive(vendor_of_maps.bundle())).check
    assert check is not None
    assert (check.sqnr_db, check.same_top1) == (None, None)
    with pytest.raises(UsageError, match=r"gives no scores of classes; run .*model\.onnx in your own program"):
        classify(load(device), [tmp_path / "a.ppm"])


def test_the_smallest_map_counts_as_much_as_the_largest(tmp_path: Path, vendor_of_maps: Vendor) -> None:
    file = vendor_of_maps.document["golden"]["others"]["p5"]
    golden = np.load(io.BytesIO(vendor_of_maps.files[file]))
    changed = replace(vendor_of_maps, files={**vendor_of_maps.files, file: npy(golden * np.float32(1.1))})
    with pytest.raises(InstallError, match=r"its values of p5 have an SQNR of 20\.\d dB to the golden ones"):
        install(device_of(tmp_path, vendor_of_maps), archive(changed.bundle()))


@pytest.mark.parametrize("others", [{"p4": "golden/output-1.npy"}, {"p6": "golden/output-1.npy"}, {}])
def test_every_output_has_its_golden_one(tmp_path: Path, vendor_of_maps: Vendor, others: dict[str, str]) -> None:
    contents = vendor_of_maps.bundle(1, lambda m: m["golden"].update(others=others))
    with pytest.raises(InstallError, match="its outputs are p3, p4, p5, and not those of the manifest"):
        install(device_of(tmp_path, vendor_of_maps), archive(contents))


def test_too_slow(vendor: Vendor, device: Device) -> None:
    contents = vendor.bundle(2, lambda m: m["limits"].update(latency_ms=1e-6))
    _fails(vendor, device, contents, r"median latency is .* ms \(limit 1e-06 ms\)")


def test_a_model_that_is_none(vendor: Vendor, device: Device) -> None:
    _fails(vendor, device, vendor.bundle(2, model=b"\x08 this is no model"), "failed its self-check on onnxruntime")


@pytest.mark.slow
def test_a_hang(vendor: Vendor, device: Device) -> None:
    model = self_checks.endless(side=8, classes=4)
    _fails(vendor, device, vendor.bundle(2, lambda m: m["limits"].update(seconds=2), model=model), "not done after 2 s")


def test_more_memory_than_it_may(vendor: Vendor, device: Device) -> None:
    _fails(vendor, device, vendor.bundle(2, model=self_checks.greedy(side=8, classes=4)), "alloc|memory")


def test_a_crash(tmp_path: Path, vendor: Vendor, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site" / "onnxruntime").mkdir(parents=True)
    (tmp_path / "site" / "onnxruntime" / "__init__.py").write_text("import ctypes\nctypes.string_at(0)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    _fails(vendor, device, vendor.bundle(2), "it crashed with SIGSEGV")


def test_what_changed_on_the_disk_is_never_loaded(tmp_path: Path, vendor: Vendor, device: Device) -> None:
    """The worker hashes the very bytes that it gives to the runtime."""
    manifest = install(device, archive(vendor.bundle()), check=passed).manifest
    version = Version(device.root / "active", manifest, device.engines)
    (version.folder / "model.onnx").write_bytes(b"something else")
    with pytest.raises(InstallError, match=r"model\.onnx is not what the manifest says"):
        self_check(version)


def test_a_worker_that_says_nothing_or_nonsense(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("import os\nprint('no NumPy here', flush=True)\nos._exit(7)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    question = {"task": "build", "runtime": "rtx", "golden": {"input": ["/dev/null", ""]}, "model": ["", ""]}
    with pytest.raises(WorkerError, match="exit code 7, saying: no NumPy here"):
        ask_worker(question, Bounds(60, 1024))


@pytest.mark.slow
def test_a_runtime_of_a_gpu_is_not_usable_without_its_driver(vendor: Vendor, device: Device) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'rexport[rtx]'")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a GPU")
    with pytest.raises(WorkerError, match=r"libcuda|cuInit"):
        ask_worker({"task": "probe", "runtime": "rtx"}, Bounds(60, 4096, data_limit=False))
    contents = vendor.bundle(1, lambda m: m["target"].update(runtimes={"rtx": [], "onnxruntime": []}))
    done = install(device, archive(contents))
    assert done.check is not None
    assert done.check.runtime == "onnxruntime"


@pytest.mark.slow
def test_an_engine_is_built_once_for_version_gpu_and_model(vendor: Vendor, device: Device) -> None:
    """By TensorRT for RTX, which builds without a GPU; an engine has not been run by the agent yet."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="pip install 'rexport[rtx]'")
    manifest = install(device, archive(vendor.bundle()), check=passed).manifest
    version = Version(device.versions / manifest.id, manifest, device.engines)
    runtime = {"name": "rtx", "version": rtx.__version__, "capability": "86"}
    question: dict[str, Any] = {
        "runtime": "rtx",
        "golden": {"input": version.file("golden/input.npy")},
        "model": version.file("model.onnx"),
    }
    path, sha256 = _engine(version, runtime, question)
    built = device.engines / f"rtx-{rtx.__version__}-86-{manifest.files['model.onnx'].sha256[:16]}.engine"
    assert path == str(built)
    assert built.read_bytes().startswith(b"vtrt")
    made = built.stat().st_mtime_ns
    assert _engine(version, runtime, question) == [path, sha256]
    assert built.stat().st_mtime_ns == made
    built.write_bytes(b"rust")  # it is found out, and built again
    assert _engine(version, runtime, question)[0] == path
    assert built.read_bytes().startswith(b"vtrt")


def test_an_engine_of_the_bundle_is_taken_only_where_it_fits_exactly(vendor: Vendor, device: Device) -> None:
    entry = {"file": "golden/input.npy", "backend": "rtx", "version": "1.7.1.116", "capabilities": [86, 89]}
    manifest = install(device, archive(vendor.bundle(1, lambda m: m.update(engines=[entry]))), check=passed).manifest
    version = Version(device.versions / manifest.id, manifest, device.engines)
    fitting = {"name": "rtx", "version": "1.7.1.116", "capability": "89"}
    assert _engine(version, fitting, {}) == version.file("golden/input.npy")
    for other in ({"name": "tensorrt"}, {"version": "1.7.1.117"}, {"capability": "80"}):
        with pytest.raises((WorkerError, KeyError)):  # it would be built, from a question that is empty here
            _engine(version, {**fitting, **other}, {})


@pytest.mark.slow
def test_a_check_of_what_is_active(tmp_path: Path, vendor: Vendor, agent: Callable[..., Any]) -> None:
    assert agent("check")[0] == 5
    assert agent("install", write(vendor.bundle(), tmp_path / "b.rxb"))[0] == 0
    code, document = agent("check")
    assert (code, document["check"]["same_top1"]) == (0, True)


def test_products_of_8_bits_do_not_saturate() -> None:
    """Pairs of 255 × 127 leave 16 bits, in which processors without VNNI add them unless told otherwise."""
    ones = ", ".join(["127"] * 64)
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 20]>
        g (float[1, 8, 4, 4] x) => (float[1, 8, 4, 4] y)
        <float s = {{{1 / 255}}}, uint8 z = {{0}}, float ws = {{{1 / 127}}}, int8[8, 8, 1, 1] w = {{{ones}}},
         float ys = {{{8 / 255}}}>
        {{
            xq = QuantizeLinear(x, s, z)
            xd = DequantizeLinear(xq, s, z)
            wd = DequantizeLinear(w, ws)
            c = Conv(xd, wd)
            cq = QuantizeLinear(c, ys, z)
            y = DequantizeLinear(cq, ys, z)
        }}""")
    got = OnnxRuntime(model.SerializeToString()).run(np.ones((1, 8, 4, 4), np.float32))
    np.testing.assert_allclose(got, np.full_like(got, 8.0), rtol=1e-5)
