"""An ONNX file: its inputs and outputs, the precision of its layers, and its origin."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from onnx_ir.passes import common

from rexport._errors import ModelFileError
from rexport._files import file_sha256
from rexport.classifier_head import head_of
from rexport.cost import multiplies
from rexport.inspection.layers import InspectedLayer, inspected_layers
from rexport.inspection.report import FileReport, Table
from rexport.model_file import Metadata, dtype_name, load
from rexport.model_inputs import picture_size
from rexport.preprocessing import size_in_words

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from rexport.preprocessing import Size

__all__ = ["describe", "recognises"]


def recognises(path: Path, head: bytes) -> bool:
    """Say whether a file may be an ONNX file: it has that name, or begins with a version of the format."""
    return path.suffix.lower() == ".onnx" or (len(head) > 1 and head[0] == 0x08 and head[1] < 0x80)


def describe(path: Path) -> FileReport:
    """Describe an ONNX file.

    Raises:
        ModelFileError: It is broken, or one that rexport refuses.
    """
    model = load(path)
    common.RemoveInitializersFromInputsPass()(model)  # such weights are defaults, and weights all the same
    layers, metadata = inspected_layers(model), Metadata.of(model)
    operators = Counter(node.op_type for node in model.graph)
    products = [layer for layer in layers if layer.multiplies]
    macs = [layer.macs for layer in products if layer.macs is not None]
    parameters = [layer.parameters for layer in layers if layer.parameters is not None]
    is_complete = not _multiplies_elsewhere(model)
    head = None if metadata.features else str(head_of(model))
    document = {
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
        "opset": model.opset_imports.get(""),
        "ir_version": model.ir_version,
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))) or None,
        "inputs": [_tensor(value) for value in model.graph.inputs],
        "outputs": [_tensor(value) for value in model.graph.outputs],
        "operators": dict(operators.most_common()),
        "parameters": sum(parameters),
        "parameters_complete": is_complete and len(parameters) == len(layers),
        "macs": sum(macs) or None,
        "picture_size": _picture_size(model) if macs else None,
        "macs_complete": is_complete and len(macs) == len(products),
        "precisions": dict(Counter(layer.precision for layer in layers)),
        "layers": [layer.to_json() for layer in layers],
        "metadata": _metadata(metadata) | {"head": head},
    }
    return FileReport(
        kind="onnx",
        facts=tuple(_facts(document, metadata)),
        tables=(_operators(operators), _layers(layers)),
        document=document,
    )


def _multiplies_elsewhere(model: ir.Model) -> bool:
    """Say whether a branch, the body of a loop or a function multiplies, whose layers are not listed."""
    inner = [graph for graph in model.graphs() if graph is not model.graph]
    return any(multiplies(node) for graph in (*inner, *model.functions.values()) for node in graph)


def _tensor(value: ir.Value) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": value.name, "dtype": None, "shape": None}
    if value.dtype is not None:
        facts["dtype"] = dtype_name(value)
    if value.shape is not None:
        facts["shape"] = [size if isinstance(size, int) else str(size) for size in value.shape]
    return facts


def _metadata(metadata: Metadata) -> dict[str, Any]:
    return {
        "network": metadata.network,
        "preprocessing": metadata.preprocessing and json.loads(metadata.preprocessing.to_json()),
        "classes": len(metadata.classes),
        "features": list(metadata.features),
        "weights_sha256": metadata.weights_sha256,
        "quantization": _object(metadata.quantization),
        "precision": _object(metadata.precision),
        "versions": _object(metadata.versions),
    }


def _object(text: str | None) -> Any:
    """Return the JSON of an entry of the metadata; the text itself where other software wrote something else."""
    try:
        return text and json.loads(text)
    except ValueError:
        return text


def _picture_size(model: ir.Model) -> Size | None:
    try:
        return picture_size(model)
    except ModelFileError:  # it takes something else
        return None


def _facts(document: dict[str, Any], metadata: Metadata) -> list[tuple[str, str]]:
    size, macs = document["picture_size"], "unknown"
    if document["macs"] is not None:
        example = "example" if size is None else f"picture of {size_in_words(size)}"
        macs = f"{_sum(document, 'macs')} for one {example}"
    by_precision = ", ".join(f"{count} {name}" for name, count in document["precisions"].items())
    opset = f"opset {document['opset']}" if document["opset"] else "no operators of ONNX itself"
    facts = [
        ("ONNX file", f"{document['bytes'] / 2**20:.2f} MiB, {opset}"),
        ("sha256", document["sha256"]),
        *(("input", _in_words(tensor)) for tensor in document["inputs"]),
        *(("output", _in_words(tensor)) for tensor in document["outputs"]),
        ("parameters", _sum(document, "parameters")),
        ("MACs", macs),
        ("layers", by_precision or "none"),
        ("producer", document["producer"] or "unknown"),
    ]
    if metadata.network is not None:
        facts.append(("network", metadata.network))
    if metadata.classes:
        facts.append(("classes", f"{len(metadata.classes)}: {', '.join(metadata.classes[:3])} …"))
    if metadata.preprocessing is not None:
        assumed = ", assumed" if metadata.preprocessing.assumed else ""
        facts.append((f"preprocessing{assumed}", metadata.preprocessing.in_words()))
    if metadata.weights_sha256 is not None:
        facts.append(("weights", f"sha256 {metadata.weights_sha256}"))
    if metadata.versions is not None:
        facts.append(("made with", _pairs(metadata.versions)))
    if metadata.quantization is not None:
        facts.append(("quantized", _pairs(metadata.quantization)))
    return facts


def _pairs(text: str) -> str:
    """Return the names and values of a JSON object, without nested ones; another text as it is."""
    values = _object(text)
    if not isinstance(values, dict):
        return text
    settings = ((key.replace("_", " "), value) for key, value in values.items() if not isinstance(value, (dict, list)))
    return ", ".join(f"{key} {value}" for key, value in settings)


def _sum(document: dict[str, Any], key: str) -> str:
    least = "" if document[f"{key}_complete"] else "at least "
    return f"{least}{document[key]:,}"


def _in_words(tensor: dict[str, Any]) -> str:
    shape = "unknown shape"
    if tensor["shape"] is not None:
        shape = f"({', '.join(map(str, tensor['shape']))})"
    return f"{tensor['name']}: {tensor['dtype']} {shape}"


def _operators(operators: Counter[str]) -> Table:
    rows = tuple((op_type, str(count)) for op_type, count in operators.most_common())
    return Table(title="Operators", columns=("operator", "nodes"), rows=rows)


def _layers(layers: tuple[InspectedLayer, ...]) -> Table:
    rows = tuple(
        (
            layer.name,
            layer.op_type,
            layer.precision,
            "" if layer.macs is None else f"{layer.macs:,}",
            f"{layer.parameters:,}" if layer.parameters else "",
            _scales(layer.input_scale),
            _scales(*layer.weight_scales or ()),
            "" if layer.precision == "int8" else layer.why,
        )
        for layer in layers
    )
    columns = ("layer", "operator", "precision", "MACs", "parameters", "input scale", "weight scales", "why")
    return Table(title="Layers", columns=columns, rows=rows, left=(0, 1, 2, 7))


def _scales(*scales: float | None) -> str:
    return " … ".join(f"{scale:.3g}" for scale in scales if scale is not None)
