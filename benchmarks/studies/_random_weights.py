"""Weights for measuring speed: random, and with biases, as trained ones have."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_random_weights"]

_SEED = 0
_SPREAD = 0.1  # of means and biases


def write_random_weights(network: str, path: Path) -> None:
    """Write weights of a network (.safetensors), the same ones each time.

    A new network's BatchNormalizations have mean and bias 0, so that fused convolutions have no bias, which runtimes
    leave out; a trained network's have.
    """
    import torch
    from safetensors.torch import save_file

    from rexport.models import build

    generator = torch.Generator().manual_seed(_SEED)
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        module = build(network)
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.normal_(0, _SPREAD, generator=generator)
            norm.running_var.uniform_(1 - _SPREAD, 1 + _SPREAD, generator=generator)
            norm.bias.data.normal_(0, _SPREAD, generator=generator)
    save_file(module.state_dict(), path)
