"""What ``rexport tune`` was asked for: the options, checked against each other and the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rexport._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import onnx_ir as ir

    from rexport.jobs.choices import Recovery
    from rexport.tuning import Candidate, Goal, Variant

__all__ = ["INT8", "MEASURE", "OFF", "ONNX_RUNTIME_CPU", "Deploying", "Quantizing"]

ONNX_RUNTIME_CPU = "cpu"
_DEFAULT_RUNTIMES = ("cpu", "openvino")
_DEFAULT_BATCHES = (1, 2, 4, 8, 16)
_FLOAT, INT8 = "fp32", "int8"
_HALF = "fp16"
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv")
_PRECISIONS = (_FLOAT, INT8)
OFF, MEASURE = "off", "measure"
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Quantizing:
    """How INT8 files are to be made, if there are images in ``data`` for it, as ``rexport quantize`` takes it."""

    data: Path | None
    eval_data: Path | None
    max_drop: float | None
    samples: int
    recover: Recovery | None
    skip_bad: bool


@dataclass(frozen=True, kw_only=True)
class Deploying:
    """What was asked for, checked: everything to choose from, in order and each once."""

    model: Path
    loaded: ir.Model
    own_precision: str
    precisions: tuple[str, ...]
    regroup: tuple[str, ...]
    runtimes: tuple[str, ...]
    batches: tuple[int, ...]
    threads: tuple[int, ...]
    quantizing: Quantizing

    @classmethod
    def parse(
        cls,
        model: Path,
        *,
        goal: Goal,
        on: str | None,
        batch: str | None,
        threads: str | None,
        precision: str | None,
        regroup: str,
        quantizing: Quantizing,
    ) -> Deploying:
        """Read the options.

        Raises:
            UsageError: They make no sense, by themselves or together or with the model.
            ModelFileError: The file is not a model of images.
        """
        loaded = _load(model)
        own = _precision_of(loaded)
        asked = cls(
            model=model,
            loaded=loaded,
            own_precision=own,
            precisions=_precisions(precision, own, model, quantizing),
            regroup=_words("--regroup", regroup, (OFF, MEASURE)),
            runtimes=_runtimes(on),
            batches=_batches(batch, loaded, goal),
            threads=_threads() if threads is None else _numbers("--threads", threads),
            quantizing=quantizing,
        )
        _check_accuracy(asked)
        return asked

    @property
    def quantizes(self) -> bool:
        """Whether INT8 files are to be made."""
        return INT8 in self.precisions and self.own_precision != INT8

    @property
    def regroups(self) -> bool:
        """Whether regrouped files are to be made."""
        return MEASURE in self.regroup

    def candidates(self, variants: Sequence[Variant]) -> list[Candidate]:
        """Return every way to run every file."""
        from rexport.tuning import Candidate

        return [
            Candidate(variant=variant, runtime=runtime, batch=batch, threads=threads)
            for variant in variants
            for runtime in self.runtimes
            if variant.runtimes is None or runtime in variant.runtimes
            for threads in self.threads
            for batch in self.batches
        ]


def _load(model: Path) -> ir.Model:
    from rexport.model_file import image_input, load

    if not model.exists() and model.suffix != ".onnx":
        raise UsageError(
            f"There is no file {model}; a profile is for an ONNX file, such as `rexport onnx {model} -o {model}.onnx` "
            "makes of a network of that name."
        )
    loaded = load(model)
    image_input(loaded, model)
    return loaded


def _precision_of(model: ir.Model) -> str:
    from rexport._errors import ModelFileError
    from rexport.quantization import require_float

    try:
        require_float(model)
    except ModelFileError:  # it is quantized, or in float16
        return INT8 if any(node.op_type in _QUANTIZED for node in model.graph) else _HALF
    return _FLOAT


def _precisions(text: str | None, own: str, model: Path, quantizing: Quantizing) -> tuple[str, ...]:
    if text is None:
        return (own, INT8) if quantizing.data is not None and own == _FLOAT else (own,)
    chosen = _words("--precision", text, _PRECISIONS)
    if own == _FLOAT:
        if INT8 in chosen and quantizing.data is None:
            raise UsageError("INT8 takes images to calibrate with; pass --data IMAGES, or --precision fp32.")
        return chosen
    if chosen != (own,):
        raise UsageError(
            f"{model} is {own} already, so --precision {text} can't be had from it; pass the float model that it was "
            "made from, or leave --precision out."
        )
    return chosen


def _check_accuracy(asked: Deploying) -> None:
    """Say if images or a loss of accuracy were given, and nothing is to be quantized.

    Raises:
        UsageError: Nothing is.
    """
    quantizing = asked.quantizing
    for option, value in (
        ("--data", quantizing.data),
        ("--eval-data", quantizing.eval_data),
        ("--max-drop", quantizing.max_drop),
    ):
        if value is not None and not asked.quantizes:
            why = (
                f"{asked.model} is {asked.own_precision} already; pass the float model that it was made from"
                if asked.own_precision != _FLOAT
                else "no INT8 file is to be made; pass --data IMAGES and no --precision"
            )
            raise UsageError(f"{option} is for making INT8 files, and {why}, or leave {option} out.")
    if quantizing.max_drop is not None and not math.isfinite(quantizing.max_drop):
        raise UsageError(f"--max-drop {quantizing.max_drop:g}: it is percentage points from 0 to 100, such as 0.5.")


def _runtimes(text: str | None) -> tuple[str, ...]:
    from importlib.util import find_spec

    from rexport.runtimes import ENGINE_RUNTIMES, NETWORK_RUNTIMES, NODE_BY_NODE, RUNTIMES

    # a profile names an ONNX file, and what is slow on purpose is no choice
    others = {*NETWORK_RUNTIMES, *ENGINE_RUNTIMES.values(), NODE_BY_NODE}
    possible = tuple(name for name in RUNTIMES if name not in others)
    if text is not None:
        return _words("--on", text, possible)
    return tuple(
        name for name in _DEFAULT_RUNTIMES if name in possible and (name == ONNX_RUNTIME_CPU or find_spec(name))
    )


def _batches(text: str | None, model: ir.Model, goal: Goal) -> tuple[int, ...]:
    """Return the batches; by default the model's own, else 1 for latency, which no larger one makes shorter."""
    from rexport.model_file import image_input
    from rexport.tuning import Goal

    if text is not None:
        return _numbers("--batch", text)
    fixed = image_input(model).batch
    if fixed is not None:
        return (fixed,)
    return (1,) if goal is Goal.LATENCY else _DEFAULT_BATCHES


def _threads() -> tuple[int, ...]:
    """Return 1, 2, 4 … and the number of usable cores."""
    from rexport._cpu import this_cpu

    cores = this_cpu().cores
    return tuple(sorted({2**power for power in range(cores.bit_length()) if 2**power <= cores} | {cores}))


def _words(option: str, text: str, possible: tuple[str, ...]) -> tuple[str, ...]:
    return _parts(option, text, lambda part: part if part in possible else None, f"choose from {', '.join(possible)}")


def _numbers(option: str, text: str) -> tuple[int, ...]:
    return _parts(
        option,
        text,
        lambda part: int(part) if part.isascii() and part.isdecimal() and int(part) > 0 else None,
        "it takes numbers from 1 on, such as 1,2",
    )


def _parts(option: str, text: str, parse: Callable[[str], _T | None], otherwise: str) -> tuple[_T, ...]:
    """Return the values between commas, each once.

    Raises:
        UsageError: There are none, or one is not what the option takes.
    """
    parts: Iterable[str] = [part.strip() for part in text.split(",") if part.strip()]
    values = [parse(part) for part in parts]
    found = [value for value in values if value is not None]
    if not found or len(found) < len(values):
        raise UsageError(f"{option} {text!r}: {otherwise}.")
    return tuple(dict.fromkeys(found))
