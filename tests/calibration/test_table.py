from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport._errors import DataError
from rexport.calibration import CalibrationTable, TensorRange

_NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
_RANGES = st.tuples(_NUMBERS, _NUMBERS).map(lambda ends: TensorRange(min(ends), max(ends)))
_TABLES = st.builds(
    CalibrationTable,
    model_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    images=st.integers(1, 10**9),
    ranges=st.dictionaries(st.text(), _RANGES),
)


@given(_TABLES)
def test_a_table_comes_back_from_its_json(table: CalibrationTable) -> None:
    assert CalibrationTable.from_json(table.to_json()) == table


@given(_TABLES)
def test_the_order_of_the_tensors_does_not_change_the_text(table: CalibrationTable) -> None:
    backwards = CalibrationTable(
        model_sha256=table.model_sha256, images=table.images, ranges=dict(reversed(table.ranges.items()))
    )
    assert backwards.to_json() == table.to_json()


@given(_RANGES, _RANGES, _RANGES)
def test_merging_is_associative_commutative_and_idempotent(a: TensorRange, b: TensorRange, c: TensorRange) -> None:
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(b) == b.merge(a)
    assert a.merge(a) == a
    assert all(a.merge(b).low <= end <= a.merge(b).high for end in (a.low, a.high, b.low, b.high))


_GOOD = {
    "schema": "rexport.calibration/1",
    "model_sha256": "ab",
    "images": 3,
    "calibrator": "minmax",
    "ranges": {"x": [-1.5, 2]},
}


def test_the_format_is_this() -> None:
    table = CalibrationTable(model_sha256="ab", images=3, ranges={"x": TensorRange(-1.5, 2.0)})
    assert json.loads(table.to_json()) == _GOOD
    assert CalibrationTable.from_json(json.dumps(_GOOD)) == table


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not a calibration table"),
        ("{", "not a calibration table"),
        ("[]", "not a calibration table"),
        ("null", "not a calibration table"),
        ("{}", "schema"),
        (json.dumps({**_GOOD, "schema": "rexport.bench/1"}), "rexport.bench/1"),
        (json.dumps({k: v for k, v in _GOOD.items() if k != "images"}), "images"),
        (json.dumps({**_GOOD, "images": "many"}), "many"),
        (json.dumps({**_GOOD, "images": 0}), "0 images"),
        (json.dumps({**_GOOD, "images": 1e400}), "not a calibration table"),
        (json.dumps({**_GOOD, "ranges": [1]}), "not a calibration table"),
        (json.dumps({**_GOOD, "ranges": {"x": 1}}), "not a calibration table"),
        (json.dumps({**_GOOD, "ranges": {"x": [1, 2, 3]}}), "not a calibration table"),
        (json.dumps({**_GOOD, "ranges": {"x": [float("nan"), 1]}}), "'x' ranges from nan"),
        (json.dumps({**_GOOD, "ranges": {"x": [0, float("inf")]}}), "'x' ranges from 0.0 to inf"),
        (json.dumps({**_GOOD, "ranges": {"x": [2, 1]}}), "'x' ranges from 2.0 to 1.0"),
        (json.dumps({**_GOOD, "ranges": {"x": [0, 10**400]}}), "not a calibration table"),
        ("[" * 100_000, "not a calibration table"),
    ],
    ids=range(18),
)
def test_what_is_no_table_is_a_data_error(text: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        CalibrationTable.from_json(text)
