"""Pictures of other channels than three: files that take them, and normalise or resize them themselves."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from rexport._errors import UsageError
from rexport.exporting import export
from rexport.model_file import to_bytes
from rexport.preprocessing import Preprocessing
from rexport.runtimes.onnxruntime import open_session
from tests._networks import trained_like


def _network(channels: int) -> nn.Module:
    torso = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return trained_like(nn.Sequential(torso, nn.Flatten(), nn.Linear(4, 3)))


def _preprocessing(channels: int) -> Preprocessing:
    return Preprocessing(size=(8, 12), resize=16, mean=(0.5,) * channels, std=(0.25,) * channels)


@pytest.mark.slow
def test_grey_pictures_are_resized_in_the_graph() -> None:
    result = export(_network(1), preprocessing=_preprocessing(1), resize_in_graph=True)
    assert result.parity.sizes[0] == (8, 12)
    assert result.parity.levels is not None
    (logits,) = open_session(to_bytes(result.model)).run(None, {"images": np.zeros((2, 30, 20, 1), np.uint8)})
    assert logits.shape == (2, 3)


@pytest.mark.slow
def test_transparent_pictures_are_normalised_in_the_graph_and_not_resized() -> None:
    result = export(_network(4), preprocessing=_preprocessing(4), raw_image=True)
    (logits,) = open_session(to_bytes(result.model)).run(None, {"images": np.zeros((2, 8, 12, 4), np.uint8)})
    assert logits.shape == (2, 3)
    with pytest.raises(UsageError, match="transparency"):
        export(_network(4), preprocessing=_preprocessing(4), resize_in_graph=True)
