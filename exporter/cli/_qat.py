"""``--qat``: fine-tuning a network as its INT8 file will compute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport._errors import UsageError, VerificationError
from rexport.cli._paths import READ_IMAGES

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

    from rexport.preprocessing import Preprocessing
    from rexport.training import FakeQuantized

__all__ = ["QAT_LEARNING_RATE", "Qat", "QatData", "QatTarget", "int8_path"]

QatData = Annotated[
    Path | None,
    READ_IMAGES,
    typer.Option(
        "--qat",
        metavar="DIR",
        help="Fine-tune --weights in INT8, with ranges calibrated on the images in DIR, and write the INT8 file too "
        "(its name ends in .int8.onnx).",
        show_default=False,
    ),
]
QatTarget = Annotated[
    str | None, typer.Option("--target", help="With --qat: what is to run the INT8 file, as of `rexport quantize`.")
]
QAT_LEARNING_RATE = 0.001  # of a fine-tune's in float: with BatchNorm folded, larger steps forget what was learnt
_SAMPLES, _BATCH = 512, 64
_TOLERANCE = 1e-4  # of the logits' scale: BatchNorm is written back with weights that are rounded once more


def int8_path(weights: Path) -> Path:
    """Return where the INT8 file of trained ``weights`` is written."""
    return weights.with_suffix(".int8.onnx")


@dataclass(frozen=True, kw_only=True)
class Qat:
    """A network in training: ``network`` as it is exported, ``trained`` as it computes, and the ``table``'s JSON."""

    network: nn.Module
    trained: FakeQuantized
    table: str

    @staticmethod
    def check(
        data: Path | None, target: str | None, *, weights: Path | None, freeze_backbone: bool, precision: str
    ) -> None:
        """Refuse options that do not go together.

        Raises:
            UsageError: They do not.
        """
        if data is None:
            if target is not None:
                raise UsageError("--target says what runs an INT8 file; pass --qat DIR too.")
            return
        if weights is None:
            raise UsageError("--qat fine-tunes a network that is trained already; pass --weights FILE too.")
        if freeze_backbone:
            raise UsageError("--qat adapts all layers to their integers; leave --freeze-backbone out.")
        if precision not in ("auto", "fp32"):
            raise UsageError(f"--qat rounds to integers itself, from fp32; leave --precision {precision} out.")

    @classmethod
    def begin(
        cls,
        network: nn.Module,
        name: str,
        data: Path,
        target: str | None,
        preprocessing: Preprocessing,
        classes: tuple[str, ...],
    ) -> Qat:
        """Export and calibrate ``network``.

        Raises:
            UsageError: There is no such target, or it has layers that can't be trained so.
            DataError: There is nothing to calibrate with.
        """
        from rexport._cpu import this_cpu
        from rexport.calibration import calibrate, open_dataset
        from rexport.cli._console import progress
        from rexport.exporting import export
        from rexport.quantization import target_for
        from rexport.training import fake_quantize

        model = export(network, preprocessing=preprocessing, network=name, classes=classes).model
        dataset = open_dataset(data, preprocessing)
        images = (batch.images for batch in dataset.batches(_BATCH, samples=_SAMPLES))
        table = calibrate(model, images, total=min(_SAMPLES, len(dataset)), progress=progress)
        chosen = target_for(target, this_cpu())
        trained = fake_quantize(model, table, target=chosen, network=network)
        return cls(network=network, trained=trained, table=table.to_json())

    def fingerprint(self) -> str:
        """Return what identifies the ranges and the target, of a training that is to be gone on with."""
        import hashlib

        return hashlib.sha256(f"{self.trained.target.name}\n{self.table}".encode()).hexdigest()

    def finish(self, output: Path) -> Path:
        """Write the INT8 file beside the weights, let the network have them, and return the file.

        Raises:
            VerificationError: The network does not compute as the model that was trained (a defect of rexport).
        """
        from rexport.model_file import save

        file = int8_path(output)
        self.trained.write_to(self.network)
        _require_equal(self.network, self.trained.float_model())
        save(self.trained.quantized().model, file)
        return file


def _require_equal(network: nn.Module, model: ir.Model) -> None:
    import numpy as np
    import torch

    from rexport.model_file import Metadata, to_bytes
    from rexport.runtimes.onnxruntime import open_session

    preprocessing = Metadata.of(model).preprocessing
    assert preprocessing is not None
    size = preprocessing.size
    images = np.random.default_rng(0).standard_normal((2, 3, size, size), np.float32)
    session = open_session(to_bytes(model))
    expected = session.run(None, {session.get_inputs()[0].name: images})[0]
    with torch.inference_mode():
        actual = network.eval()(torch.from_numpy(images)).numpy()
    if not np.abs(actual - expected).max() <= _TOLERANCE * np.abs(expected).max():
        raise VerificationError(
            "The network does not compute as the model that was trained; this is a defect of rexport."
        )
