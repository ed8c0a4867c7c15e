"""What goes into a bundle is what was given, what comes of it is ONNX Runtime's, and the rest is refused in words."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from PIL import Image

from rexport._errors import (
    BundleError,
    DataError,
    EngineFileError,
    InputError,
    ModelFileError,
    UsageError,
    VerificationError,
)
from rexport._files import file_sha256
from rexport.calibration import calibrate
from rexport.deploy import container, golden, model_signing
from rexport.deploy.manifest import from_bytes
from rexport.deployment_settings import load_settings, write_settings
from rexport.device._manifest import Limits
from rexport.engine_file import facts_path
from rexport.model_file import Metadata, load, save
from rexport.preprocessing import Interpolation, Preprocessing
from rexport.quantization import ARM, X86, quantize
from tests._graphs import convolution, graph, run
from tests._settings import SETTINGS
from tests.deploy._bundles import CLASSES, classifier, fixed_key, made, maps, probabilities, raw_classifier, saved
from tests.runtimes._engines import describe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _array(bundle: Any, name: str) -> np.ndarray:
    array: np.ndarray = np.load(io.BytesIO(bundle.contents.files[name]))
    return array


def test_the_simple_case(tmp_path: Path) -> None:
    path = saved(tmp_path)
    bundle = made(tmp_path, path)
    assert bundle.notes == ()
    fixed_key(tmp_path).public().verify(bundle.contents.manifest, bundle.contents.signature)
    bundle.contents.require_files(from_bytes(bundle.contents.manifest))
    assert sorted(bundle.contents.files) == ["classes.json", "golden/input.npy", "golden/logits.npy", "model.onnx"]
    assert bundle.contents.files["model.onnx"] == path.read_bytes()
    assert json.loads(bundle.contents.files["classes.json"]) == list(CLASSES)
    document = bundle.manifest.to_json()
    assert document["target"] == {
        "system": "linux",
        "machines": ("aarch64", "x86_64"),
        "runtimes": {"onnxruntime": (">=1.17",)},
    }
    assert document["head"] == "logits"
    assert document["preprocessing"] == {
        "takes": "normalised",
        "size": 8,
        "resize": None,
        "crop": "centre",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bilinear-antialiased",
        "color": "RGB",
        "layout": "NCHW",
        "dtype": "float32",
        "scale": "1/255",
        "in_graph": [],
    }
    images, logits = _array(bundle, "golden/input.npy"), _array(bundle, "golden/logits.npy")
    assert (images.dtype, images.shape) == (np.float32, (1, 3, 8, 8))
    assert (logits.dtype, logits.shape) == (np.float32, (1, 4))
    np.testing.assert_array_equal(logits, run(classifier(), images)[0])


def test_how_pictures_are_resized_is_what_devices_are_told(tmp_path: Path) -> None:
    preprocessing = Preprocessing(size=8, resize=9, interpolation=Interpolation.BICUBIC, assumed=True)
    stated = made(tmp_path, preprocessing=preprocessing).manifest.preprocessing
    assert (stated["resize"], stated["interpolation"]) == (9, "bicubic-antialiased")


def test_the_same_again_is_the_same_to_the_byte(tmp_path: Path) -> None:
    path = saved(tmp_path)
    one, other = (container.to_rxb(made(tmp_path, path, openssf=True).contents) for _ in range(2))
    assert one == other
    assert container.to_rxb(made(tmp_path, path, openssf=True, version=2).contents) != one


def test_a_model_of_raw_pixels(tmp_path: Path) -> None:
    bundle = made(tmp_path, saved(tmp_path, raw_classifier()))
    images = _array(bundle, "golden/input.npy")
    assert (images.dtype, images.shape) == (np.uint8, (1, 8, 8, 3))
    assert images.min() < 64 < 192 < images.max()
    assert bundle.manifest.preprocessing["takes"] == "pixels"
    assert bundle.manifest.classes is None
    np.testing.assert_array_equal(_array(bundle, "golden/logits.npy"), run(raw_classifier(), images)[0])


def test_a_batch_that_the_model_insists_on(tmp_path: Path) -> None:
    assert _array(made(tmp_path, saved(tmp_path, classifier(batch="3"))), "golden/input.npy").shape == (3, 3, 8, 8)


@pytest.mark.parametrize(
    ("opset", "ir_version", "oldest"),
    [(17, 8, "1.17"), (20, 9, "1.17"), (20, 10, "1.18"), (21, 9, "1.18"), (22, 10, "1.21"), (23, 10, "1.24")],
)
def test_newer_operators_take_a_newer_runtime(tmp_path: Path, opset: int, ir_version: int, oldest: str) -> None:
    model = classifier(opset=opset)
    model.ir_version = ir_version
    assert made(tmp_path, saved(tmp_path, model)).manifest.target.runtimes == {"onnxruntime": (f">={oldest}",)}


def test_the_head_is_that_of_the_graph_whatever_the_metadata_says(tmp_path: Path) -> None:
    assert made(tmp_path, saved(tmp_path, probabilities())).manifest.head == "softmax"


def test_maps_are_compared_each_by_its_name(tmp_path: Path) -> None:
    bundle = made(tmp_path, saved(tmp_path, maps()))
    manifest = bundle.manifest
    assert (manifest.head, manifest.golden.same_top1, manifest.classes) == ("outputs", False, None)
    assert manifest.golden.others == {"p4": "golden/output-1.npy", "p5": "golden/output-2.npy"}
    images = _array(bundle, "golden/input.npy")
    files = [_array(bundle, file) for file in (manifest.golden.logits, *manifest.golden.others.values())]
    for array, expected in zip(files, run(maps(), images), strict=True):
        np.testing.assert_array_equal(array, expected)
    assert "gives no scores of classes: devices compare its outputs by their SQNR alone" in bundle.notes[0]


def test_an_output_of_more_than_scores_is_no_classifiers(tmp_path: Path) -> None:
    bundle = made(tmp_path, saved(tmp_path, maps(levels=1)))
    assert (bundle.manifest.head, bundle.manifest.golden.others) == ("outputs", {})
    assert "others" not in bundle.manifest.to_json()["golden"]


def test_an_output_that_is_no_floats(tmp_path: Path) -> None:
    model = graph(
        "c = Conv <pads = [1, 1, 1, 1]> (x, w) y = ArgMax <axis = 1> (c)",
        {"w": convolution(6, 3)},
        inputs="float[N, 3, 8, 8] x",
        outputs="int64[N, 1, 8, 8] y",
    )
    Metadata(preprocessing=Preprocessing(size=8)).write_to(model)
    with pytest.raises(ModelFileError, match=r"The output y of .* is int64 .*such as ArgMax"):
        made(tmp_path, saved(tmp_path, model))


def test_a_golden_picture_and_a_golden_array(tmp_path: Path) -> None:
    path = saved(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "g.png")
    normal = Preprocessing(size=8).normalise(pixels[None])
    np.save(tmp_path / "g.npy", normal)
    for name in ("g.png", "g.npy"):
        np.testing.assert_array_equal(_array(made(tmp_path, path, golden=tmp_path / name), "golden/input.npy"), normal)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((1, 3, 9, 9), np.float32), r"the model takes float32 of shape \(N, 3, 8, 8\)"),
        (np.zeros((3, 8, 8), np.float32), r"is float32 of shape \(3, 8, 8\)"),
        (np.zeros((1, 3, 8, 8)), "is float64"),
        (np.zeros((0, 3, 8, 8), np.float32), r"of shape \(0, 3, 8, 8\)"),
        (np.full((1, 3, 8, 8), np.nan, np.float32), "not finite"),
        (np.array([{}]), "is no array file"),
    ],
)
def test_a_golden_array_that_does_not_fit(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "g.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=words):
        made(tmp_path, golden=tmp_path / "g.npy")


def test_golden_files_that_can_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "g.png").write_text("text")
    with pytest.raises(DataError, match="not an image"):
        made(tmp_path, golden=tmp_path / "g.png")
    with pytest.raises(InputError, match="No such file"):
        made(tmp_path, golden=tmp_path / "none.npy")
    Image.new("RGB", (9, 9)).save(tmp_path / "g.png")
    with pytest.raises(DataError, match="9×9 pixels, and the model takes 8×8"):
        made(tmp_path, golden=tmp_path / "g.png")


def test_scores_that_are_close_are_told(tmp_path: Path) -> None:
    model = classifier()
    matrix = model.graph.initializers["m"]
    assert matrix.const_value is not None
    rows = matrix.const_value.numpy().copy()
    rows[1:] = rows[0]
    rows[1] *= 1 + 1e-4
    matrix.const_value = ir.tensor(rows, name="m")
    (note,) = made(tmp_path, saved(tmp_path, model)).notes
    assert "can exchange them" in note
    assert "--golden" in note


def _quantized(folder: Path, target: Any) -> Path:
    model = classifier()
    pictures = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    return saved(folder, quantize(model, calibrate(model, [pictures]), target=target).model)


def test_a_quantized_model_says_where_it_belongs(tmp_path: Path) -> None:
    bundle = made(tmp_path, _quantized(tmp_path, X86))
    assert bundle.manifest.target.machines == ("x86_64",)
    assert any("--reduce-range" in note for note in bundle.notes)
    bundle = made(tmp_path, _quantized(tmp_path, X86.with_reduced_range()))
    assert bundle.notes == ()
    assert made(tmp_path, _quantized(tmp_path, ARM)).manifest.target.machines == ("aarch64",)


def test_golden_scores_have_exact_sums_with_and_without_vnni(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _quantized(tmp_path, X86)
    scores = []
    for flags in (frozenset({"avx2"}), golden.this_cpu().flags):
        cpu = replace(golden.this_cpu(), flags=flags)
        monkeypatch.setattr(golden, "this_cpu", lambda cpu=cpu: cpu)
        scores.append(_array(made(tmp_path, path), "golden/logits.npy"))
    np.testing.assert_array_equal(*scores)
    images = _array(made(tmp_path, path), "golden/input.npy")
    np.testing.assert_array_equal(scores[0], run(load(path), images)[0])


def _engine(folder: Path, model: Path, *, name: str = "m", **changes: Any) -> Path:
    """Write a file that stands for a plan, and what is said of it."""
    path = folder / f"{name}.plan"
    path.write_bytes(b"a plan " * 32)
    tensors = {
        "inputs": ({"name": "x", "dtype": "float", "shape": [-1, 3, 8, 8]},),
        "outputs": ({"name": "y", "dtype": "float", "shape": [-1, 4]},),
    }
    usual = {"version": "10.3.0", "capabilities": (87,), "batch": (1, 1, 4), "onnx_sha256": file_sha256(model)}
    describe(path, **{**usual, **tensors, **changes})
    return path


def test_an_engine_of_a_fixed_batch_takes_that_batch_whatever_older_facts_say(tmp_path: Path) -> None:
    model = saved(tmp_path, classifier(batch="4"))
    inputs = ({"name": "x", "dtype": "float", "shape": [4, 3, 8, 8]},)
    bundle = made(tmp_path, model, engines=(_engine(tmp_path, model, inputs=inputs, batch=(1, 1, 1)),))
    assert len(bundle.manifest.engines) == 1


def test_engines_of_the_model(tmp_path: Path) -> None:
    model = saved(tmp_path)
    bundle = made(tmp_path, model, engines=(_engine(tmp_path, model),))
    (engine,) = bundle.manifest.engines
    assert (engine.file, engine.capabilities) == ("engines/tensorrt-10.3.0-87.engine", (87,))
    assert bundle.contents.files[engine.file] == b"a plan " * 32
    assert bundle.manifest.target.runtimes == {"tensorrt": (), "onnxruntime": (">=1.17",)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"onnx_sha256": "0" * 64}, "was built from another file"),
        ({"sha256": "0" * 64}, "is not the file that"),
        ({"batch": (2, 4, 8)}, r"takes 2 to 8 images, and the golden input has 1; build it with --batch 1:4:8"),
    ],
)
def test_engines_of_another_model(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    model = saved(tmp_path)
    with pytest.raises(EngineFileError, match=words):
        made(tmp_path, model, engines=(_engine(tmp_path, model, **changes),))


def test_engines_that_can_not_be_taken(tmp_path: Path) -> None:
    model = saved(tmp_path)
    engine = _engine(tmp_path, model)
    with pytest.raises(UsageError, match="is the second engine for tensorrt"):
        made(tmp_path, model, engines=(engine, _engine(tmp_path, model, name="n")))
    facts_path(engine).unlink()
    with pytest.raises(EngineFileError, match="is no engine of a known format"):
        made(tmp_path, model, engines=(engine,))


def test_settings_and_a_table_go_along(tmp_path: Path) -> None:
    model = saved(tmp_path)
    measured = replace(SETTINGS.model, file="m.onnx", sha256=file_sha256(model))
    write_settings(replace(SETTINGS, model=measured), tmp_path / "p.toml")
    table = calibrate(classifier(), [np.zeros((1, 3, 8, 8), np.float32)])
    (tmp_path / "t.json").write_text(table.to_json())
    bundle = made(tmp_path, model, profile=tmp_path / "p.toml", table=tmp_path / "t.json")
    assert (bundle.manifest.profile, bundle.manifest.table) == ("profile.toml", "table.json")
    container.write(bundle.contents, tmp_path / "b")
    settings = load_settings(tmp_path / "b" / "profile.toml")
    settings.check_model(settings.model_path(tmp_path / "b" / "profile.toml"))
    write_settings(SETTINGS, tmp_path / "p.toml")
    with pytest.raises(ModelFileError, match="is not the file that the settings were measured with"):
        made(tmp_path, model, profile=tmp_path / "p.toml")
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(DataError, match=r"t\.json"):
        made(tmp_path, model, table=tmp_path / "t.json")


@pytest.mark.parametrize("text", ["a\nb\nc\nd\n", '["a", "b", "c", "d"]'])
def test_class_names_of_a_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "names").write_text(text)
    bundle = made(tmp_path, classes=tmp_path / "names")
    assert json.loads(bundle.contents.files["classes.json"]) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("text", "words"), [("a\nb\n", "names 2 classes"), ("[1]", "not a list of names"), ("[", "JSON")]
)
def test_class_names_that_do_not_fit(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "names").write_text(text)
    with pytest.raises(InputError, match=words):
        made(tmp_path, classes=tmp_path / "names")


def _own_function(proto: onnx.ModelProto) -> None:
    node = onnx.helper.make_node("Relu", ["a"], ["b"])
    opset = onnx.helper.make_opsetid("", 17)
    proto.functions.append(onnx.helper.make_function("own", "Mine", ["a"], ["b"], [node], [opset]))
    proto.opset_import.append(onnx.helper.make_opsetid("own", 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_own_function, "defines functions of its own"),
        (lambda proto: proto.opset_import.append(onnx.helper.make_opsetid("com.example", 1)), "com.example"),
    ],
)
def test_models_that_devices_should_not_be_given(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], words: str
) -> None:
    proto = ir.to_proto(classifier())
    change(proto)
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match=words):
        made(tmp_path, tmp_path / "m.onnx")


def test_weights_in_another_file(tmp_path: Path) -> None:
    onnx.save(ir.to_proto(classifier()), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    with pytest.raises(ModelFileError, match="a device gets one; write it as one with `rexport fuse`"):
        made(tmp_path, tmp_path / "m.onnx")


def test_a_model_that_does_not_say_how_pictures_become_its_input(tmp_path: Path) -> None:
    model = classifier()
    Metadata().write_to(model)
    path = saved(tmp_path, model)
    with pytest.raises(InputError, match="does not say how pictures become its input"):
        made(tmp_path, path)
    assert made(tmp_path, path, preprocessing=Preprocessing(size=8)).manifest.preprocessing["size"] == 8


def test_scores_that_are_not_finite(tmp_path: Path) -> None:
    model = classifier()
    model.graph.initializers["m"].const_value = ir.tensor(np.full((4, 6), np.inf, np.float32), name="m")
    with pytest.raises(ModelFileError, match="not finite"):
        made(tmp_path, saved(tmp_path, model))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"name": "Tiny Net"}, BundleError, "'Tiny Net' is not a valid name"),
        ({"version": 0}, BundleError, "0 is not a valid version"),
        ({"expires": datetime.now(UTC) - timedelta(days=1)}, BundleError, "which is in the past"),
        ({"runtimes": {"abacus": ()}}, UsageError, "no runtime 'abacus'"),
        ({"runtimes": {"onnxruntime": ("~=1",)}}, BundleError, "'~=1' is not a version constraint"),
        ({"limits": Limits(seconds=0)}, BundleError, r"limits\.seconds"),
        ({"machines": ("a b",)}, BundleError, r"target\.machines"),
    ],
)
def test_options_that_make_no_sense(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        made(tmp_path, **options)


def test_openssfs_signature_is_of_the_files(tmp_path: Path) -> None:
    contents = made(tmp_path, openssf=True).contents
    model_signing.verify(contents, fixed_key(tmp_path).public())
    changed = replace(contents, files={**contents.files, "model.onnx": b"another"})
    with pytest.raises(VerificationError, match="of other files"):
        model_signing.verify(changed, fixed_key(tmp_path).public())


def test_a_model_can_be_named_as_it_likes(tmp_path: Path) -> None:
    save(classifier(), tmp_path / "ein Größeres.onnx")
    assert made(tmp_path, tmp_path / "ein Größeres.onnx").manifest.model == "model.onnx"
