"""How good a model is: accuracy, and agreement with another model."""

from __future__ import annotations

from rexport.evaluation.candidate import Candidate
from rexport.evaluation.divergence import Divergence, DivergenceReport, find_divergence
from rexport.evaluation.evaluate import evaluate
from rexport.evaluation.likeness import Arithmetic
from rexport.evaluation.reference import Reference
from rexport.evaluation.result import Comparison, Evaluation
from rexport.evaluation.scores import Classifier, ClassifierFile

__all__ = [
    "Arithmetic",
    "Candidate",
    "Classifier",
    "ClassifierFile",
    "Comparison",
    "Divergence",
    "DivergenceReport",
    "Evaluation",
    "Reference",
    "evaluate",
    "find_divergence",
]
