"""Olive's static quantization of one model, as a command of its own, in an environment without rexport.

    python quantize_olive.py MODEL.onnx IMAGES.npy OUTPUT.onnx u8s8|s8s8|default MinMax|Entropy|Percentile

``default`` is the pass as it is, S8S8 with a scale per tensor; the others have weights int8 per channel.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"  # read on import

from olive.data.component.dataset import BaseDataset
from olive.data.registry import Registry
from olive.workflows import run

_SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "s8s8": {"per_channel": True},
    "u8s8": {"per_channel": True, "activation_type": "uint8", "precision": "int8"},
}


@Registry.register_dataset("images")  # type: ignore[untyped-decorator]
def images_dataset(data_dir: str, input_name: str) -> Any:
    """Return the images of an .npy file, float32 of shape ``(3, S, S)`` each, with the label that Olive expects."""

    class _Images(BaseDataset):  # type: ignore[misc]
        def __getitem__(self, index: int) -> Any:
            return {input_name: self.data[index]}, 0

    return _Images(np.load(data_dir))


def main(model: str, images: str, output: str, types: str, method: str) -> None:
    """Quantize ``model``."""
    with tempfile.TemporaryDirectory() as folder:
        run(
            {
                "input_model": {"type": "ONNXModel", "model_path": model},
                "data_configs": [
                    {
                        "name": "calibration",
                        "load_dataset_config": {
                            "type": "images",
                            "params": {"data_dir": images, "input_name": onnx.load(model).graph.input[0].name},
                        },
                        "pre_process_data_config": {"type": "skip_pre_process"},
                        "post_process_data_config": {"type": "skip_post_process"},
                        "dataloader_config": {"type": "default_dataloader", "params": {"batch_size": 1}},
                    }
                ],
                "passes": {
                    "quantize": {
                        "type": "OnnxStaticQuantization",
                        "data_config": "calibration",
                        "calibrate_method": method,
                        **_SETTINGS[types],
                    }
                },
                "cache_dir": f"{folder}/cache",
                "output_dir": f"{folder}/output",
            }
        )
        written = sorted(Path(folder, "output").rglob("*.onnx"))
        if len(written) != 1:
            raise SystemExit(f"Olive wrote {len(written)} files instead of one.")
        shutil.move(written[0], output)


if __name__ == "__main__":
    main(*sys.argv[1:])
