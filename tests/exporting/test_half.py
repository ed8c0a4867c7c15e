"""A network in float16, and the comparison that comes with it."""

from __future__ import annotations

import numpy as np
import pytest

from rexport._errors import VerificationError
from rexport.exporting.half import FLOAT16_TOLERANCE, to_half
from rexport.model_file import to_bytes
from rexport.passes.raw_image import with_raw_images
from rexport.preprocessing import Preprocessing
from rexport.runtimes.onnxruntime import open_session
from tests._graphs import graph
from tests.quantization._tables import exported, pictures

_NETWORKS = [
    "cifar_resnet8",
    "cifar_preact_resnet8",
    "resnext[depth=11,stages=3,cardinality=4,base_width=4,stem_width=16]",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", _NETWORKS)
def test_networks_stay_what_they_are(name: str) -> None:
    model, x = exported(name), pictures(4)
    half = to_half(model)
    assert half.conversion.kept == ()
    assert 0 < half.difference < 2e-3  # measured 3e-4 to 7e-4; the tolerance leaves room for deeper networks
    results = [open_session(to_bytes(file)).run(None, {"images": x})[0] for file in (model, half.conversion.model)]
    assert np.abs(results[0] - results[1]).max() < FLOAT16_TOLERANCE * np.abs(results[0]).max()
    assert len(to_bytes(half.conversion.model)) < 0.6 * len(to_bytes(model))


def test_raw_images_stay_uint8() -> None:
    raw = with_raw_images(exported("cifar_resnet8"), Preprocessing(size=32))
    half = to_half(raw)
    assert half.conversion.model.graph.inputs[0].dtype == raw.graph.inputs[0].dtype
    assert half.difference < 2e-3


def test_what_float16_can_not_tell_apart_is_not_written() -> None:
    constants = {"large": np.float32(3e4).reshape(()), "small": np.float32(3e4 - 3).reshape(())}
    model = graph("a = Add (x, large) y = Sub (a, small)", constants)
    with pytest.raises(VerificationError, match="difference of float16 from float32 is above 1e-02: weights or"):
        to_half(model)
