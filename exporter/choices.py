"""The choices that requests, records and the options of commands share; importing them loads nothing."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["FloatPrecision", "Goal", "Recovery", "Stem"]


class FloatPrecision(StrEnum):
    """What a float file computes in."""

    FP32 = "fp32"
    FP16 = "fp16"


class Goal(StrEnum):
    """What is looked for: the most images per second, or the shortest call."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"


class Recovery(StrEnum):
    """What is done against the loss of accuracy: nothing, what the calibration table allows, what pictures add."""

    NONE = "none"
    EQUALIZE = "equalize"
    ADAROUND = "adaround"


class Stem(StrEnum):
    """Whether the first convolution is to read blocks of pixels."""

    MEASURE = "measure"
    OFF = "off"
    ON = "on"
