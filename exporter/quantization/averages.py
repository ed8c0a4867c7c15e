"""AveragePool without padding that counts or windows with gaps, which integer kernels get wrong.

Where a window counts padding, its average is that of a picture with zeros around it, so the zeros are written out:

    AveragePool(x, pads, count_include_pad)   =   AveragePool(Pad(x, pads))

ONNX Runtime's QLinearAveragePool divides by the whole kernel where a window extends beyond the padded picture
(ceil_mode; microsoft/onnxruntime#16203), and OpenVINO's takes the integer 0 for zero, whatever the zero point is: both
results are far off. ONNX Runtime's kernel does not support dilations; a file with the attribute does not load, even if
it is 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rexport._errors import ModelFileError
from rexport.passes._graph import int_attribute, is_op, name_of, shape_of
from rexport.passes._pad import Padding, new_pad
from rexport.quantization.targets import ONNX_RUNTIME

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.quantization.targets import Target

__all__ = ["why_not_averaged", "write_padding_out"]

_SAME = ("SAME_UPPER", "SAME_LOWER")


def write_padding_out(graph: ir.Graph, target: Target) -> None:
    """Replace the counted padding of each AveragePool by a Pad, and drop dilations of 1.

    Raises:
        ModelFileError: Its padding depends on the picture, and the target would get it wrong.
    """
    for node in list(graph):
        if not is_op(node, "AveragePool"):
            continue
        if set(node.attributes.get_ints("dilations", [])) == {1}:
            node.attributes.pop("dilations")
        if not int_attribute(node, "count_include_pad", 0):
            continue
        pads = _pads(node)
        if pads is not None:
            _write(graph, node, pads)
        elif target.runtime != ONNX_RUNTIME:
            raise ModelFileError(
                f"{name_of(node)} includes padding in its average, which {target.runtime} computes wrongly "
                "in INT8 at this picture size; export the network for another --input-size, or quantize "
                "for another target."
            )


def why_not_averaged(node: ir.Node) -> str | None:
    """Return why an AveragePool stays float after :func:`write_padding_out`, or ``None`` if it does not."""
    if any(step > 1 for step in node.attributes.get_ints("dilations", [])):
        return "its windows are dilated"
    if int_attribute(node, "count_include_pad", 0) and int_attribute(node, "ceil_mode", 0):
        return "its windows reach beyond the padding"
    return None


def _pads(node: ir.Node) -> list[int] | None:
    """Return the number of zeros before and after each axis of the picture; ``None`` where it is not known."""
    kernel = list(node.attributes.get_ints("kernel_shape", []))
    strides = list(node.attributes.get_ints("strides", [])) or [1] * len(kernel)
    dilations = list(node.attributes.get_ints("dilations", [])) or [1] * len(kernel)
    reach = [step * (size - 1) + 1 for step, size in zip(dilations, kernel, strict=True)]
    sizes = shape_of(node.inputs[0])[2:] or (None,) * len(kernel)
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    if auto_pad == "VALID":
        return [0] * (2 * len(kernel))
    if auto_pad in _SAME:
        static = [size for size in sizes if isinstance(size, int)]
        if len(static) < len(kernel):
            return None
        totals = [max(0, ((s - 1) // t) * t + r - s) for s, t, r in zip(static, strides, reach, strict=True)]
        smaller, larger = [total // 2 for total in totals], [total - total // 2 for total in totals]
        return [*smaller, *larger] if auto_pad == "SAME_UPPER" else [*larger, *smaller]
    pads = list(node.attributes.get_ints("pads", [])) or [0] * (2 * len(kernel))
    if not int_attribute(node, "ceil_mode", 0):
        return pads
    for axis, (size, stride, width) in enumerate(zip(sizes, strides, reach, strict=True)):
        before, after = pads[axis], pads[axis + len(kernel)]
        if not after:
            continue
        if not isinstance(size, int):
            return None
        last = -(-(size + before + after - width) // stride) * stride
        if last >= size + before:  # no window begins behind the picture, but one would in zeros that are written out
            return None
    return pads


def _write(graph: ir.Graph, node: ir.Node, pads: list[int]) -> None:
    node.attributes.pop("count_include_pad")
    picture, half = node.inputs[0], len(pads) // 2
    if any(pads) and picture is not None:
        if node.attributes.get_string("auto_pad", "NOTSET") in _SAME:  # ceil_mode has no effect on it
            node.attributes.pop("ceil_mode", None)
        for name in ("auto_pad", "pads"):
            node.attributes.pop(name, None)
        padding = Padding((0, 0, *pads[:half]), (0, 0, *pads[half:]))
        pad = new_pad(graph, picture, padding, np.dtype(np.float32), name=f"{name_of(node)}.padded")
        graph.insert_before(node, pad)
        node.replace_input_with(0, pad.outputs[0])
