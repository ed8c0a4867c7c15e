"""Choices that only a measurement on the target can make, and what was measured."""

from __future__ import annotations

from rexport.tuning.comparison import Comparison
from rexport.tuning.conv_layer import ConvLayer, grouped_layers
from rexport.tuning.group_form import AS_IT_IS, GroupForm
from rexport.tuning.groups import LayerChoice, RegroupResult, regroup
from rexport.tuning.stem import StemResult, block_stem
from rexport.tuning.timings import Conditions, Timings

__all__ = [
    "AS_IT_IS",
    "Comparison",
    "Conditions",
    "ConvLayer",
    "GroupForm",
    "LayerChoice",
    "RegroupResult",
    "StemResult",
    "Timings",
    "block_stem",
    "grouped_layers",
    "regroup",
]
