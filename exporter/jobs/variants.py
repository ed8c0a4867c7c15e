"""The files that tuning chooses between: the one that came in, and what can be made of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from rexport._cpu import this_cpu
from rexport._errors import GateError, ModelFileError, UnavailableError, VerificationError
from rexport.jobs import quantize
from rexport.model_file import load, save
from rexport.model_inputs import image_input
from rexport.quantization import target_for
from rexport.tuning import Variant, grouped_layers, regroup

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from rexport._progress import Note, Progress
    from rexport.deployment_settings import Precision
    from rexport.jobs.quantize import QuantizeRequest, QuantizeResult
    from rexport.jobs.tune import TuneRequest

__all__ = ["INT8", "MEASURE", "OFF", "ONNX_RUNTIME_CPU", "LeftOut", "VariantRequest", "Variants", "make_variants"]

ONNX_RUNTIME_CPU = "cpu"
INT8: Final = "int8"
OFF: Final = "off"
MEASURE: Final = "measure"
_TARGETS = {"openvino": "openvino", "tensorrt": "tensorrt"}  # of the other runtimes, what this machine is


@dataclass(frozen=True, kw_only=True)
class VariantRequest:
    """The files to make and for which runtimes: the request, with the defaults that its model and this machine give."""

    tuning: TuneRequest
    own_precision: Precision
    precisions: tuple[str, ...]
    runtimes: tuple[str, ...]
    batches: tuple[int, ...]
    threads: tuple[int, ...]

    @property
    def quantizes(self) -> bool:
        """Whether INT8 files are to be made."""
        return INT8 in self.precisions and self.own_precision != INT8


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A kind of file that there is none of, and why, in a sentence."""

    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Variants:
    """The files to choose between, those that could not be made, and how the quantized ones were."""

    files: tuple[Variant, ...]
    left_out: tuple[LeftOut, ...]
    quantized: tuple[QuantizeResult, ...]


def make_variants(request: VariantRequest, folder: Path, *, progress: Progress, note: Note) -> Variants:
    """Make the files in ``folder``.

    Raises:
        DataError: The pictures can't be used.
        UsageError: They have no labels, or no target is for this machine.
    """
    return _Workshop(request, folder, progress, note).make()


class _Workshop:
    def __init__(self, request: VariantRequest, folder: Path, progress: Progress, note: Note) -> None:
        self._request, self._folder = request, folder
        self._progress, self._note = progress, note
        self._files: list[Variant] = []
        self._left_out: list[LeftOut] = []
        self._quantized: list[QuantizeResult] = []

    def make(self) -> Variants:
        request, tuning = self._request, self._request.tuning
        if request.own_precision in request.precisions:
            drop = None if tuning.eval_data is None else 0.0  # it is what the others are compared with
            self._files.append(Variant(path=tuning.model, precision=request.own_precision, drop_points=drop))
        if request.quantizes:
            for target in dict.fromkeys(_TARGETS.get(runtime) for runtime in request.runtimes):
                self._quantize(target)
        if MEASURE in tuning.regroup:
            self._files = [form for variant in self._files for form in self._forms(variant)]
        return Variants(files=tuple(self._files), left_out=tuple(self._left_out), quantized=tuple(self._quantized))

    def _quantize(self, target: str | None) -> None:
        """Make an INT8 file for a target, by default this machine's."""
        request = self._quantize_request(target)
        try:
            result = quantize.run(request, progress=self._progress, note=self._note)
            result.require()
        except (GateError, ModelFileError, VerificationError) as error:
            self._left_out.append(LeftOut(what=f"INT8 for {request.target.name}", reason=str(error)))
            return
        self._quantized.append(result)
        runtimes = tuple(runtime for runtime in self._request.runtimes if _TARGETS.get(runtime) == target)
        drop = None if result.gate is None else result.gate.drop_of(result.gate.chosen)
        self._files.append(Variant(path=request.output, precision=INT8, made=True, runtimes=runtimes, drop_points=drop))

    def _quantize_request(self, target: str | None) -> QuantizeRequest:
        """Return the request for a target; later ones read the calibration table of the first."""
        tuning, table, rules = self._request.tuning, self._folder / "table.json", target_for(target, this_cpu())
        request = quantize.QuantizeRequest(
            model=tuning.model,
            output=self._folder / f"{tuning.model.stem}-{rules.name}.onnx",
            target=rules,
            data=tuning.data,
            save_table=table,
            recovery=tuning.recovery,
            samples=tuning.samples,
            batch=8,
            skip_bad=tuning.skip_bad,
            eval_data=tuning.eval_data,
            max_drop=tuning.max_drop,
        )
        if table.exists():
            return replace(request, tables=(table,), save_table=None)
        return request

    def _forms(self, variant: Variant) -> list[Variant]:
        """Return a file, and its regrouped form where ONNX Runtime is to run it and is faster with it."""
        runtimes = variant.runtimes or self._request.runtimes
        if ONNX_RUNTIME_CPU not in runtimes:
            return [variant]
        regrouped = self._regrouped(variant)
        if regrouped is None:
            return [variant]
        path = self._folder / f"{self._request.tuning.model.stem}-{variant.precision}-regrouped.onnx"
        save(regrouped, path)
        form = replace(variant, path=path, regrouped=True, made=True, runtimes=(ONNX_RUNTIME_CPU,))
        if OFF not in self._request.tuning.regroup:
            runtimes = tuple(runtime for runtime in runtimes if runtime != ONNX_RUNTIME_CPU)
        if not runtimes:
            return [form]
        return [replace(variant, runtimes=runtimes), form]

    def _regrouped(self, variant: Variant) -> ir.Model | None:
        """Return the regrouped model, measured at the middle one of the batches and on the most threads."""
        request, model = self._request, load(variant.path)
        if not grouped_layers(model):
            return None
        batch = image_input(model).batch or sorted(request.batches)[(len(request.batches) - 1) // 2]
        try:
            result = regroup(model, batch=batch, threads=max(request.threads), progress=self._progress)
        except UnavailableError as error:
            reason = str(error)
        else:
            if result.kept:
                return result.model
            compared = "every layer is fastest as it is"
            if result.comparison is not None:
                compared = f"it would be {result.comparison}"
            reason = f"Its grouped convolutions stay as they are, as {compared}."
        self._left_out.append(LeftOut(what=f"{variant.precision}, regrouped,", reason=reason))
        return None
