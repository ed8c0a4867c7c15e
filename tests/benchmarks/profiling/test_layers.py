"""Profiles of real files by the real runtimes."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from rexport._errors import ModelFileError, UnavailableError, UsageError
from rexport.benchmarks.profiling.layers import profile_layers
from rexport.calibration import calibrate
from rexport.cost import macs_of
from rexport.model_file import save
from rexport.quantization import OPENVINO, X86, quantize
from tests._networks import export_once
from tests.quantization._tables import exported, pictures

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.benchmarks.profiling.profiled import LayerProfile
    from tests._products import Products

_NAME = "cifar_resnet8"
_ISLAND = "layer2.0.conv1"


def _int8(target: object, **options: object) -> ir.Model:
    model = exported(_NAME)
    return quantize(model, calibrate(model, [pictures(8)]), target=target, **options).model  # type: ignore[arg-type]


def _profile(model: ir.Model, folder: Path, runtime: str, **options: int) -> LayerProfile:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    save(model, folder / "m.onnx")
    return profile_layers(folder / "m.onnx", runtime=runtime, threads=1, **{"calls": 10, **options})


def _check(profile: LayerProfile, model: ir.Model) -> None:
    """Every convolution is there once, under its name, with its MACs; the shares are those of a whole."""
    convolutions = [str(node.name) for node in model.graph if node.op_type == "Conv"]
    found = [layer for layer in profile.layers if layer.op_type == "Conv"]
    assert sorted(layer.name for layer in found) == sorted(convolutions)
    macs = macs_of(model)
    assert {layer.name: layer.macs for layer in profile.layers if layer.macs} == macs
    assert math.fsum(layer.share for layer in profile.layers) == pytest.approx(1, abs=1e-9)
    assert len({layer.name for layer in profile.layers}) == len(profile.layers)
    assert all(layer.seconds >= 0 for layer in profile.layers)
    assert profile.call_seconds > 0


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "target"), [("cpu", X86), ("openvino", OPENVINO)])
def test_an_int8_file_runs_on_integers(tmp_path: Path, runtime: str, target: object) -> None:
    model = _int8(target)
    profile = _profile(model, tmp_path, runtime, batch=2)
    _check(profile, model)
    assert {layer.precision for layer in profile.layers if layer.op_type == "Conv"} == {"int8"}
    assert not [layer.advice for layer in profile.layers if layer.macs and "in an INT8 model" in (layer.advice or "")]
    document = asdict(profile)
    assert (document["runtime"], document["batch"], document["threads"]) == (runtime, 2, 1)
    assert {"name", "op_type", "precision", "macs", "seconds", "share", "advice"} <= set(document["layers"][0])


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["cpu", "openvino"])
def test_a_float_file_runs_on_floats(tmp_path: Path, runtime: str) -> None:
    model = exported(_NAME)
    profile = _profile(model, tmp_path, runtime)
    _check(profile, model)
    assert {layer.precision for layer in profile.layers if layer.macs} == {"float32"}
    assert any("rexport quantize" in remark for remark in profile.remarks)
    assert any(layer.op_type == "layout change" for layer in profile.layers)


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "target"), [("cpu", X86), ("openvino", OPENVINO)])
def test_a_planted_float_island_is_named(tmp_path: Path, runtime: str, target: object) -> None:
    model = _int8(target, keep_float={_ISLAND})
    profile = _profile(model, tmp_path, runtime)
    _check(profile, model)
    islands = {layer.name for layer in profile.layers if layer.advice and "in an INT8 model" in layer.advice}
    assert islands == {_ISLAND}


@pytest.mark.slow
def test_raw_images_and_a_model_whose_nodes_have_no_names(tmp_path: Path, products: Products) -> None:
    model = export_once(products, _NAME, raw_image=True).model
    expected = sorted(str(node.outputs[0].name) for node in model.graph if node.op_type == "Conv")
    for node in model.graph:
        node.name = ""
    profile = _profile(model, tmp_path, "cpu")
    assert sorted(layer.name for layer in profile.layers if layer.op_type == "Conv") == expected


@pytest.mark.slow
def test_names_that_end_like_the_runtimes_are_not_confused(tmp_path: Path) -> None:
    model = exported(_NAME)
    convolutions = [node for node in model.graph if node.op_type == "Conv"]
    for node, name in zip(convolutions, ["conv", "conv_nchwc", "conv_token_1", "rx0x", "ReorderInput"], strict=False):
        node.name = name
    _check(_profile(model, tmp_path, "cpu"), model)


@pytest.mark.slow
def test_what_can_not_be_profiled_says_so(tmp_path: Path) -> None:
    model = exported(_NAME)
    save(model, tmp_path / "m.onnx")
    with pytest.raises(UnavailableError, match="Layers of torch can't be profiled; choose from cpu, openvino"):
        profile_layers(tmp_path / "m.onnx", runtime="torch")
    with pytest.raises(UsageError, match="1 thread and 10 calls"):
        profile_layers(tmp_path / "m.onnx", calls=9)
    with pytest.raises(ModelFileError, match="does not exist"):
        profile_layers(tmp_path / "missing.onnx")
    model.graph.inputs[0].shape = ir.Shape([2, 3, 32, 32])
    save(model, tmp_path / "f.onnx")
    with pytest.raises(UsageError, match="takes batches of 2 only"):
        profile_layers(tmp_path / "f.onnx", batch=8)
    assert profile_layers(tmp_path / "f.onnx", batch=2, threads=1, calls=10).batch == 2


@pytest.mark.slow
def test_a_model_that_a_runtime_refuses_is_named(tmp_path: Path) -> None:
    model = exported(_NAME).clone()
    node = next(node for node in model.graph if node.op_type == "Relu")
    node.domain, node.op_type = "some.where", "Strange"
    model.opset_imports["some.where"] = 1
    save(model, tmp_path / "odd.onnx")
    with pytest.raises(ModelFileError, match=r"odd\.onnx can't be profiled on cpu: .*Strange"):
        profile_layers(tmp_path / "odd.onnx", threads=1, calls=10)


@pytest.mark.slow
def test_a_profile_is_of_the_picture_that_the_file_takes(tmp_path: Path) -> None:
    profile = _profile(exported(_NAME), tmp_path, "cpu", batch=3)
    (first,) = (layer for layer in profile.layers if layer.name == "conv1")
    speed = first.gmacs_per_second
    assert speed == pytest.approx(3 * 16 * 32 * 32 * 27 / first.seconds / 1e9)
    assert first.convolution is not None
    assert (first.convolution.inputs, first.convolution.kernel, first.weights) == (3, (3, 3), 16 * 27)
    assert np.isfinite(profile.call_seconds)
