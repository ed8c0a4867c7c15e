"""How good a model is: accuracy, and agreement with another model."""

from __future__ import annotations

from rexport.evaluation.evaluate import Comparison, Evaluation, evaluate

__all__ = ["Comparison", "Evaluation", "evaluate"]
