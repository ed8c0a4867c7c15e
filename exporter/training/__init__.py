"""Training: the short recipe that the quickstart uses."""

from __future__ import annotations

from rexport.training.one_cycle import TrainingRecipe, train

__all__ = ["TrainingRecipe", "train"]
