"""How good a model is: accuracy, and agreement with another model."""

from __future__ import annotations

from rexport.evaluation.evaluate import evaluate
from rexport.evaluation.evaluate_file import ClassifierFile, evaluate_file
from rexport.evaluation.result import Comparison, Evaluation

__all__ = ["ClassifierFile", "Comparison", "Evaluation", "evaluate", "evaluate_file"]
