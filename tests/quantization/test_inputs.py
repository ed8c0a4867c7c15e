"""Gram matrices and means of patches, against PyTorch's own unfolding of the same tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from rexport.passes.raw_image import with_raw_images
from rexport.preprocessing import Preprocessing
from rexport.quantization import inputs as module
from rexport.quantization.inputs import layers_with_patches, observe_inputs
from tests._graphs import convolution, graph, images, named, run_exposed, vector
from tests.quantization._tables import exported, pictures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir

    from rexport.quantization.rounding import Inputs

_SIZE = 12
_PICTURES = f"float[N, 3, {_SIZE}, {_SIZE}] x"
# of sums in float32, relative to the largest number of a matrix
_TOLERANCE = 1e-5


def _observed(model: ir.Model, *batches: np.ndarray, total: int | None = None) -> dict[str, Inputs]:
    """Return what each layer reads, by its name."""
    layers = layers_with_patches(model)
    count = sum(map(len, batches)) if total is None else total
    found = [(str(node.name), inputs) for node, inputs in observe_inputs(model, layers, lambda: batches, total=count)]
    assert [name for name, _ in found] == [node.name for node in layers]
    return dict(found)


def _expected(
    x: np.ndarray,
    kernel: Sequence[int],
    *,
    groups: int = 1,
    strides: Sequence[int] = (1, 1),
    dilations: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Gram matrices and means of all patches, in float64."""
    top, left, bottom, right = pads
    padded = torch.nn.functional.pad(torch.from_numpy(x).double(), (left, right, top, bottom))
    columns = torch.nn.functional.unfold(padded, tuple(kernel), dilation=tuple(dilations), stride=tuple(strides))
    patches = columns.transpose(1, 2).reshape(-1, groups, columns.shape[1] // groups).numpy()
    return np.einsum("ngk,ngl->gkl", patches, patches) / len(patches), patches.mean(axis=0)


def _assert_same(inputs: Inputs, gram: np.ndarray, mean: np.ndarray) -> None:
    assert inputs.gram.shape == gram.shape
    assert inputs.mean.shape == mean.shape
    assert inputs.gram.dtype == inputs.mean.dtype == np.float64
    np.testing.assert_allclose(inputs.gram, gram, rtol=0, atol=_TOLERANCE * np.abs(gram).max())
    np.testing.assert_allclose(inputs.mean, mean, rtol=0, atol=_TOLERANCE * np.sqrt(np.abs(gram).max()))


@pytest.fixture
def all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PER_COLUMN", 10**6)


_GEOMETRIES = {
    "3×3": {"kernel": (3, 3)},
    "1×1": {"kernel": (1, 1)},
    "padded": {"kernel": (3, 3), "pads": (1, 1, 1, 1)},
    "padded on one side": {"kernel": (3, 3), "pads": (0, 1, 2, 3)},
    "strides": {"kernel": (3, 3), "strides": (2, 3), "pads": (1, 1, 1, 1)},
    "strides that leave a border": {"kernel": (2, 2), "strides": (5, 5)},
    "dilations": {"kernel": (3, 3), "dilations": (2, 3), "pads": (2, 3, 2, 3)},
    "all of it, and not square": {
        "kernel": (2, 5),
        "strides": (2, 1),
        "dilations": (3, 2),
        "pads": (1, 4, 0, 2),
    },
    "groups": {"kernel": (3, 3), "groups": 2, "pads": (1, 1, 1, 1)},
    "depthwise": {"kernel": (3, 3), "groups": 6, "pads": (1, 1, 1, 1), "strides": (2, 2)},
    "the whole picture": {"kernel": (_SIZE, _SIZE)},
}


def _attributes(geometry: dict) -> str:
    names = {"groups": "group", "strides": "strides", "dilations": "dilations", "pads": "pads"}
    values = {
        names[key]: value if isinstance(value, int) else f"[{','.join(map(str, value))}]"
        for key, value in geometry.items()
        if key in names
    }
    return f"<{', '.join(f'{name}={value}' for name, value in values.items())}>" if values else ""


def _model(geometry: dict) -> ir.Model:
    """Return a model whose second convolution, called ``c``, has the geometry, and six channels of input."""
    weight = np.zeros((6, 6 // geometry.get("groups", 1), *geometry["kernel"]), np.float32)
    weights = {"w": convolution(6, 3, 1), "b": vector(6), "v": weight}
    return named(graph(f"a = Conv (x, w, b) y = Conv {_attributes(geometry)} (a, v)", weights, inputs=_PICTURES))


@pytest.mark.usefixtures("all_places")
@pytest.mark.parametrize("geometry", _GEOMETRIES.values(), ids=_GEOMETRIES)
def test_convolutions(geometry: dict) -> None:
    model, x = _model(geometry), images(5, _SIZE)
    observed = _observed(model, x[:3], x[3:])
    (a,) = run_exposed(model, x, ["a"])
    _assert_same(observed["a"], *_expected(x, (1, 1)))
    _assert_same(observed["y"], *_expected(a, **geometry))


@pytest.mark.parametrize("side", ["pads", "strides", "dilations"])
@pytest.mark.usefixtures("all_places")
def test_axes_that_are_exchanged_would_be_seen(side: str) -> None:
    geometry = _GEOMETRIES["all of it, and not square"]
    model, x = _model(geometry), images(5, _SIZE)
    (a,) = run_exposed(model, x, ["a"])
    observed = _observed(model, x)["y"]
    exchanged = {**geometry, side: tuple(np.roll(geometry[side], 1))}
    with pytest.raises(AssertionError):
        _assert_same(observed, *_expected(a, **exchanged))


def test_linear_layers_read_their_whole_input() -> None:
    weights = {"w": convolution(6, 3, 1), "k": vector(30).reshape(5, 6)}
    body = "a = Conv (x, w) g = GlobalAveragePool (a) f = Flatten (g) y = Gemm <transB=1> (f, k)"
    model = named(graph(body, weights, inputs=_PICTURES, outputs="float[N, 5] y"))
    x = images(7, _SIZE)
    (f,) = run_exposed(model, x, ["f"])
    inputs = _observed(model, x[:2], x[2:])["y"]
    _assert_same(inputs, (f.T.astype(np.float64) @ f / 7)[None], f.mean(axis=0, dtype=np.float64)[None])


@pytest.mark.slow
def test_a_sample_of_the_places_is_much_like_all_of_them() -> None:
    geometry = _GEOMETRIES["padded"]
    model, x = _model(geometry), images(200, _SIZE)
    (a,) = run_exposed(model, x, ["a"])
    gram, mean = _expected(a, **geometry)
    inputs = _observed(model, x)["y"]
    # 4 of 144 places of each picture, 800 patches of 54 numbers: 1 / √800 is 3.5 %, and 5 standard deviations of that
    assert np.abs(inputs.gram - gram).max() < 0.18 * np.abs(gram).max()
    assert np.abs(inputs.mean - mean).max() < 0.18 * np.sqrt(np.abs(gram).max())
    assert np.abs(inputs.gram - gram).max() > 1e-4 * np.abs(gram).max()  # it is a sample
    # as many patches as columns at least, or the matrix could not tell them apart
    assert np.linalg.matrix_rank(inputs.gram[0]) == 54


def test_the_same_images_give_the_same_matrices() -> None:
    model, x = _model(_GEOMETRIES["padded"]), images(10, _SIZE)
    first, again = _observed(model, x)["y"], _observed(model, x)["y"]
    np.testing.assert_array_equal(first.gram, again.gram)
    np.testing.assert_array_equal(first.mean, again.mean)


def test_how_images_are_split_makes_no_difference() -> None:
    model, x = _model(_GEOMETRIES["padded"]), images(10, _SIZE)
    whole, split = _observed(model, x)["y"], _observed(model, x[:3], x[3:])["y"]  # the same places of each
    _assert_same(split, whole.gram, whole.mean)


@pytest.mark.slow
@pytest.mark.parametrize("memory", [0, 30_000, 10**9])
def test_several_rounds_give_the_same(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = exported("cifar_resnet8"), pictures(6)
    expected = _observed(model, x)
    monkeypatch.setattr(module, "_MOST_MEMORY", memory)
    rounds = 0

    def starts() -> Iterator[np.ndarray]:
        nonlocal rounds
        rounds += 1
        yield x

    layers = layers_with_patches(model)
    for node, inputs in observe_inputs(model, layers, starts, total=len(x)):
        np.testing.assert_array_equal(inputs.gram, expected[str(node.name)].gram)
        np.testing.assert_array_equal(inputs.mean, expected[str(node.name)].mean)
    assert rounds == {0: len(layers), 30_000: rounds, 10**9: 1}[memory]
    assert (memory != 30_000) or 1 < rounds <= len(layers)


@pytest.mark.usefixtures("all_places")
@pytest.mark.parametrize(("geometry", "columns", "blocks"), [("1×1", 6, 2), ("3×3", 54, 4), ("groups", 27, 4)])
def test_of_a_large_layer_only_blocks_are_kept(
    geometry: str, columns: int, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = _model(_GEOMETRIES[geometry]), images(5, _SIZE)
    whole = _observed(model, x)["y"]
    monkeypatch.setattr(module, "_MOST_OF_A_LAYER", int(whole.gram.nbytes / (blocks - 0.5)))
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    inputs = _observed(model, x)["y"]
    np.testing.assert_array_equal(inputs.mean, whole.mean)
    assert inputs.gram.shape[:2] == (len(whole.gram), blocks)
    seen = np.zeros(columns)
    for group, part, gram in inputs.blocks():
        np.testing.assert_allclose(gram, whole.gram[group, part, part], rtol=0, atol=_TOLERANCE * np.abs(gram).max())
        seen[part] += 1
    assert (seen == len(whole.gram)).all()


def test_copies_that_fill_up_a_batch_do_not_count() -> None:
    weights = {"w": convolution(6, 3, 1), "k": vector(30).reshape(5, 6)}
    body = "a = Conv (x, w) g = GlobalAveragePool (a) f = Flatten (g) y = Gemm <transB=1> (f, k)"
    fixed = f"float[4, 3, {_SIZE}, {_SIZE}] x"
    x = images(6, _SIZE)
    any_batch = named(graph(body, weights, inputs=_PICTURES, outputs="float[N, 5] y"))
    of_four = named(graph(body, weights, inputs=fixed, outputs="float[4, 5] y"))
    expected = _observed(any_batch, x)["y"]
    _assert_same(_observed(of_four, x)["y"], expected.gram, expected.mean)


def test_raw_images_are_seen_as_their_numbers() -> None:
    preprocessing = Preprocessing(size=32)
    raw = with_raw_images(exported("cifar_resnet8"), preprocessing)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    observed = _observed(raw, pixels)
    stem = next(iter(observed.values()))
    assert stem.gram.shape == (1, 36, 36)  # a fourth channel tells the padding from the picture
    # pixels less their zero point, over 255
    assert 0.05 < np.diagonal(stem.gram[0])[:27].mean() < 0.15


def test_a_model_without_layers_gives_nothing() -> None:
    assert (
        _observed(graph("y = Relu (x)", outputs=_PICTURES.replace(" x", " y"), inputs=_PICTURES), images(1, 12)) == {}
    )


_REFUSED = {
    "auto_pad": ('y = Conv <auto_pad="SAME_UPPER"> (x, w)', {"w": convolution(4, 3)}, "float[N, C, H, W] y"),
    "a weight that is computed": (
        "v = Relu (w) y = Conv (x, v)",
        {"w": convolution(4, 3)},
        "float[N, C, H, W] y",
    ),
    "the weight the other way round": (
        "f = Flatten (x) y = Gemm (f, k)",
        {"k": np.zeros((3 * _SIZE**2, 4), np.float32)},
        "float[N, K] y",
    ),
    "the input the other way round": (
        "f = Flatten (x) y = Gemm <transA=1, transB=1> (f, k)",
        {"k": np.zeros((4, 2), np.float32)},
        "float[M, K] y",
    ),
}


@pytest.mark.parametrize(("body", "weights", "outputs"), _REFUSED.values(), ids=_REFUSED)
def test_layers_that_are_not_understood(body: str, weights: dict[str, np.ndarray], outputs: str) -> None:
    inputs = _PICTURES.replace("N", "2") if "transA" in body else _PICTURES
    assert layers_with_patches(named(graph(body, weights, inputs=inputs, outputs=outputs))) == []


def test_a_convolution_of_sequences_is_not_understood() -> None:
    model = graph(
        "s = Reshape (x, shape) c = Conv (s, w) y = Relu (c)",
        {"w": np.zeros((4, 36, 3), np.float32), "shape": np.int64([0, 36, 12])},
        inputs=_PICTURES,
        outputs="float[N, C, L] y",
    )
    assert layers_with_patches(named(model)) == []
