"""An ONNX file: what goes in and out, what it computes with, layer by layer, and where it comes from."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from onnx_ir.passes import common

from rexport._files import file_sha256
from rexport.classifier_head import head_of
from rexport.cost import multiplies
from rexport.inspection.layers import InspectedLayer, inspected_layers
from rexport.inspection.report import FileReport, Table
from rexport.model_file import Metadata, dtype_name, load, picture_size

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

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
    all_seen = not _multiplies_elsewhere(model)
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
        "parameters_complete": all_seen and len(parameters) == len(layers),
        "macs": sum(macs) if macs else None,
        "picture_size": picture_size(model) if macs else None,
        "macs_complete": all_seen and len(macs) == len(products),
        "precisions": dict(Counter(layer.precision for layer in layers)),
        "layers": [layer.to_json() for layer in layers],
        "metadata": _metadata(metadata) | {"head": None if metadata.features else str(head_of(model))},
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
    shape = None if value.shape is None else [size if isinstance(size, int) else str(size) for size in value.shape]
    return {"name": value.name, "dtype": None if value.dtype is None else dtype_name(value), "shape": shape}


def _metadata(metadata: Metadata) -> dict[str, Any]:
    return {
        "network": metadata.network,
        "preprocessing": None if metadata.preprocessing is None else json.loads(metadata.preprocessing.to_json()),
        "classes": len(metadata.classes),
        "features": list(metadata.features),
        "weights_sha256": metadata.weights_sha256,
        "quantization": _object(metadata.quantization),
        "precision": _object(metadata.precision),
        "versions": _object(metadata.versions),
    }


def _object(text: str | None) -> Any:
    """Return what JSON in the metadata says; as it is where it is none, as others may have written it."""
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


def _facts(document: dict[str, Any], metadata: Metadata) -> list[tuple[str, str]]:
    size, macs = document["picture_size"], "unknown"
    if document["macs"] is not None:
        macs = f"{_sum(document, 'macs')} for one picture of {size}×{size}"
    by_precision = ", ".join(f"{count} {name}" for name, count in document["precisions"].items())
    opset = "no operators of ONNX itself" if document["opset"] is None else f"opset {document['opset']}"
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
    assumed = metadata.preprocessing is not None and metadata.preprocessing.assumed
    for label, text in (
        (
            "preprocessing, assumed" if assumed else "preprocessing",
            None if metadata.preprocessing is None else metadata.preprocessing.to_json(),
        ),
        ("weights", None if metadata.weights_sha256 is None else f"sha256 {metadata.weights_sha256}"),
        ("made with", metadata.versions),
    ):
        if text is not None:
            facts.append((label, text))
    quantization = _object(metadata.quantization)
    if isinstance(quantization, dict):
        said = [f"{key} {value}" for key, value in quantization.items() if not isinstance(value, (dict, list))]
        facts.append(("quantized", ", ".join(said)))
    return facts


def _sum(document: dict[str, Any], key: str) -> str:
    least = "" if document[f"{key}_complete"] else "at least "
    return f"{least}{document[key]:,}"


def _in_words(tensor: dict[str, Any]) -> str:
    shape = "unknown shape" if tensor["shape"] is None else f"({', '.join(map(str, tensor['shape']))})"
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
            "" if layer.input_scale is None else f"{layer.input_scale:.3g}",
            "" if layer.weight_scales is None else " … ".join(f"{scale:.3g}" for scale in layer.weight_scales),
            layer.why,
        )
        for layer in layers
    )
    columns = ("layer", "operator", "precision", "MACs", "parameters", "input scale", "weight scales", "why")
    return Table(title="Layers", columns=columns, rows=rows, left=(0, 1, 2, 7))
