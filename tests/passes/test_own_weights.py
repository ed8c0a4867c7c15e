from __future__ import annotations

import numpy as np

from rexport.passes import fuse, verify_equal
from rexport.passes.own_weights import with_own_weights
from tests._graphs import convolution, graph, vector


def test_a_weight_that_layers_share_is_folded_for_each() -> None:
    spread = np.geomspace(0.01, 10, 3).astype(np.float32)
    weights = {"w": convolution(3, 3), "s1": spread, "s2": spread[::-1].copy(), "b": vector(3)}
    weights |= {"m": vector(3, seed=1) * 0.1, "v": np.ones(3, np.float32)}
    model = graph(
        "a = Conv <pads = [1, 1, 1, 1]> (x, w) c = BatchNormalization (a, s1, b, m, v) r = Relu (c) "
        "d = Conv <pads = [1, 1, 1, 1]> (r, w) y = BatchNormalization (d, s2, b, m, v)",
        weights,
    )
    own = with_own_weights(model)
    verify_equal(model, own)
    fused = fuse(own)
    assert [node.op_type for node in fused.model.graph] == ["Conv", "Relu", "Conv"]
    verify_equal(model, fused.model)
    assert len(model.graph.initializers) == len(weights)  # as it was


def test_without_shared_weights_nothing_is_copied() -> None:
    model = graph("a = Conv (x, w1) y = Conv (a, w2)", {"w1": convolution(3, 3), "w2": convolution(3, 3, seed=1)})
    assert with_own_weights(model) is model
