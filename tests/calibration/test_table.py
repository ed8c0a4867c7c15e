from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from rexport._errors import DataError, UsageError
from rexport.calibration import CalibrationTable, TensorStatistics
from tests.calibration._tables import tables


@pytest.mark.slow
@given(tables())
def test_a_table_comes_back_from_its_json(table: CalibrationTable) -> None:
    again = CalibrationTable.from_json(table.to_json())
    assert again == table
    assert again.to_json() == table.to_json()


@pytest.mark.slow
@given(tables())
def test_the_order_of_the_tensors_does_not_change_the_text(table: CalibrationTable) -> None:
    backwards = replace(table, tensors=dict(reversed(table.tensors.items())))
    assert backwards.to_json() == table.to_json()


@pytest.mark.slow
@settings(max_examples=50)
@given(tables(), tables(), tables())
def test_merging_in_any_order_gives_the_same_text(
    a: CalibrationTable, b: CalibrationTable, c: CalibrationTable
) -> None:
    text = a.merge(b).merge(c).to_json()
    assert a.merge(b.merge(c)).to_json() == text
    assert c.merge(a).merge(b).to_json() == text


def test_tables_of_different_models_are_not_merged() -> None:
    seen = TensorStatistics.of(np.ones((1, 2, 3), np.float32))
    table = CalibrationTable(model_sha256="ab" * 32, images=1, tensors={"x": seen})
    with pytest.raises(UsageError, match=r"different models \(abababababab… and cdcdcdcdcdcd…\)"):
        table.merge(replace(table, model_sha256="cd" * 32))
    with pytest.raises(UsageError, match="different tensors"):
        table.merge(replace(table, tensors={"y": seen}))
    with pytest.raises(UsageError, match="different tensors"):
        table.merge(replace(table, tensors={"x": TensorStatistics.of(np.ones((1, 3, 3), np.float32))}))


_TENSOR = {
    "images": 2,
    "values": 2,
    "sum_of_lows": -5 * 2**148,
    "sum_of_highs": 3 * 2**149,
    "exponent": -10,
    "first": -1536,
    "counts": [1, *[0] * 511, 1, *[0] * 2047, 1, *[0] * 1023, 1],
    "channel_lows": [-1.5, 0.1],
    "channel_highs": [1.0, 2.0],
    "channel_sums": [-(2**47), 0],
}
_GOOD = {
    "schema": "rexport.calibration/2",
    "model_sha256": "ab",
    "data_sha256": "0f" * 32,
    "images": 2,
    "batch": 1,
    "versions": ["onnxruntime 1.31.1", "rexport 0.1.0"],
    "tensors": {"x": _TENSOR},
}


def test_the_format_is_this() -> None:
    table = CalibrationTable.from_json(json.dumps(_GOOD))
    assert json.loads(table.to_json()) == _GOOD
    seen = table.tensors["x"]
    assert (seen.low, seen.high, seen.channel_means.tolist()) == (-1.5, 2.0, [-0.25, 0.0])
    assert (seen.average_range.low, seen.average_range.high) == (-1.25, 1.5)
    assert seen.channel_lows[1] == float(np.float32(0.1))
    assert seen.histogram.edges()[[0, -1]].tolist() == [-1.5, 2.0009765625]


def _with(**fields: object) -> str:
    return json.dumps({**_GOOD, **fields})


def _tensor(**fields: object) -> str:
    return _with(tensors={"x": {**_TENSOR, **fields}})


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not a calibration table"),
        ("{", "not a calibration table"),
        ("[]", "not a calibration table"),
        ("null", "not a calibration table"),
        ("{}", "schema"),
        (_with(schema="rexport.bench/1"), "This is a rexport.bench/1 document"),
        (_with(schema="rexport.calibration/1"), r"older form.*no histograms; calibrate again"),
        (json.dumps({k: v for k, v in _GOOD.items() if k != "images"}), "images"),
        (_with(images="many"), "'many' is not an integer"),
        (_with(images=0), "0 images"),
        (_with(images=1e400), "not a calibration table"),
        (_with(images=True), "True is not an integer"),
        (_with(batch=0), "0 batch"),
        (_with(data_sha256="xy"), "data_sha256 is 'xy'"),
        (_with(versions=3), "not a calibration table"),
        (_with(tensors=[1]), "not a calibration table"),
        (_with(tensors={"x": 1}), "not a calibration table"),
        (_tensor(channel_lows=[float("nan"), 1]), "'x' ranges from nan"),
        (_tensor(channel_lows=[-1e39, 0]), r"-1e\+39 is no float32"),
        (_tensor(channel_highs=[float("inf"), 1]), "inf is no float32"),
        (_tensor(channel_highs=[-2, 1]), r"'x' ranges from -1.5 to -2.0"),
        (_tensor(channel_highs=[1]), "'x' has 2, 1 and 2 channels"),
        (_tensor(channel_highs=[], channel_lows=[], channel_sums=[]), "'x' has 0, 0 and 0 channels"),
        (_tensor(channel_sums=[0.5, 1]), "0.5 is not an integer"),
        (_tensor(channel_lows=[10**400, 1]), "not a calibration table"),
        (_tensor(counts=[]), "empty ends"),
        (_tensor(counts=[1, 0]), "empty ends"),
        (_tensor(counts=[1, -1, 1]), "negative counts"),
        (_tensor(counts=[1, 2**63]), "not a calibration table"),
        (_tensor(exponent=-9), "histogram of another range"),
        (_tensor(first=-4097), "histogram of another range"),
        (_tensor(first=4000), "histogram of another range"),
        (_tensor(values=-1), "-1 values"),
        ("[" * 100_000, "not a calibration table"),
    ],
    ids=range(34),
)
def test_what_is_no_table_is_a_data_error(text: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        CalibrationTable.from_json(text)
