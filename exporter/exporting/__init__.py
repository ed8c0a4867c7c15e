"""From a PyTorch module to an ONNX model that is proven equal to it."""

from __future__ import annotations

from rexport.exporting.example import export_example
from rexport.exporting.export import ExportResult, export
from rexport.exporting.parity import DEFAULT_TOLERANCE, Parity, prove_parity

__all__ = ["DEFAULT_TOLERANCE", "ExportResult", "Parity", "export", "export_example", "prove_parity"]
