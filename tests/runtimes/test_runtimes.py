from __future__ import annotations

from importlib import import_module

import pytest

from rexport._errors import UsageError
from rexport.runtimes import ENGINE_RUNTIMES, NETWORK_RUNTIMES, RUNTIMES, DeviceRuntime, open_runtime
from rexport.runtimes.probes import PROBES
from rexport.runtimes.source import Source

_METHODS = ("__enter__", "__exit__", "run")
_DEVICE_METHODS = ("run_phases", "keep", "run_kept")


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_runtime_is_one(name: str) -> None:
    module, _, factory = RUNTIMES[name].partition(":")
    kind = getattr(import_module(module), factory)
    assert [method for method in _METHODS if not callable(getattr(kind, method, None))] == []
    on_device = [method for method in _DEVICE_METHODS if callable(getattr(kind, method, None))]
    assert len(on_device) == (3 if name in ("cuda", "tensorrt", *ENGINE_RUNTIMES.values()) else 0)


def test_every_other_runtime_can_be_probed() -> None:
    # compiling takes ten seconds; the runtime says by itself what it lacks
    by_itself = {"torch-compile", "torch-compile-cuda", "cpu-node-by-node"}
    assert set(RUNTIMES) - set(PROBES) == by_itself


def test_networks_run_on_pytorch_alone() -> None:
    assert {"torch", "torch-compile", "torch-cuda", "torch-compile-cuda"} == NETWORK_RUNTIMES
    assert set(RUNTIMES) > NETWORK_RUNTIMES


def test_what_lacks_the_methods_is_no_device_runtime() -> None:
    with open_runtime("torch", Source(network="cifar_resnet8"), threads=1) as runtime:
        assert not isinstance(runtime, DeviceRuntime)


def test_an_unknown_runtime_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=f"choose from {', '.join(RUNTIMES)}"):
        open_runtime("abacus", Source(network="cifar_resnet20"))
