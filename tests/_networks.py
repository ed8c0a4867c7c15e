"""PyTorch networks as they look after training, and files of them that we and other exporters wrote."""

from __future__ import annotations

import functools
import io
import pickle
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import onnxscript_apis

from rexport.exporting import ExportResult, export
from rexport.model_file import load, save
from rexport.models import build
from rexport.preprocessing import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

    from torch.nn import Module

    from rexport.preprocessing import Size
    from tests._products import Products


# every export parses the hundreds of functions that operators can become: a fifth of its time
onnxscript_apis.get_torchlib_ops = functools.cache(onnxscript_apis.get_torchlib_ops)


def trained_like(module: Module, seed: int = 0) -> Module:
    """Give every BatchNorm statistics of its own; those of a new network (0 and 1) hide what a fusion gets wrong."""
    random = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            with torch.no_grad():
                layer.running_mean.normal_(0, 0.2, generator=random)
                layer.running_var.uniform_(0.5, 1.5, generator=random)
                layer.weight.uniform_(0.5, 1.0, generator=random)
                layer.bias.normal_(0, 0.1, generator=random)
    return module.eval()


def export_once(
    products: Products, name: str, *, module: Module | None = None, size: Size = 32, **options: Any
) -> ExportResult:
    """Export a network of the zoo as after training, once in a run; another ``module`` has a name of its own."""

    def write(folder: Path) -> None:
        network = trained_like(build(name, seed=0)) if module is None else module
        result = export(network, preprocessing=Preprocessing(size=size), **{"network": name} | options)
        save(result.model, folder / "model.onnx")
        (folder / "reports").write_bytes(pickle.dumps((result.parity, result.reports)))

    folder = products.folder("exported", name, size, sorted(options.items()), make=write)
    parity, reports = pickle.loads((folder / "reports").read_bytes())
    return ExportResult(model=load(folder / "model.onnx"), parity=parity, reports=reports)


def torchscript_export(module: Module, *, size: int, opset: int = 13) -> ir.Model:
    """Return what PyTorch's older exporter writes, its BatchNormalization nodes included."""
    file = io.BytesIO()
    torch.onnx.export(
        module.eval(),
        (torch.zeros(2, 3, size, size),),
        file,
        dynamo=False,
        opset_version=opset,
        input_names=["pixels"],
        output_names=["scores"],
        dynamic_axes={"pixels": {0: "n"}, "scores": {0: "n"}},
        training=torch.onnx.TrainingMode.PRESERVE,  # else it folds them itself
    )
    return ir.from_proto(onnx.load_from_string(file.getvalue()))
