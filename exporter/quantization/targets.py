"""The requirements of each target on an INT8 file, as data.

``x86`` and ``arm`` run in ONNX Runtime, which computes DequantizeLinear → operator → QuantizeLinear as one operator on
integers, ``openvino`` in OpenVINO's CPU plugin, which does the same with more operators. ``tensorrt`` is TensorRT's
explicit quantization: symmetric integers, scales without a dimension for tensors, biases in float, and a convolution,
the addition of its result and a ReLU run as one, so that nothing may stand between them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from rexport._errors import UsageError
from rexport._words import suggestion
from rexport.quantization.schemes import INT8, INT8_FULL, INT8_HALF, UINT8, Integers

if TYPE_CHECKING:
    from rexport._cpu import Cpu

__all__ = [
    "ARM",
    "DEVICE_MACHINES",
    "DEVICE_RUNTIMES",
    "ONNX_RUNTIME",
    "OPENVINO",
    "TARGETS",
    "TENSORRT",
    "X86",
    "X86_NAMES",
    "Stored",
    "Target",
    "target_for",
]

ONNX_RUNTIME = "ONNX Runtime"
DEVICE_MACHINES, DEVICE_RUNTIMES = ("aarch64", "x86_64"), ("onnxruntime",)  # of a file that is for all, as a float one
X86_NAMES, _ARM_NAMES = ("x86_64", "AMD64"), ("aarch64", "arm64", "ARM64")  # of architectures, by systems


class Stored(StrEnum):
    """Which tensors around an integer operator are stored as integers.

    ``RESULTS``: its inputs and its result, as it computes integers from integers. ``INPUTS``: its inputs alone; of the
    sum at the end of a residual block, which runs as one with the convolution before it, only the identity.
    """

    RESULTS = "results"
    INPUTS = "inputs"


@dataclass(frozen=True, kw_only=True)
class Target:
    """The rules of a target.

    Attributes:
        name: As on the command line.
        activations: The integers of tensors, one scale for each tensor.
        weights: The integers of weights, one scale for each output channel.
        because: Why these, in words.
        kernels: The operators that it computes with integers.
        runtime: The runtime of its files, in words.
        stored: Which tensors around them are stored as integers.
        gives_floats: The operators that it also computes with integers where their result stays float.
        integer_bias: Whether a bias is stored as int32, at the scale of the products that it is added to, or as float.
        group_multiple: The channels of each group of a grouped convolution, in and out, must be a multiple of it.
        rest: The type of the layers that do not become integer, and of the scales.
        may_have_float16: Whether ``rest`` can be float16.
        needs_vnni: Whether x86 processors need VNNI to compute 8-bit weights without saturation.
        machines: The devices' architectures, as ``platform.machine()`` gives them.
        device_runtimes: The runtimes there, by their names in bundles, the best first.
    """

    name: str
    activations: Integers
    weights: Integers
    because: str
    kernels: frozenset[str]
    runtime: str = ONNX_RUNTIME
    stored: Stored = Stored.RESULTS
    gives_floats: frozenset[str] = frozenset({"Gemm"})
    integer_bias: bool = True
    group_multiple: int = 1
    rest: type[np.float32] | type[np.float16] = np.float32
    may_have_float16: bool = False
    needs_vnni: bool = False
    machines: tuple[str, ...] = DEVICE_MACHINES
    device_runtimes: tuple[str, ...] = DEVICE_RUNTIMES

    @property
    def is_int8_in_onnxruntime(self) -> bool:
        """Whether ONNX Runtime multiplies int8 by int8 in its files, for which it has exact kernels everywhere."""
        return self.runtime == ONNX_RUNTIME and self.activations.dtype is np.int8

    @property
    def opset(self) -> int:
        """The first version of the ONNX operators that has all that its files need.

        DequantizeLinear has had an axis since 13, and a scale in float16 since 19.
        """
        return 19 if self.rest is np.float16 else 13

    def with_reduced_range(self) -> Target:
        """Return the target for processors that add pairs of products in 16 bits."""
        return replace(
            self,
            weights=INT8_HALF,
            because="without VNNI, pairs of uint8 × int8 products are added in 16 bits and saturate; "
            "7-bit weights do not, and give the same results on every processor",
        )

    def with_float16(self) -> Target:
        """Return the target for files whose layers that are not integer compute in float16.

        Raises:
            UsageError: It computes in float32 alone.
        """
        if not self.may_have_float16:
            raise UsageError(f"The target {self.name} computes in float32 beside INT8; leave --precision int8.")
        return replace(self, rest=np.float16)


_COMMON = frozenset({"Conv", "Gemm", "Add", "Concat", "GlobalAveragePool", "AveragePool"})
_ONNX_RUNTIME = _COMMON | {"Mul", "Sigmoid", "LeakyRelu"}

X86 = Target(
    name="x86",
    activations=UINT8,
    weights=INT8,
    because="VNNI multiplies uint8 by int8 and adds in 32 bits",
    kernels=_ONNX_RUNTIME,
    needs_vnni=True,
    machines=("x86_64",),
)
ARM = Target(
    name="arm",
    activations=INT8_FULL,
    weights=INT8,
    because="ARM's dot products multiply int8 by int8",
    kernels=_ONNX_RUNTIME,
    machines=("aarch64",),
)
OPENVINO = Target(
    name="openvino",
    activations=UINT8,
    weights=INT8,
    because="OpenVINO's CPU plugin multiplies uint8 by int8",
    kernels=_COMMON | {"ConvTranspose"},
    runtime="OpenVINO",
    gives_floats=frozenset({"Conv", "ConvTranspose", "Gemm"}),
    integer_bias=False,
    needs_vnni=True,
    machines=("x86_64",),
)
TENSORRT = Target(
    name="tensorrt",
    activations=INT8,
    weights=INT8,
    because="TensorRT multiplies int8 by int8, both without a zero point",
    kernels=frozenset({"Conv", "ConvTranspose", "Gemm", "Add"}),
    runtime="TensorRT",
    stored=Stored.INPUTS,
    integer_bias=False,
    group_multiple=4,
    may_have_float16=True,
    device_runtimes=("tensorrt", "rtx", "onnxruntime"),
)
TARGETS = {target.name: target for target in (X86, ARM, OPENVINO, TENSORRT)}
_PRECISIONS = ("int8", "int8+fp16")


def target_for(name: str | None, cpu: Cpu, *, reduce_range: bool | None = None, precision: str = "int8") -> Target:
    """Return the target called ``name``, by default the one for ``cpu``.

    Args:
        name: One of ``TARGETS``.
        cpu: The processor that the default is chosen for.
        reduce_range: Whether weights get 7 bits instead of 8; by default if the target needs VNNI, and ``cpu`` is an
            x86 processor without it.
        precision: ``int8``, or ``int8+fp16`` for float16 in the layers that are not integer.

    Raises:
        UsageError: There is no such target, or none for this processor, or it lacks this precision.
    """
    if precision not in _PRECISIONS:
        raise UsageError(f"There is no precision {precision!r} of quantized files; choose {' or '.join(_PRECISIONS)}.")
    if name is None:
        defaults = dict.fromkeys(X86_NAMES, X86.name) | dict.fromkeys(_ARM_NAMES, ARM.name)
        if cpu.architecture not in defaults:
            raise UsageError(f"There is no target for {cpu.architecture} yet; pass --target {' or '.join(TARGETS)}.")
        name = defaults[cpu.architecture]
    if name not in TARGETS:
        raise UsageError(f"There is no target {name!r}; choose from {', '.join(TARGETS)}.{suggestion(name, TARGETS)}")
    target = TARGETS[name]
    if reduce_range is None:
        reduce_range = target.needs_vnni and cpu.architecture in X86_NAMES and not cpu.has_vnni
    if reduce_range:
        target = target.with_reduced_range()
    return target if precision == "int8" else target.with_float16()
