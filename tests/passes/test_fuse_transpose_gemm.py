from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from rexport.passes import FuseTransposeGemm
from tests.passes._models import assert_untouched, changed_by, make, rewritten


def classifier(order: tuple[int, ...], *, again: bool = False, size: int | str = 2) -> ir.Model:
    """Return a linear layer of a flattened picture of shape (3, 2, 5), transposed by ``order``."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=order),
        helper.make_node("Flatten", ["turned"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["z" if again else "y"], transB=1),
    ]
    if again:
        nodes.append(helper.make_node("Gemm", ["flat", "v", "b"], ["t"], transB=1))
        nodes.append(helper.make_node("Add", ["z", "t"], ["y"]))
    random, shapes = np.random.default_rng(0), {"w": (4, 30), "v": (4, 30), "b": (4,)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    model = make(nodes, weights, x=["N", 3, size, 5], y=["N", 4])
    model.graph.node(0).outputs[0].shape = ir.Shape([model.graph.inputs[0].shape[axis] for axis in order])
    return model


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (0, 3, 1, 2), (0, 3, 2, 1), (0, 1, 3, 2)])
def test_the_weight_is_transposed_and_not_the_picture(order: tuple[int, ...]) -> None:
    rewritten(FuseTransposeGemm, classifier(order), {"Flatten": 1, "Gemm": 1})


def test_a_picture_of_unknown_size_or_a_batch_that_moves_stays() -> None:
    assert_untouched(FuseTransposeGemm, classifier((0, 2, 3, 1), size="H"))


def test_a_picture_that_two_layers_read_stays() -> None:
    _, report = changed_by(FuseTransposeGemm, classifier((0, 2, 3, 1), again=True))
    assert report.changed == 0
    assert {refusal.why for refusal in report.refusals} == {"something else reads the flattened picture too"}
