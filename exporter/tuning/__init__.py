"""Choices that only a measurement on the target can make, and the measurements."""

from __future__ import annotations

from rexport.tuning.comparison import Comparison, conditions_for
from rexport.tuning.conv_layer import ConvLayer, grouped_layers
from rexport.tuning.deployment import SearchResult, Trial, search_deployment
from rexport.tuning.deployment_choice import Bounds, Candidate, Estimate, Goal, Measured, Variant, choose
from rexport.tuning.group_form import AS_IT_IS, GroupForm
from rexport.tuning.groups import LayerChoice, RegroupResult, regroup
from rexport.tuning.mixed_precision import Exam, GatePoint, GateResult, mix_precision, require_speedup
from rexport.tuning.sensitivity import LayerSensitivity
from rexport.tuning.stem import StemResult, block_stem
from rexport.tuning.timings import Conditions, Timings

__all__ = [
    "AS_IT_IS",
    "Bounds",
    "Candidate",
    "Comparison",
    "Conditions",
    "ConvLayer",
    "Estimate",
    "Exam",
    "GatePoint",
    "GateResult",
    "Goal",
    "GroupForm",
    "LayerChoice",
    "LayerSensitivity",
    "Measured",
    "RegroupResult",
    "SearchResult",
    "StemResult",
    "Timings",
    "Trial",
    "Variant",
    "block_stem",
    "choose",
    "conditions_for",
    "grouped_layers",
    "mix_precision",
    "regroup",
    "require_speedup",
    "search_deployment",
]
