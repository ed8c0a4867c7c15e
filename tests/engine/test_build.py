"""Real engines for GPUs that are not here: what came of each layer, and that the same file gives the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import rexport.engine.build as build_module
from rexport._errors import GateError, ModelFileError, UnavailableError
from rexport.calibration import calibrate
from rexport.engine import BatchRange, BuildOptions, build_engine
from rexport.engine.gpu import this_gpu
from rexport.engine_file import BackendName, facts_path, read_facts, read_header, read_intact
from rexport.exporting import export
from rexport.model_file import save
from rexport.models import build
from rexport.passes.float16 import with_float16
from rexport.passes.raw_image import with_raw_images
from rexport.preprocessing import Preprocessing
from rexport.quantization import TENSORRT, X86, quantize
from tests._deep import deep
from tests._graphs import convolution, graph
from tests._networks import trained_like
from tests.deploy._bundles import probabilities
from tests.quantization._tables import exported, pictures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx_ir as ir

_RTX = BuildOptions(backend=BackendName.RTX, capabilities=(86, 89))


@pytest.fixture(autouse=True)
def _needs_rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'rexport[rtx]' to build engines without a GPU")


def _quantized(folder: Path, name: str = "cifar_resnet8", *, half: bool = False) -> Path:
    model = exported(name)
    target = TENSORRT.with_float16() if half else TENSORRT
    save(quantize(model, calibrate(model, [pictures(4)]), target=target).model, folder / "m.onnx")
    return folder / "m.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True], ids=["int8", "int8+fp16"])
def test_every_layer_is_in_integers_and_the_file_beside_it_says_so(tmp_path: Path, half: bool) -> None:
    path = tmp_path / "m.engine"
    built = build_engine(_quantized(tmp_path, half=half), _RTX, command="rexport engine …")
    built.save(path)
    facts = read_facts(path)
    assert facts == built.facts
    assert {layer["precision"] for layer in facts.layers} == {"int8"}
    assert len(facts.layers) == 10  # 9 convolutions, and the classifier
    assert (facts.backend, facts.capabilities, facts.batch) == ("rtx", (86, 89), (1, 1, 1))
    assert facts.inputs[0]["shape"][1:] == [3, 32, 32]
    header = read_header(path)
    assert (header.version, header.size) == (facts.version, path.stat().st_size)
    assert header.capabilities == (86, 89)
    read_intact(path, facts)
    assert json.loads(facts_path(path).read_text())["schema"] == "rexport.engine/1"


def test_a_fixed_batch_and_the_graphs_head_are_stated(tmp_path: Path) -> None:
    save(probabilities(batch="4"), tmp_path / "m.onnx")
    facts = build_engine(tmp_path / "m.onnx", _RTX).facts
    assert (facts.batch, facts.inputs[0]["shape"][0]) == ((4, 4, 4), 4)
    assert facts.metadata["rexport.head"] == "softmax"


@pytest.mark.slow
def test_the_same_file_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _quantized(tmp_path)
    # an open batch would not always do: then addresses that TensorRT's threads share find their way into names
    options = BuildOptions(backend=BackendName.RTX, batch=BatchRange(least=4, best=4, most=4))
    first = build_engine(model, options).data
    elsewhere = tmp_path / "a much longer name of a folder than the one before it"
    elsewhere.mkdir()
    os.link(model, elsewhere / "n.onnx")
    monkeypatch.setenv("SOMETHING_ELSE", "x" * 5000)
    assert build_engine(elsewhere / "n.onnx", options).data == first


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "cifar_preact_resnet8",
        "cifar_resnet8+cifar_plain8",
        "resnext[depth=11,stages=3,cardinality=4,base_width=4,stem_width=16]",
        "resnet[depth=11,stages=3,block=bottleneck,stem=deep,downsample=pool,stem_width=16,input_size=32]",
    ],
)
def test_other_networks_and_ensembles(tmp_path: Path, name: str) -> None:
    facts = build_engine(_quantized(tmp_path, name), _RTX).facts
    assert {layer["precision"] for layer in facts.layers} == {"int8"}


def _raw() -> ir.Model:
    return with_raw_images(exported("cifar_resnet8"), Preprocessing(size=32))


@pytest.mark.slow
def test_raw_images(tmp_path: Path) -> None:
    raw = _raw()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    save(quantize(raw, calibrate(raw, [pixels]), target=TENSORRT).model, tmp_path / "raw.onnx")
    facts = build_engine(tmp_path / "raw.onnx", _RTX).facts
    assert {layer["precision"] for layer in facts.layers} == {"int8"}
    assert facts.inputs[0]["dtype"] == "uint8"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layers"), [("cifar_resnet8", 10), ("cifar_resnet8+cifar_plain8", 18)])
def test_float16(tmp_path: Path, name: str, layers: int) -> None:
    save(with_float16(exported(name)).model, tmp_path / "m.onnx")
    found = [layer["precision"] for layer in build_engine(tmp_path / "m.onnx", _RTX).facts.layers]
    # "float" are those that the log does not name: a classifier, convolutions that it runs as one
    assert set(found) - {"float"} == {"float16"}
    assert (len(found), found.count("float16") > layers // 2) == (layers, True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_raw_images_in_float(tmp_path: Path, kind: str) -> None:
    save(with_float16(_raw()).model if kind == "float16" else _raw(), tmp_path / "m.onnx")
    facts = build_engine(tmp_path / "m.onnx", _RTX).facts
    assert facts.inputs[0]["dtype"] == "uint8"
    assert {layer["precision"] for layer in facts.layers} - {"float"} == {kind}
    assert facts.repairs == ("pixels-in-float: images_dequantized: uint8 pixels are now cast at the input",)


def test_a_float_file_stays_float(tmp_path: Path) -> None:
    save(exported("cifar_resnet8"), tmp_path / "m.onnx")
    found = [layer["precision"] for layer in build_engine(tmp_path / "m.onnx", _RTX).facts.layers]
    assert (set(found) - {"float"}, found.count("float32") >= 9) == ({"float32"}, True)


@pytest.mark.deep
@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d"])
def test_the_large_ones(tmp_path: Path, name: str) -> None:
    model = export(trained_like(build(name, seed=0)), preprocessing=Preprocessing(size=224)).model
    table = calibrate(model, [pictures(2, 224)])
    save(quantize(model, table, target=TENSORRT).model, tmp_path / "m.onnx")
    facts = build_engine(tmp_path / "m.onnx", _RTX).facts
    assert {layer["precision"] for layer in facts.layers} == {"int8"}
    assert [layer["op_type"] for layer in facts.layers].count("Conv") == 53


@pytest.mark.slow
def test_a_layer_that_came_out_in_float_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = build_module.compile_model

    def with_one_in_float(*arguments: Any, **options: Any) -> Any:
        compiled = real(*arguments, **options)
        return replace(compiled, precisions={**compiled.precisions, "layer1.0.conv1": "Float"})

    monkeypatch.setattr(build_module, "compile_model", with_one_in_float)
    with pytest.raises(GateError, match=r"^1 layers that the file quantizes came out in float, layer1\.0\.conv1;"):
        build_engine(_quantized(tmp_path), _RTX)


def test_a_file_for_another_target_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    network = exported("cifar_resnet8")
    save(quantize(network, calibrate(network, [pictures(2)]), target=X86).model, tmp_path / "x86.onnx")
    with pytest.raises(ModelFileError, match=r"\(rule symmetric\).* `rexport quantize --target tensorrt"):
        build_engine(tmp_path / "x86.onnx", _RTX)


def test_an_operator_that_tensorrt_lacks_is_named(tmp_path: Path) -> None:
    save(graph("y = MatMulInteger (x, x)", inputs="uint8[4, 4] x", outputs="int32[4, 4] y"), tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match="MatMulInteger"):
        build_engine(tmp_path / "m.onnx", _RTX)


@pytest.mark.parametrize("asked", [{"strip": True}, {"refittable": True}, *deep({"strip": True, "refittable": True})])
def test_what_rtx_strips_on_a_gpu_alone(tmp_path: Path, asked: dict[str, bool]) -> None:
    if this_gpu() is not None:
        pytest.skip("there is a GPU here")
    save(graph("y = Conv (x, w)", {"w": convolution(4, 3)}), tmp_path / "m.onnx")
    with pytest.raises(
        UnavailableError,
        match=r"RTX needs an NVIDIA GPU to build .*, and there is none here; leave out",
    ):
        build_engine(tmp_path / "m.onnx", replace(_RTX, **asked))


def test_warnings_are_kept_once(tmp_path: Path) -> None:
    save(graph("y = Conv (x, w)", {"w": convolution(4, 3)}), tmp_path / "m.onnx")
    options = replace(_RTX, hardware_compatible=True)  # which RTX has not, and says so
    warnings = build_engine(tmp_path / "m.onnx", options).facts.warnings
    assert warnings
    assert len(set(warnings)) == len(warnings)


def test_progress_has_a_length_and_reaches_its_end(tmp_path: Path) -> None:
    save(graph("y = Conv (x, w)", {"w": convolution(4, 3)}), tmp_path / "m.onnx")
    heard: list[tuple[int, str]] = []
    totals: list[int | None] = []

    @contextmanager
    def progress(description: str, total: int | None) -> Iterator[Any]:
        totals.append(total)
        yield lambda steps, *, now="": heard.append((steps, now))

    build_engine(tmp_path / "m.onnx", _RTX, progress=progress)
    assert [sum(steps for steps, _ in heard)] == totals
    assert all(steps >= 0 for steps, _ in heard)
    assert {now.split(" ")[0] for _, now in heard} >= {"Building", "Optimizing", "Timing"}


def test_a_compiler_that_crashes_leaves_the_caller_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crash").mkdir()
    (tmp_path / "crash" / "tensorrt_rtx.py").write_text("import signal\nsignal.raise_signal(signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "crash"))
    with pytest.raises(UnavailableError, match=r"compiler crashed; nothing was written\. Its process ended by SIGSEGV"):
        build_engine(_quantized(tmp_path), _RTX)


def test_the_process_that_compiles_loads_no_part_that_it_does_not_need() -> None:
    program = "import sys, rexport.engine.worker, rexport.engine.trt_compiler; print('onnx_ir' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False\n"


def test_tensorrt_itself_is_asked_for_where_it_is_missing(tmp_path: Path) -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        with pytest.raises(UnavailableError, match=r"pip install 'rexport\[tensorrt\]'"):
            build_engine(_quantized(tmp_path), BuildOptions(backend=BackendName.TENSORRT))
    else:
        pytest.skip("the package tensorrt is installed")
