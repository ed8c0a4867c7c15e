"""Where a network is trained, and in what precision its layers multiply."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch

from rexport._errors import UnavailableError, UsageError
from rexport._words import first_line

__all__ = ["Execution", "choose_execution"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Execution:
    """A device and a precision. Weights are float32 in all of them; ``bf16`` and ``fp16`` are autocast's.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: Of convolutions and matrix products.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    def autocast(self) -> torch.autocast:
        """Return the context manager that the forward pass and the loss run in."""
        if self.precision == "fp32":
            return torch.autocast(self.device, torch.bfloat16, enabled=False)
        return torch.autocast(self.device, _DTYPES[self.precision])

    def scaler(self) -> torch.amp.GradScaler:
        """Return what keeps small gradients from vanishing in fp16, and does nothing in the others."""
        return torch.amp.GradScaler(self.device, enabled=self.precision == "fp16")


def choose_execution(device: str | None, precision: str) -> Execution:
    """Return where and how to train.

    Args:
        device: ``cpu``, ``cuda``, or ``None`` for CUDA if it is usable here and the CPU otherwise.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``auto``: on CUDA bf16 if the hardware has it and fp16 otherwise,
            fp32 on the CPU.

    Raises:
        UsageError: There is no such device or precision, or not together.
        UnavailableError: CUDA is asked for and not usable here.
    """
    if device not in (None, "cpu", "cuda"):
        raise UsageError(f"There is no device {device!r}; --device takes cpu or cuda.")
    if precision not in (*_DTYPES, "auto"):
        raise UsageError(f"There is no precision {precision!r}; --precision takes {', '.join(_DTYPES)} or auto.")
    if device == "cuda" or (device is None and torch.cuda.is_available()):
        why = _why_no_cuda()
        if why is None:
            return Execution(device="cuda", precision=_on_cuda(precision))
        if device == "cuda":
            raise UnavailableError(f"CUDA can't be used here: {why}. `--device cpu` trains without it.")
    if precision == "fp16":
        raise UsageError(
            "--precision fp16 is for CUDA; on the CPU take fp32, or bf16 where it has instructions for it."
        )
    return Execution(device="cpu", precision="bf16" if precision == "bf16" else "fp32")


def _why_no_cuda() -> str | None:
    if torch.version.cuda is None and torch.version.hip is None:
        return f"this PyTorch ({torch.__version__}) is built without it"
    # cuBLAS reads it when it starts; without it, it may add up in another order on every run
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        torch.zeros(1, device="cuda").add_(1).item()
    except (RuntimeError, AssertionError) as error:  # no driver, or a GPU that this build has no kernels for
        return first_line(error).rstrip(".")
    return None


def _on_cuda(precision: str) -> Literal["fp32", "bf16", "fp16"]:
    if precision == "fp32":
        return "fp32"
    if precision == "fp16":
        return "fp16"
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if precision == "bf16" or has_bf16 else "fp16"
