"""An engine's layers as TensorRT's own inspector lists them, which takes the GPU that the engine is for.

Its JSON has a list ``Layers``; at detailed verbosity each is an object with ``Name``, ``Inputs`` and ``Metadata``, in
which ONNX nodes stand as ``[ONNX Layer: conv1]``. A tensor's type is in ``Format/Datatype`` up to version 10, and in
``Datatype`` from 11 on. Written from NVIDIA's documentation; not run on a GPU yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rexport._errors import VerificationError
from rexport.engine.build_log import SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["types_of_inspected"]


def types_of_inspected(document: Mapping[str, Any], nodes: Iterable[str]) -> Mapping[str, str]:
    """Return for each of the ``nodes`` the type of the tensor that its layer reads first.

    Raises:
        VerificationError: No layer names one of them, or its types are missing.
    """
    names = set(nodes)
    types: dict[str, str] = {}
    for layer in document.get("Layers", ()):
        if not isinstance(layer, dict):  # names alone: the engine was not built with detailed verbosity
            continue
        sources = set(SOURCE.findall(str(layer.get("Metadata", "")))) & names
        inputs = layer.get("Inputs") or ()
        if sources and inputs:
            types |= dict.fromkeys(sources, _type(inputs[0]))
    missing = sorted(names - set(types))
    if missing:
        raise VerificationError(
            f"TensorRT's inspector names no layer for {', '.join(missing[:3])}, so its precision is unknown."
        )
    return types


def _type(tensor: Mapping[str, Any]) -> str:
    dtype = str(tensor.get("Datatype") or tensor.get("Format/Datatype") or "")
    for word, name in (("Int8", "Int8"), ("FP16", "Half"), ("Half", "Half"), ("BF16", "BFloat16")):
        if word in dtype:
            return name
    if "FP32" in dtype or "Float" in dtype:
        return "Float"
    raise VerificationError(f"TensorRT's inspector reports an unknown tensor type, {dtype!r}.")
