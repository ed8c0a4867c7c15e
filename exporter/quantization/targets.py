"""What each target wants of an INT8 file, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rexport._errors import UsageError
from rexport.quantization.schemes import INT8, INT8_HALF, UINT8, Integers

if TYPE_CHECKING:
    from rexport._cpu import Cpu

__all__ = ["TARGETS", "X86", "Target", "target_for"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """The rules of a target.

    Attributes:
        name: As on the command line.
        activations: The integers of tensors, one scale for each tensor.
        weights: The integers of weights, one scale for each output channel.
        because: Why these, in words.
    """

    name: str
    activations: Integers
    weights: Integers
    because: str

    def with_reduced_range(self) -> Target:
        """Return the target for processors that add pairs of products in 16 bits."""
        return replace(
            self,
            weights=INT8_HALF,
            because="without VNNI, pairs of uint8 × int8 products are added in 16 bits and saturate; "
            "7-bit weights do not, and give the same results on every processor",
        )


X86 = Target(
    name="x86",
    activations=UINT8,
    weights=INT8,
    because="VNNI multiplies uint8 by int8 and adds in 32 bits",
)
TARGETS = {target.name: target for target in (X86,)}


def target_for(name: str | None, cpu: Cpu, *, reduce_range: bool | None = None) -> Target:
    """Return the target called ``name``, by default the one for ``cpu``.

    Args:
        name: One of ``TARGETS``.
        cpu: The processor that the default is chosen for.
        reduce_range: Whether weights get 7 bits instead of 8; by default if ``cpu`` is an x86 without VNNI.

    Raises:
        UsageError: There is no such target, or none for this processor.
    """
    is_x86 = cpu.architecture in ("x86_64", "AMD64")
    if name is None and not is_x86:
        raise UsageError(f"There is no target for {cpu.architecture} yet; pass --target {' or '.join(TARGETS)}.")
    name = name or X86.name
    if name not in TARGETS:
        raise UsageError(f"There is no target {name!r}; choose from {', '.join(TARGETS)}.")
    if reduce_range is None:
        reduce_range = is_x86 and not cpu.has_vnni
    target = TARGETS[name]
    return target.with_reduced_range() if reduce_range else target
