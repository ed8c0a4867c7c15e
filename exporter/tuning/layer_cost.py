"""The cost of leaving a layer in float, estimated without a measurement.

    cost = operations of the layer / operations of all layers + 1 / number of layers

Operations are multiply-accumulates of a convolution or a linear layer, and elements of the result of anything else. The
second term stands for the fixed cost of every float layer between integer ones: a call, and the conversions of the
tensors around it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport.cost import operations_of

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx_ir as ir

__all__ = ["float_costs"]


def float_costs(model: ir.Model, layers: Collection[str]) -> dict[str, float]:
    """Return the cost of leaving each of ``layers`` in float, relative to the others (see above)."""
    operations = operations_of(model)
    total = sum(operations[name] for name in layers) or 1
    return {name: operations[name] / total + 1 / len(layers) for name in layers}
