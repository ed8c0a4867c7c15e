"""The map of each stored tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from rexport._errors import DataError
from rexport.calibration import CalibrationTable, Calibrator, TensorStatistics, calibrate
from rexport.model_file import model_hash
from rexport.quantization import ARM, TENSORRT, X86
from rexport.quantization.equalization import equalize
from rexport.quantization.maps import maps_of
from rexport.quantization.placement import place
from tests._graphs import convolution, graph, images, run_exposed, vector
from tests.quantization._tables import table_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.quantization.targets import Target

_PAD = "<pads=[1,1,1,1]>"


def _hidden() -> ir.Model:
    weights = {"w": convolution(8, 3), "b": vector(8), "v": convolution(4, 8)}
    return graph(f"a = Conv {_PAD} (x, w, b) r = Relu (a) c = Conv {_PAD} (r, v) y = Sigmoid (c)", weights)


def test_ranges_of_calibration() -> None:
    model = _hidden()
    table = table_of(model, x=(-2.0, 3.1), r=(0.0, 5.1), c=(-1.0, 4.0))
    maps = maps_of(place(model), table, target=X86, calibrator=Calibrator.MINMAX)
    assert set(maps) == {"x", "r", "c"}
    assert maps["r"].scale == np.float32(5.1 / 255)
    assert [int(maps[name].zero_point) for name in "xrc"] == [100, 0, 51]
    # int8 says the same, and without a zero point zero is in the middle
    on_arm = maps_of(place(model, target=ARM), table, target=ARM, calibrator=Calibrator.MINMAX)
    assert on_arm["r"].scale == maps["r"].scale
    assert [int(on_arm[name].zero_point) for name in "xrc"] == [100 - 128, -128, 51 - 128]
    symmetric = maps_of(place(model, target=TENSORRT), table, target=TENSORRT, calibrator=Calibrator.MINMAX)
    assert symmetric["r"].scale == pytest.approx(5.1 / 127, rel=1e-6)
    assert not symmetric["x"].zero_point.any()


def test_the_calibrator_is_asked() -> None:
    """Of two images whose ends are 2 and 10, the average is 6."""
    model = _hidden()
    table = table_of(model, x=(-1.0, 1.0), r=(0.0, 2.0), c=(0.0, 2.0))
    table = table.merge(table_of(model, x=(-1.0, 1.0), r=(0.0, 10.0), c=(0.0, 10.0)))
    scales = [
        maps_of(place(model), table, target=X86, calibrator=calibrator)["r"].scale
        for calibrator in (Calibrator.MINMAX, Calibrator.AVERAGE)
    ]
    assert scales == [np.float32(10 / 255), np.float32(6 / 255)]


@pytest.mark.parametrize("calibrator", [Calibrator.MINMAX, Calibrator.AVERAGE])
def test_of_equalized_tensors(calibrator: Calibrator) -> None:
    model, x = _hidden(), images(4)
    table = calibrate(model, [x])
    equalized = equalize(model, table)
    assert set(equalized.factors) == {"a", "r"}
    plain, scaled = (
        maps_of(place(model), table, target=X86, calibrator=calibrator, equalized=each) for each in (None, equalized)
    )
    (r,) = run_exposed(equalized.model, x, ["r"])
    share = float(plain["r"].scale) * 255 / table.tensors["r"].high  # how much of the whole the calibrator left
    assert (share == pytest.approx(1)) == (calibrator is Calibrator.MINMAX)
    # float32, of weights that were scaled
    assert float(scaled["r"].scale) == pytest.approx(r.max() * share / 255, rel=1e-5)
    for name in ("x", "c"):
        assert scaled[name] == plain[name]


def test_a_tensor_that_was_not_seen() -> None:
    model = _hidden()
    with pytest.raises(DataError, match="no statistics of the tensor 'c'"):
        maps_of(place(model), table_of(model, x=(0, 1), r=(0, 1)), target=X86, calibrator=Calibrator.MINMAX)


def test_a_tensor_that_is_always_zero_has_a_scale() -> None:
    model = _hidden()
    table = CalibrationTable(
        model_sha256=model_hash(model),
        images=1,
        tensors=dict.fromkeys("xrc", TensorStatistics.of(np.zeros((1, 8, 2, 2), np.float32))),
    )
    maps = maps_of(place(model), table, target=X86, calibrator=Calibrator.MINMAX, equalized=equalize(model, table))
    assert {float(chosen.scale) for chosen in maps.values()} == {1.0}


@pytest.mark.parametrize(
    ("zero_point", "target", "numbers"),
    [
        (np.uint8(114), X86, (np.float32(1 / 255), 114)),
        (np.uint8(114), ARM, (np.float32(1 / 255), 114 - 128)),
        (np.int8(-14), X86, (np.float32(1 / 255), 114)),
        # pixels from −114 to 141 of 255
        (np.uint8(114), TENSORRT, (np.float32(141 / 255 / 127), 0)),
    ],
)
def test_integers_that_the_model_has_already(
    zero_point: np.generic, target: Target, numbers: tuple[np.float32, int]
) -> None:
    kind = zero_point.dtype.name
    model = graph(
        f"d = DequantizeLinear (x, s, z) a = Conv {_PAD} (d, w) y = Sigmoid (a)",
        {"w": convolution(3, 3), "s": np.float32(1 / 255), "z": zero_point},
        inputs=f"{kind}[N, 3, 16, 16] x",
    )
    table = table_of(model, a=(-1.0, 1.0))
    found = maps_of(place(model, target=target), table, target=target, calibrator=Calibrator.MINMAX)["d"]
    assert found.scale == pytest.approx(numbers[0], rel=1e-6)
    assert int(found.zero_point) == numbers[1]
    assert found.zero_point.dtype == target.activations.dtype
