"""The real pictures of a folder per class, and how many of them a network gets right; apart from the package's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_images", "right"]


def read_images(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normalised pictures, float ``(N, 3, H, W)``, and labels ``(N,)``."""
    classes = sorted(path.name for path in folder.iterdir())
    files = [(path, label) for label, name in enumerate(classes) for path in sorted((folder / name).iterdir())]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    return (x - mean) / std, torch.tensor([label for _, label in files])


@torch.inference_mode()
def right(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> int:
    """Return how many pictures get their label."""
    predicted = torch.cat([network(batch).argmax(1) for batch in images.split(250)])
    return int((predicted == labels).sum())
