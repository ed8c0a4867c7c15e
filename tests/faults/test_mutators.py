from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.faults.mutators import mutate_bytes, mutate_json, mutate_onnx, mutate_toml
from tests.faults.seeds import small_network

if TYPE_CHECKING:
    from collections.abc import Callable

_JSON = json.dumps({"a": [1, 2.5, "text", None], "b": {"c": True, "d": []}}).encode()
_TOML = b'schema = "x"\n[run]\nthreads = 2\nbatch = 1\n'
_GOOD = [
    (mutate_bytes, bytes(range(256))),
    (mutate_json, _JSON),
    (mutate_json, bytes(range(256))),
    (mutate_toml, _TOML),
    (mutate_onnx, small_network().SerializeToString()),
]


@pytest.mark.parametrize(("mutate", "good"), _GOOD, ids=["bytes", "json", "what was JSON", "toml", "onnx"])
def test_a_number_is_a_case(mutate: Callable[[bytes, Random], bytes], good: bytes) -> None:
    cases = [mutate(good, Random(number)) for number in range(300)]
    assert cases == [mutate(good, Random(number)) for number in range(300)]
    assert sum(case != good for case in cases) > 240
    assert len(set(cases)) > 130
