"""How many answers INT8 changes on trained networks, and how many 8-bit activations alone would change.

    python -m benchmarks.studies.activation_floor --calibration DIR --test DIR NETWORK=WEIGHTS ...

The second file has the activations of the INT8 file and the float weights: no rounding of weights can do better but by
making up for errors of the activations. Both run node by node in ONNX Runtime; an answer is changed where its top-1 is
not that of the float file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from benchmarks.studies._results import JsonFile, write_results
from rexport._cpu import this_cpu
from rexport.calibration import calibrate_dataset, open_dataset
from rexport.jobs.export import ExportRequest
from rexport.jobs.export import run as export
from rexport.model_file import to_bytes
from rexport.model_inputs import preprocessing_of
from rexport.passes._graph import is_op, name_of, replace_initializer
from rexport.quantization import quantize, recover, target_for
from rexport.runtimes.onnxruntime import open_session

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.calibration import Dataset

__all__ = ["main"]

_BATCH = 50


def main(
    networks: Annotated[list[str], typer.Argument(metavar="NETWORK=WEIGHTS...")],
    calibration: Annotated[Path, typer.Option(help="Images to calibrate with.")],
    test: Annotated[Path, typer.Option(help="Images to count changed answers on.")],
    json_file: JsonFile = None,
) -> None:
    """Quantize each network, and count the answers that change."""
    rows: list[dict[str, Any]] = []
    for pair in networks:
        network, _, name = pair.rpartition("=")
        weights = Path(name)
        rows.append({"network": network, "weights": weights.name, **_measure(network, weights, calibration, test)})
        row = rows[-1]
        print(f"{network:22} INT8 {row['int8']}, activations alone {row['activations']} of {row['images']}")
    write_results(json_file, "activation-floor", rows=rows)


def _measure(network: str, weights: Path, calibration: Path, test: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        request = ExportRequest(network=network, weights=weights, output=Path(folder, "fp32.onnx"))
        model = export(request).exported.model
    preprocessing = preprocessing_of(model)
    pictures, target = open_dataset(calibration, preprocessing), target_for("x86", this_cpu())
    table = calibrate_dataset(model, pictures, samples=512).table
    recovered = recover(
        model,
        table,
        target=target,
        images=lambda: (batch.feed for batch in pictures.batches(_BATCH, samples=128)),
        total=128,
        preprocessing=preprocessing,
    )
    int8 = quantize(model, table, target=target, recovered=recovered).model
    activations = _with_float_weights(int8, recovered.equalized.model)
    images = open_dataset(test, preprocessing)
    expected, *answers = (_answers(file, images) for file in (model, int8, activations))
    changed = [int((expected != answer).sum()) for answer in answers]
    return {"images": len(images), "int8": changed[0], "activations": changed[1]}


def _with_float_weights(int8: ir.Model, model: ir.Model) -> ir.Model:
    """Return a copy of an INT8 file with the weights and biases of the float ``model``."""
    copy = int8.clone()
    layers = {name_of(node): node for node in model.graph}
    for node in copy.graph:
        # a normalisation that became a layer in INT8 has no weights of its own there
        if is_op(node, "Conv", "Gemm") and node.op_type == layers[name_of(node)].op_type:
            for index, value in list(enumerate(layers[name_of(node)].inputs))[1:]:
                if value is not None and value.const_value is not None:
                    replace_initializer(node, index, value.const_value.numpy(), name=f"float.{value.name}")
    return copy


def _answers(model: ir.Model, images: Dataset) -> np.ndarray:
    session = open_session(to_bytes(model), optimize=False)
    name = session.get_inputs()[0].name
    batches = (session.run(None, {name: batch.images})[0] for batch in images.batches(_BATCH))
    return np.concatenate([scores.argmax(axis=1) for scores in batches])


if __name__ == "__main__":
    typer.run(main)
