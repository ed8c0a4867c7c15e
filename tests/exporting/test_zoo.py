"""Networks of every kind in the zoo can be exported, fused, and proven equal.

Each kind has a small network here by default; those of the zoo up to depth 50 are deep tests. The deeper ones, whose
graphs are only longer, take minutes: ``benchmarks.studies.zoo_parity`` exports them all.
"""

from __future__ import annotations

import pytest
from torch import nn

from rexport import models
from rexport.exporting import export
from rexport.preprocessing import Preprocessing
from tests._deep import deep
from tests._networks import trained_like

_KINDS = [
    "preact_resnet[depth=14,stages=4,block=bottleneck,stem_width=16]",
    "resnet[depth=14,stages=4,block=bottleneck,stem=deep,downsample=pool,stem_width=16]",
    "resnet[depth=11,stages=3,block=bottleneck,stride=1x1,shortcut=C,stem_width=8]",
    *(f"resnet[depth=8,stages=3,shortcut={shortcut}]" for shortcut in ("scaled", "gated", "shortcut_gated", "dropout")),
]  # ResNeXt: tests/passes/test_merge_branches.py; an ensemble: tests/quantization
_NETWORKS = [network.name for network in models.networks() if (network.depth or 0) <= 50]
_DEEPER = [
    "resnet[depth=29,stages=3,block=bottleneck,stride=1x1,shortcut=C]",
    *(f"resnet[depth=14,stages=3,shortcut={shortcut}]" for shortcut in ("none", "B")),
    "resnext[depth=29,stages=3,cardinality=4,base_width=4]",
    "cifar_resnet8+cifar_plain8",
    "cifar_resnet8+cifar_plain8+cifar_preact_resnet8",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*_KINDS, *deep(*_NETWORKS, *_DEEPER)])
def test_a_network_is_exported_and_proven(name: str) -> None:
    network = models.find(name)
    module = trained_like(network.construct(10))
    # smaller pictures than the papers': the graph is the same, and the proof takes a tenth of the time
    size = min(network.input_size, 64)
    result = export(module, preprocessing=Preprocessing(size=size), network=name)
    assert 0 < result.parity.difference <= result.parity.tolerance
    convolutions = sum(isinstance(child, nn.Conv2d) for child in module.modules())
    operators = [node.op_type for node in result.model.graph]
    left = {report.name: report.changed for report in result.reports}
    assert operators.count("Conv") == convolutions + left["SubsampleToConv"]
    if "preact" not in name:
        assert "BatchNormalization" not in operators
        return
    # what is left has an activation between it and the convolution after it, or the end of the network
    norms = sum(isinstance(child, nn.BatchNorm2d) for child in module.modules())
    assert operators.count("BatchNormalization") == norms - left["FuseConvBatchNorm"] - left["FuseBatchNormConv"]
