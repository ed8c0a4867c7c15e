from __future__ import annotations

import numpy as np
import pytest

from rexport._cpu import Cpu
from rexport._errors import UsageError
from rexport.quantization import ARM, TARGETS, TENSORRT, X86, target_for


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


@pytest.mark.parametrize("architecture", ["aarch64", "arm64"])
def test_arm_is_the_default_on_arm(architecture: str) -> None:
    assert target_for(None, _cpu(architecture=architecture)) == ARM


def test_another_architecture_can_be_built_for() -> None:
    assert target_for("x86", _cpu(architecture="aarch64")) == X86
    assert target_for("arm", _cpu("avx2")) == ARM
    with pytest.raises(UsageError, match="no target for riscv64 yet; pass --target x86 or arm or openvino or tensorrt"):
        target_for(None, _cpu(architecture="riscv64"))


def test_openvino_needs_vnni_as_onnx_runtime_does() -> None:
    assert target_for("openvino", _cpu("avx2")).weights.high == 64
    assert target_for("openvino", _cpu("avx512_vnni")).weights.high == 127
    assert target_for("tensorrt", _cpu("avx2")).weights.high == 127  # it computes elsewhere


def test_float16_beside_int8_is_for_tensorrt() -> None:
    half = target_for("tensorrt", _cpu(), precision="int8+fp16")
    assert half.rest is np.float16
    assert (half.opset, TENSORRT.opset) == (19, 13)  # the first with scales in float16, and with an axis
    with pytest.raises(UsageError, match="x86 computes in float32 beside INT8"):
        target_for("x86", _cpu(), precision="int8+fp16")
    with pytest.raises(UsageError, match="no precision 'int4' of quantized files; choose int8 or int8\\+fp16"):
        target_for("tensorrt", _cpu(), precision="int4")


def test_integers_of_tensorrt_have_no_zero_point() -> None:
    assert TENSORRT.activations.symmetric
    assert TENSORRT.weights.symmetric
    assert not ARM.activations.symmetric
    assert all(target.weights.symmetric for target in TARGETS.values())


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(UsageError, match=f"no target 'z80'; choose from {', '.join(TARGETS)}"):
        target_for("z80", _cpu())
