"""Names for nodes that survive what runtimes do to them.

A runtime names what it executes after the nodes it was made from, with ends of its own (``conv1_nchwc``,
``conv1_token_4``, ``conv1/WithoutBiases``), sometimes after a tensor instead, and files may have nodes without names or
with names that end like this. So a model is profiled under names that nothing else looks like: ``rx17x`` is node 17 and
its result.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rexport.model_file import to_bytes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["tagged", "tags_in"]

_TAG = re.compile(r"rx(\d+)x")


def tagged(model: ir.Model) -> bytes:
    """Return the serialized model with nodes and their results named by their place in the graph."""
    copy = model.clone()
    for index, node in enumerate(copy.graph):
        node.name = f"rx{index}x"
        for place, value in enumerate(node.outputs):
            if value.name:
                value.name = f"rx{index}x_{place}".removesuffix("_0")
    return to_bytes(copy)


def tags_in(text: str) -> tuple[int, ...]:
    """Return the places of the nodes that a runtime's name speaks of, each once, in the order they come.

    Example:
        >>> tags_in("rx4x/WithoutBiases,Multiply_6094,rx4x,rx12x")
        (4, 12)
    """
    return tuple(dict.fromkeys(int(index) for index in _TAG.findall(text)))
