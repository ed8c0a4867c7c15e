from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from rexport._errors import UsageError
from rexport.tuning import Comparison, block_stem
from tests._graphs import convolution, graph, images, run

if TYPE_CHECKING:
    import onnx_ir as ir

BODY = """
    s = Conv<strides=[2,2], pads=[3,3,3,3]>(x, w)
    p = GlobalAveragePool(s)
    y = Flatten(p)
"""


def stem(batch: str = "N", size: int = 16) -> ir.Model:
    return graph(
        BODY, {"w": convolution(8, 3, 7)}, inputs=f"float[{batch}, 3, {size}, {size}] x", outputs=f"float[{batch}, 8] y"
    )


@pytest.mark.parametrize(("interval", "kept"), [((1.01, 1.2), True), ((0.99, 1.2), False)])
def test_only_what_is_faster_beyond_the_noise_is_kept(
    monkeypatch: pytest.MonkeyPatch, interval: tuple[float, float], kept: bool
) -> None:
    monkeypatch.setattr("rexport.tuning.stem.compare", lambda *_, **__: Comparison(speedup=1.1, interval=interval))
    model = stem()
    result = block_stem(model)
    assert result.kept is kept
    assert (result.model is model) is not kept
    np.testing.assert_allclose(run(result.model, images(2))[0], run(model, images(2))[0], rtol=1e-4, atol=1e-5)


def test_it_can_be_had_without_measuring() -> None:
    result = block_stem(stem(), measure=False)
    assert (result.kept, result.comparison) == (True, None)
    assert result.model.graph.node(0).op_type == "SpaceToDepth"


def test_a_model_without_such_a_stem_stays() -> None:
    model = stem(size=15)
    result = block_stem(model)
    assert (result.kept, result.model is model, len(result.report.refusals)) == (False, True, 1)


def test_what_can_not_be_measured_is_refused() -> None:
    with pytest.raises(UsageError, match="takes batches of 2 only"):
        block_stem(stem(batch="2"), batch=8)


@pytest.mark.slow
def test_really_measured_the_result_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rexport.tuning.comparison._SECONDS", 0.5)
    model = stem()
    result = block_stem(model, threads=1)
    assert result.comparison is not None
    assert result.kept == result.comparison.is_faster
