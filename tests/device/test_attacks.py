"""The attacks that The Update Framework names, as the reliability benchmark mounts them, one test for each."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests._deep import deep
from tests.faults.attacks import ATTACKS, DEVICES, mount
from tests.faults.vendor import Vendor, Victim

if TYPE_CHECKING:
    from pathlib import Path

_TRIED = {
    "arbitrary-software": 4,
    "rollback": 2,
    "fast-forward": 2,
    "freeze": 2,
    "endless-data": 6,
    "slow-retrieval": 1,
    "extraneous-data": 6,
    "mix-and-match": 3,
    "wrong-software": 5,
    "key-compromise": 3,
    "signed-nonsense": 29,
    "signed-garbage": 6,
}

_EVERY = list(itertools.product(ATTACKS, DEVICES))
_SOME = list(zip(ATTACKS, itertools.cycle(DEVICES)))
"""Every attack, and every device with several of them; which device it is matters to few."""


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    pytest.importorskip("cryptography", reason="signing takes it: pip install 'rexport[deploy]'")
    return Vendor.new(tmp_path_factory.mktemp("signer"))


@pytest.mark.parametrize(("attack", "device"), [*_SOME, *deep(*(case for case in _EVERY if case not in _SOME))])
def test_it_is_refused(attack: str, device: str, signer: Vendor, tmp_path: Path) -> None:
    """With the exit code and the reason that the attack states, and with nothing changed on the device."""
    victim = Victim.new(tmp_path, signer, installed=DEVICES[device])
    mount(attack, victim)
    assert victim.problems == []
    assert victim.refused == victim.tried == _TRIED[attack]
