"""Quantize a file from Python: ``python quantize.py MODEL.onnx PICTURES OUTPUT.onnx``."""

from __future__ import annotations

import sys
from pathlib import Path

import rexport


def quantized(model: str, pictures: Path, output: str) -> float:
    """Write the INT8 file, and return its lowest signal to noise ratio, in decibels."""
    result = rexport.quantize(model, data=pictures, output=output, note=print)
    if result.proof is None:
        raise rexport.VerificationError("Nothing was proven.")
    print(f"{output}: {result.size} bytes, {result.proof}")
    return result.proof.worst.sqnr_db


if __name__ == "__main__":
    quantized(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
