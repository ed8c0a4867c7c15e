"""A short, repeatable recipe for small networks: SGD with one cycle of the learning rate.

The rate rises to its peak over the first 30 % of the steps and falls to nothing over the rest, momentum the other
way round (Smith & Topin 2018, arXiv:1708.07120).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from rexport._progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np

__all__ = ["TrainingRecipe", "train"]


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """``epochs`` over the images in batches of ``batch``, with the learning rate's peak and the weight decay."""

    epochs: int = 10
    batch: int = 64
    peak_learning_rate: float = 0.1
    weight_decay: float = 5e-4
    seed: int = 0


def train(
    module: torch.nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    recipe: TrainingRecipe,
    progress: Progress = silent,
) -> None:
    """Train ``module`` in place by cross-entropy and leave it in eval mode.

    The same module, images, recipe and number of threads give the same weights: the order of the images is drawn
    from the recipe's seed, and only deterministic algorithms are used.

    Args:
        module: Takes float32 of shape ``(N, 3, S, S)`` and returns logits of shape ``(N, classes)``.
        images: float32 of shape ``(count, 3, S, S)``, ready for the network.
        labels: int64 of shape ``(count,)``.
        recipe: How.
        progress: Told of every image.
    """
    inputs, targets = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.SGD(
        module.parameters(),
        lr=recipe.peak_learning_rate,
        momentum=0.9,
        weight_decay=recipe.weight_decay,
        nesterov=True,
    )
    steps = -(-len(inputs) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.peak_learning_rate, epochs=recipe.epochs, steps_per_epoch=steps
    )
    random = torch.Generator().manual_seed(recipe.seed)
    were_deterministic = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    module.train()
    try:
        with progress("training", recipe.epochs * len(inputs)) as advance:
            for _ in range(recipe.epochs):
                for chosen in torch.split(torch.randperm(len(inputs), generator=random), recipe.batch):
                    loss = F.cross_entropy(module(inputs[chosen]), targets[chosen])
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    schedule.step()
                    advance(len(chosen))
    finally:
        torch.use_deterministic_algorithms(were_deterministic, warn_only=only_warned)
        module.eval()
