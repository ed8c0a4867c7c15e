"""The files that ``rexport tune`` chooses between: the one that came in, and what can be made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport.cli._deploying import INT8, OFF, ONNX_RUNTIME_CPU

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from rexport.cli._deploying import Deploying
    from rexport.jobs.quantize import QuantizeRequest, QuantizeResult
    from rexport.tuning import Variant

__all__ = ["LeftOut", "Made", "make_variants"]

_TARGETS = {"openvino": "openvino", "tensorrt": "tensorrt"}  # of the other runtimes, what this machine is


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A kind of file that there is none of, and why, in a sentence."""

    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Made:
    """The files to choose between, those that could not be made, and how the quantized ones were."""

    variants: tuple[Variant, ...]
    left_out: tuple[LeftOut, ...]
    quantized: tuple[QuantizeResult, ...]


def make_variants(asked: Deploying, folder: Path) -> Made:
    """Make the files in ``folder``.

    Raises:
        DataError: The images can't be used.
        UsageError: They have no labels, or no target is for this machine.
    """
    variants: list[Variant] = []
    left_out: list[LeftOut] = []
    quantized: list[QuantizeResult] = []
    if asked.own_precision in asked.precisions:
        variants.append(_as_it_is(asked))
    if asked.quantizes:
        _quantize(asked, folder, variants, left_out, quantized)
    if asked.regroups:
        variants = _regroup(asked, folder, variants, left_out)
    return Made(variants=tuple(variants), left_out=tuple(left_out), quantized=tuple(quantized))


def _as_it_is(asked: Deploying) -> Variant:
    from rexport.tuning import Variant

    compared = asked.quantizing.eval_data is not None  # with this very file
    return Variant(path=asked.model, precision=asked.own_precision, drop_points=0.0 if compared else None)


def _quantize(
    asked: Deploying, folder: Path, variants: list[Variant], left_out: list[LeftOut], quantized: list[QuantizeResult]
) -> None:
    """Make an INT8 file for each target among the runtimes, all from one calibration."""
    from rexport._errors import GateError, ModelFileError, VerificationError
    from rexport.cli._console import note, progress
    from rexport.cli._options import report_skipped
    from rexport.cli._quantize_report import note_float_convolutions
    from rexport.jobs.quantize import run
    from rexport.tuning import Variant

    table = folder / "table.json"
    for name in dict.fromkeys(_TARGETS.get(runtime) for runtime in asked.runtimes):
        request = _request(asked, name, folder, table)
        try:
            result = run(request, progress=progress, note=note)
            if result.gate is not None:
                result.gate.require()
        except (GateError, ModelFileError, VerificationError) as error:
            left_out.append(LeftOut(what=f"INT8 for {request.target.name}", reason=str(error)))
            continue
        if not quantized:
            report_skipped(result.skipped)
        note_float_convolutions(result)
        quantized.append(result)
        variants.append(
            Variant(
                path=request.output,
                precision=INT8,
                made=True,
                runtimes=tuple(runtime for runtime in asked.runtimes if _TARGETS.get(runtime) == name),
                drop_points=None if result.gate is None else result.gate.drop_of(result.gate.chosen),
            )
        )


def _request(asked: Deploying, target: str | None, folder: Path, table: Path) -> QuantizeRequest:
    """Return what is asked for a target, by default this machine's; later ones read the table of the first."""
    from rexport._cpu import this_cpu
    from rexport.jobs.quantize import QuantizeRequest
    from rexport.quantization import target_for

    known, chosen = table.exists(), target_for(target, this_cpu())
    return QuantizeRequest(
        model=asked.model,
        output=folder / f"{asked.model.stem}-{chosen.name}.onnx",
        target=chosen,
        data=asked.quantizing.data,
        tables=(table,) if known else (),
        save_table=None if known else table,
        recovery=asked.quantizing.recover,
        samples=asked.quantizing.samples,
        batch=8,
        skip_bad=asked.quantizing.skip_bad,
        eval_data=asked.quantizing.eval_data,
        max_drop=asked.quantizing.max_drop,
    )


def _regroup(asked: Deploying, folder: Path, variants: list[Variant], left_out: list[LeftOut]) -> list[Variant]:
    """Add the regrouped form of each file that ONNX Runtime is to run, where that is faster.

    It is measured at the middle one of the batches and on the most threads.
    """
    from dataclasses import replace

    from rexport._errors import UnavailableError
    from rexport.model_file import save

    done: list[Variant] = []
    for variant in variants:
        runtimes = asked.runtimes if variant.runtimes is None else variant.runtimes
        reason, regrouped = None, None
        if ONNX_RUNTIME_CPU in runtimes:
            try:
                regrouped, reason = _regrouped(asked, variant)
            except UnavailableError as error:
                reason = str(error)
        if reason is not None:
            left_out.append(LeftOut(what=f"{variant.precision}, regrouped,", reason=reason))
        if regrouped is None:
            done.append(variant)
            continue
        output = folder / f"{asked.model.stem}-{variant.precision}-regrouped.onnx"
        save(regrouped, output)
        others = runtimes if OFF in asked.regroup else tuple(one for one in runtimes if one != ONNX_RUNTIME_CPU)
        done += [replace(variant, runtimes=others)] if others else []
        done.append(replace(variant, path=output, regrouped=True, made=True, runtimes=(ONNX_RUNTIME_CPU,)))
    return done


def _regrouped(asked: Deploying, variant: Variant) -> tuple[ir.Model | None, str | None]:
    """Return the regrouped model, or why there is none; neither where nothing is grouped."""
    from rexport.cli._console import progress
    from rexport.model_file import image_input, load, picture_size
    from rexport.tuning import grouped_layers, regroup

    model = load(variant.path)
    if not grouped_layers(model, size=picture_size(model)):
        return None, None
    batch = image_input(model).batch or sorted(asked.batches)[(len(asked.batches) - 1) // 2]
    result = regroup(model, batch=batch, threads=max(asked.threads), progress=progress)
    if result.kept:
        return result.model, None
    compared = "every layer is fastest as it is" if result.comparison is None else f"it would be {result.comparison}"
    return None, f"Its grouped convolutions stay as they are, as {compared}."
