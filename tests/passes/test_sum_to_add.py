from __future__ import annotations

import pytest

from rexport.passes import SumToAdd
from tests.passes._models import assert_untouched, parse, rewritten


def model(result: str, *, opset: int = 18) -> str:
    return (
        f'<ir_version: 9, opset_import: ["": {opset}]> graph (float[N, 3, 4] x) => (float[A, B, C] y) '
        f"<float[3, 1] w = {{1, 2, 3}}> {{ a = Relu(x)  b = Neg(x)  y = {result} }}"
    )


@pytest.mark.parametrize(
    ("result", "count"), [("Sum(a, b)", 1), ("Sum(w, a)", 1), ("Sum(a, x, b)", 2), ("Sum(a, w, b, a)", 3)]
)
def test_a_sum_is_additions(result: str, count: int) -> None:
    rewritten(SumToAdd, parse(model(result)), {"Relu": 1, "Neg": 1, "Add": count})


@pytest.mark.parametrize(("result", "opset"), [("Sum(a)", 18), ("Sum(a, b)", 7)])
def test_one_tensor_and_old_opsets_stay(result: str, opset: int) -> None:
    assert_untouched(SumToAdd, parse(model(result, opset=opset)))
