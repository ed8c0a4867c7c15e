from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from rexport._errors import DataError
from rexport.calibration import TensorRange, TensorStatistics, calibrate, observed_tensors
from rexport.model_file import model_hash, save
from tests._graphs import convolution, graph, images, run_exposed, vector

_WEIGHTS = {"w1": convolution(8, 3), "b1": vector(8), "w2": convolution(8, 8), "wf": convolution(5, 8, 1)[:, :, 0, 0]}

# a residual block with every kind of reader: sums that only a ReLU reads are not watched
_BLOCK = """
    stem = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
    relu = Relu(stem)
    small = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(relu)
    branch = Conv<pads = [1, 1, 1, 1]>(small, w2)
    sum = Add(branch, small)
    activated = Relu(sum)
    pooled = GlobalAveragePool(activated)
    flat = Flatten(pooled)
    y = Gemm<transB = 1>(flat, wf)
"""
_WATCHED = ("x", "relu", "small", "branch", "activated", "pooled", "flat", "y")


def block() -> ir.Model:
    return graph(_BLOCK, _WEIGHTS, outputs="float[N, 5] y")


def test_sums_that_only_a_relu_reads_are_not_watched() -> None:
    assert observed_tensors(block()) == _WATCHED


def test_a_sum_that_is_an_output_or_has_a_second_reader_is_watched() -> None:
    read_twice = graph("a = Conv(x, w1) b = Relu(a) c = Sigmoid(a) y = Add(b, c)", {"w1": _WEIGHTS["w1"]})
    assert observed_tensors(read_twice) == ("x", "a", "b", "c", "y")
    output = graph(
        "a = Conv(x, w1) y = Relu(a)",
        {"w1": _WEIGHTS["w1"]},
        outputs="float[N, 8, 14, 14] y, float[N, 8, 14, 14] a",
    )
    assert observed_tensors(output) == ("x", "a", "y")


def test_a_sum_that_is_clipped_away_from_zero_is_watched() -> None:
    body = "a = Conv(x, w1) y = Clip(a, low, high)"
    cap = {"w1": _WEIGHTS["w1"], "low": np.float32(0), "high": np.float32(6)}
    assert observed_tensors(graph(body, cap)) == ("x", "y")  # ReLU6
    assert observed_tensors(graph(body, {**cap, "low": np.float32(-1)})) == ("x", "a", "y")


def test_integers_are_not_watched() -> None:
    model = graph("s = Shape(x) f = Cast<to = 1>(s) n = ReduceMax<keepdims = 1>(f) y = Mul(x, n)")
    assert observed_tensors(model) == ("x", "f", "n", "y")


def test_ranges_are_those_of_a_run_with_every_tensor_exposed() -> None:
    model, batches = block(), [images(n, seed=n) for n in (4, 1, 7)]
    table = calibrate(model, batches)
    assert (table.images, table.model_sha256) == (12, model_hash(model))
    assert tuple(table.tensors) == _WATCHED
    seen = [run_exposed(model, batch, _WATCHED) for batch in batches]
    for name, arrays in zip(_WATCHED, zip(*seen, strict=True), strict=True):
        values = np.concatenate(arrays)
        if name == "branch":  # what the ReLU behind the sum lets through of it
            small, after = (
                np.concatenate([batch[_WATCHED.index(one)] for batch in seen]) for one in ("small", "activated")
            )
            np.testing.assert_allclose(after - small, np.maximum(values, -small), rtol=0, atol=1e-6)
            values = after - small
        found, expected = table.tensors[name], TensorStatistics.of(values)
        # the runtime adds up a channel's 256 or fewer values of an image in float32
        np.testing.assert_allclose(found.channel_means, expected.channel_means, rtol=0, atol=1e-6, err_msg=name)
        assert replace(found, channel_sums=()) == replace(expected, channel_sums=()), name


@pytest.mark.parametrize("batch", [1, 3, 5, 16])
def test_neither_the_batch_nor_the_order_matters(batch: int) -> None:
    model, all_of_them = block(), images(16)
    expected = calibrate(model, [all_of_them]).tensors
    shuffled = all_of_them[np.random.default_rng(1).permutation(16)]
    ranges = calibrate(model, [shuffled[i : i + batch] for i in range(0, 16, batch)], threads=1).tensors
    for name, seen in expected.items():
        # sums of 72 products may be added up in another order; their sizes are about 1
        np.testing.assert_allclose(
            [ranges[name].low, ranges[name].high], [seen.low, seen.high], rtol=0, atol=1e-5, err_msg=name
        )
    assert ranges["x"] == expected["x"]  # sums, counts and all


def test_a_model_that_insists_on_a_batch_takes_any_number_of_images() -> None:
    fixed = graph(_BLOCK, _WEIGHTS, inputs="float[8, 3, 16, 16] x", outputs="float[8, 5] y")
    free, ten = block(), images(10)
    for batches in ([ten], [ten[:8], ten[8:]], [ten[:3], ten[3:]]):
        table = calibrate(fixed, batches)
        assert table.images == 10
        for name, seen in calibrate(free, [ten]).tensors.items():
            np.testing.assert_allclose(
                [table.tensors[name].low, table.tensors[name].high], [seen.low, seen.high], rtol=0, atol=1e-5
            )


def test_an_input_may_be_an_output_too() -> None:
    model = graph(
        "a = Conv(x, w1) y = Relu(a)",
        {"w1": _WEIGHTS["w1"]},
        outputs="float[N, 3, 16, 16] x, float[N, 8, 14, 14] y",
    )
    x = images(2)
    assert calibrate(model, [x]).tensors["x"].range == TensorRange(float(x.min()), float(x.max()))


def test_a_model_of_which_nothing_is_left_has_an_input_all_the_same() -> None:
    image = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 16, 16])
    proto = onnx.helper.make_model(
        onnx.helper.make_graph([], "g", [image], [image]),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=9,
    )
    table = calibrate(ir.from_proto(proto), [images(2)], threads=1)
    assert list(table.tensors) == ["x"]


def test_the_model_stays_as_it_was() -> None:
    model = block()
    before = model_hash(model)
    calibrate(model, [images(2)])
    assert model_hash(model) == before
    assert [output.name for output in model.graph.outputs] == ["y"]


def test_the_bar_moves_by_images() -> None:
    told: list[object] = []

    @contextmanager
    def progress(description, total):
        told.append((description, total))
        yield told.append

    calibrate(block(), [images(4), images(1)], total=5, progress=progress)
    assert told == [("calibrating", 5), 4, 1]


@pytest.mark.parametrize("batches", [[], [images(0)]], ids=["no batches", "an empty batch"])
def test_no_images_are_a_data_error(batches: list[np.ndarray]) -> None:
    with pytest.raises(DataError, match="no images"):
        calibrate(block(), batches)


def test_an_empty_batch_among_others_is_passed_over() -> None:
    assert calibrate(block(), [images(2), images(0), images(1)]).images == 3


@pytest.mark.parametrize(
    ("weight", "tensor", "bad"),
    [
        (weight, tensor, bad)
        for weight, tensor in (("w1", "relu"), ("b1", "relu"), ("w2", "branch"), ("wf", "y"))
        for bad in (np.nan, np.inf, -np.inf)
        if (weight, bad) != ("b1", -np.inf)  # a ReLU makes that zero, and zero it is
    ],
)
def test_weights_that_are_not_finite_name_the_first_tensor_they_reach(weight: str, tensor: str, bad: float) -> None:
    broken = _WEIGHTS[weight].copy()
    broken.flat[broken.size // 2] = bad
    with pytest.raises(DataError, match=rf"'{tensor}' takes values that are not finite"):
        calibrate(graph(_BLOCK, {**_WEIGHTS, weight: broken}, outputs="float[N, 5] y"), [images(4)])


def test_a_single_nan_among_many_values_is_seen() -> None:
    # minima and maxima pass over it: they only see one that is the first value
    for position in (0, 1, 100, 3 * 16 * 16 - 1):
        x = images(3)
        x[1].flat[position] = np.nan
        with pytest.raises(DataError, match=r"'x' takes values that are not finite.*in image 6;"):
            calibrate(block(), [images(4), x])


def test_a_model_of_several_inputs_is_calibrated_on_what_they_are_given() -> None:
    model = graph("y = Add(a, b)", inputs="float[N, 7] a, float[N, 7] b", outputs="float[N, 7] y")
    first, second = (np.random.default_rng(seed).uniform(-1, 1, (5, 7)).astype(np.float32) for seed in (0, 1))
    table = calibrate(model, [{"b": second[:3], "a": first[:3]}, {"a": first[3:], "b": second[3:]}])
    assert table.images == 5
    for name, values in {"a": first, "b": second, "y": first + second}.items():
        assert (table.tensors[name].low, table.tensors[name].high) == (values.min(), values.max())
    assert table.data_sha256 == calibrate(model, [{"a": first, "b": second}]).data_sha256


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from Linux's /proc")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for index in range(32):
        coarse = Image.fromarray(random.integers(0, 256, (28, 28, 3), dtype=np.uint8))
        coarse.resize((256, 256)).save(tmp_path / "pictures" / f"{index:02d}.jpg")
    for index in range(32, 320):
        (tmp_path / "pictures" / f"{index:03d}.jpg").hardlink_to(tmp_path / "pictures" / f"{index % 32:02d}.jpg")
    body = "a = Conv<strides = [2, 2]>(x, w) r = Relu(a) p = GlobalAveragePool(r) y = Flatten(p)"
    model = graph(body, {"w": convolution(16, 3)}, inputs="float[N, 3, 224, 224] x", outputs="float[N, 16] y")
    save(model, tmp_path / "m.onnx")
    peaks = [_peak_mib(tmp_path, samples) for samples in (64, 320)]
    # 256 images more, kept as they come, would be 147 MiB more; their activations 199
    assert peaks[1] < 1.1 * peaks[0], peaks


def _peak_mib(folder: Path, samples: int) -> float:
    # not ru_maxrss, which in a child of this process starts at the size of this one
    program = dedent(
        f"""
        from pathlib import Path
        from rexport import Preprocessing, calibrate, load, open_dataset
        data = open_dataset(Path("pictures"), Preprocessing(size=224, resize=256))
        table = calibrate(load(Path("m.onnx")), (b.images for b in data.batches(16, samples={samples})), threads=2)
        assert table.images == {samples}
        status = Path("/proc/self/status").read_text()
        print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
        """
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024
