from __future__ import annotations

import pytest

from rexport._cpu import Cpu
from rexport._errors import UsageError
from rexport.quantization import TARGETS, X86, target_for


def _cpu(*flags: str, architecture: str = "x86_64") -> Cpu:
    return Cpu(name="a processor", architecture=architecture, cores=2, flags=frozenset(flags))


@pytest.mark.parametrize("flag", ["avx512_vnni", "avx_vnni"])
def test_vnni_takes_all_eight_bits(flag: str) -> None:
    assert target_for(None, _cpu("avx2", flag)) == X86
    assert target_for("x86", _cpu("avx2", flag)).weights.high == 127


def test_without_vnni_weights_have_seven_bits_and_it_says_so() -> None:
    target = target_for(None, _cpu("avx2"))
    assert (target.weights.high, target.activations.high) == (64, 255)
    assert "without VNNI" in target.because


def test_the_range_can_be_chosen() -> None:
    assert target_for("x86", _cpu("avx2"), reduce_range=False).weights.high == 127
    assert target_for("x86", _cpu("avx512_vnni"), reduce_range=True).weights.high == 64


def test_another_architecture_can_be_built_for() -> None:
    assert target_for("x86", _cpu(architecture="aarch64")) == X86
    with pytest.raises(UsageError, match="no target for aarch64 yet; pass --target x86"):
        target_for(None, _cpu(architecture="aarch64"))


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(UsageError, match=f"no target 'z80'; choose from {', '.join(TARGETS)}"):
        target_for("z80", _cpu())
