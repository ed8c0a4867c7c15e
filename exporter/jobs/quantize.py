"""Quantizing a float file with calibration pictures to an INT8 file that is verified before it is written.

    load → fuse and raise the opset, proven equal → calibrate → recover → Q/DQ, layers in float if the gate asks for it
         → the forms of layers → prove (see ``rexport.evaluation.proof``) → write

If the proof shows that the runtime does not compute what the file says, the layer where that begins is kept in float,
and the file is proven again. An unusable file is not written.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport._apart import READ, READ_IMAGES, WRITE, require_files_apart
from rexport._cpu import this_cpu
from rexport._errors import DataError, GateError, ModelFileError, UsageError, VerificationError
from rexport._files import check_writable
from rexport._progress import Note, Progress, silent, unsaid
from rexport._words import counted, in_units, percent
from rexport.calibration import CalibrationTable, Calibrator
from rexport.calibration.dataset import note_skipped, spread
from rexport.choices import Recovery
from rexport.evaluation.judging import judging_runtime_for, weakest_layer
from rexport.evaluation.proof import Pictures, Proof, Verdict, prove
from rexport.feeds import first_examples
from rexport.jobs.calibration import RECOVERY_PICTURES, RecoveryResult, calibrate, recover_accuracy
from rexport.jobs.examples import open_examples, picture_preprocessing
from rexport.jobs.layer_forms import LayerForms, LayerFormsResult, choose_forms
from rexport.jobs.result import JobResult, Table
from rexport.model_file import Metadata, load, save, to_bytes
from rexport.model_inputs import fixed_batch, image_input, picture_size, state_preprocessing
from rexport.passes import QUANTIZATION_PASSES, Reference, fuse
from rexport.passes.own_weights import with_own_weights
from rexport.passes.raise_opset import raise_opset
from rexport.passes.verify import random_feeds
from rexport.preprocessing import PictureOptions
from rexport.quantization import ONNX_RUNTIME, QuantizedModel, Target, audit, quantize, require_float, target_for
from rexport.runtimes.onnxruntime import executed_ops
from rexport.tuning import Exam, conditions_for, mix_precision, require_speedup

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from rexport.calibration import BadImage, Dataset
    from rexport.calibration.workers import Workers
    from rexport.evaluation.judging import WeakLayer
    from rexport.feeds import Feed
    from rexport.preprocessing import Preprocessing
    from rexport.quantization import LayerReport
    from rexport.tuning import Comparison, Conditions, GateResult

__all__ = ["QuantizeRequest", "QuantizeResult", "check_gate", "run"]

_PROOF_PICTURES, _PROOF_BATCH = 32, 8
_REASONS = 3  # to name of those for which layers stay in float
_REPAIRS = 3  # layers that may be left in float because the runtime computes something else


@dataclass(frozen=True, kw_only=True)
class QuantizeRequest:
    """The settings of a quantization.

    Attributes:
        model: A float ONNX file.
        output: Where the INT8 file goes.
        target: The runtime to write the file for.
        data: Pictures: ``DIR/<class>/<picture>``, a flat folder, or an ``.npy`` or ``.npz`` file; or what else the
            model takes, see :mod:`rexport.calibration.tensors`.
        tables: Calibration tables of earlier runs, which are merged and replace the calibration.
        save_table: A file to save the calibration table to.
        calibrator: The choice of ranges from the statistics.
        recovery: The accuracy recovery; by default ADAROUND with ``data``, else EQUALIZE.
        samples: The number of calibration pictures, evenly spread over the classes.
        batch: Pictures per batch.
        skip_bad: Go on without pictures that can't be read.
        options: Overrides of the preprocessing that the file states.
        workers: The workers that calibrate; by default this process.
        threads: The threads of the runtime; by default one per usable core.
        eval_data: Labelled pictures to measure accuracy on.
        max_drop: The largest loss of top-1 on them, in percentage points, or of the metric; ``None`` only measures it.
        metric: The user's metric instead of top-1, ``module:function`` (see :mod:`rexport.evaluation.outputs`).
        min_speedup: The smallest speed-up over the float model on this machine.
        forms: The forms of layers, and the conditions to measure speeds at.
        verify: Whether every step is verified.

    Raises:
        UsageError: The values do not go together.
    """

    model: Path = field(metadata=READ)
    output: Path = field(metadata=WRITE)
    target: Target
    data: Path | None = field(default=None, metadata=READ_IMAGES)
    tables: tuple[Path, ...] = field(default=(), metadata=READ)
    save_table: Path | None = field(default=None, metadata=WRITE)
    calibrator: Calibrator = Calibrator.MINMAX
    recovery: Recovery | None = None
    samples: int = 512
    batch: int = 4
    skip_bad: bool = False
    options: PictureOptions = field(default_factory=PictureOptions)
    workers: Workers | None = None
    threads: int | None = None
    eval_data: Path | None = field(default=None, metadata=READ_IMAGES)
    max_drop: float | None = None
    metric: str | None = None
    min_speedup: float | None = None
    forms: LayerForms = field(default_factory=LayerForms)
    verify: bool = True

    def __post_init__(self) -> None:
        if self.data is None and not self.tables:
            raise UsageError("There is nothing to calibrate with: pass --data IMAGES, or --table of an earlier run.")
        if self.recovery is Recovery.ADAROUND and self.data is None:
            raise UsageError(
                "--recover adaround rounds weights for what layers read on images, which a table does not hold; pass "
                "--data IMAGES too, or --recover equalize."
            )
        if self.data is None and self.eval_data is None and self.options != PictureOptions():
            raise UsageError(
                "--mean, --std and --resize say how images are prepared, and --table alone reads none; leave them out, "
                "or pass --data IMAGES too."
            )
        check_gate(self.eval_data, self.max_drop, self.min_speedup)
        if self.metric is not None and self.eval_data is None:
            raise UsageError("--metric needs examples to measure with; pass --eval-data too.")

    @property
    def recovery_level(self) -> Recovery:
        """The accuracy recovery, with its default."""
        return self.recovery or (Recovery.EQUALIZE if self.data is None else Recovery.ADAROUND)

    @property
    def runs_here(self) -> bool:
        """Whether the target is this machine's, so that speeds can be measured."""
        try:
            return target_for(None, this_cpu()).name == self.target.name
        except UsageError:  # no target is for this machine
            return False


@dataclass(frozen=True, kw_only=True, repr=False)
class QuantizeResult(JobResult):
    """The result of a quantization.

    Attributes:
        request: The request.
        size: The size of the file in bytes; ``None`` if the gate does not hold and no file was written.
        table: The calibration table.
        recovery: The result of the accuracy recovery.
        gate: The accuracy, if it was measured; it may not hold.
        layers: The precision of each layer, and why.
        repaired: The layers kept in float because the runtime does not compute them as the file says.
        forms: The forms of layers; ``None`` without a file.
        executed: The number of operators of each kind that ONNX Runtime executes; empty for other runtimes.
        proof: The proof of the file; ``None`` without a file or without verification.
        speed: The speed compared with the float model, if it was measured.
        skipped: The pictures that were skipped.
    """

    request: QuantizeRequest
    table: CalibrationTable
    recovery: RecoveryResult
    gate: GateResult | None
    skipped: tuple[BadImage, ...]
    layers: tuple[LayerReport, ...] = ()
    repaired: tuple[str, ...] = ()
    size: int | None = None
    forms: LayerFormsResult | None = None
    executed: Counter[str] = field(default_factory=Counter)
    proof: Proof | None = None
    speed: Comparison | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the document ``rexport.quantize/1``."""
        request = self.request
        document = {
            "schema": "rexport.quantize/1",
            "file": self.size and str(request.output),
            "bytes": self.size,
            "target": request.target.name,
            "weight_range": request.target.weights.high,
            "precision": "int8" if request.target.rest is np.float32 else "int8+fp16",
            "images": self.table.images,
            "calibrator": str(request.calibrator),
            "data_sha256": self.table.data_sha256,
            "skipped": [{"path": str(bad.path), "why": bad.why} for bad in self.skipped],
            "recovery": self.recovery.to_json(),
            "gate": self.gate and self.gate.to_json(),
            "layers": [
                {"name": layer.name, "op_type": layer.op_type, "precision": layer.precision, "why": layer.why}
                for layer in self.layers
            ],
        }
        if self.forms is None:
            return document
        return document | {
            "executed": dict(self.executed),
            "speedup": self.speed and self.speed.speedup,
            "speedup_interval": self.speed and list(self.speed.interval),
            "proof": self.proof and self.proof.to_json(),
            "repaired": list(self.repaired),
            **self.forms.to_json(),
        }

    def facts(self) -> dict[str, str]:
        """Return the file, its layers, its calibration, and what was shown of it."""
        request, integer = self.request, sum(layer.precision == "int8" for layer in self.layers)
        facts = {
            "file": "not written" if self.size is None else f"{request.output}, {in_units(self.size)}",
            "layers": f"{integer} of {len(self.layers)} in INT8",
            "target": request.target.name,
            "calibrated on": f"{self.table.images} images, {request.calibrator}",
        }
        if self.gate is not None:
            chosen, drop = self.gate.chosen, self.gate.drop_of(self.gate.chosen)
            facts["accuracy"] = f"top-1 {percent(chosen.score)}, {drop:.2f} points below the float model"
            if self.gate.metric is not None:
                facts["accuracy"] = f"{self.gate.metric} {chosen.score:.6g}, {drop:.4g} below the float model"
        if self.proof is not None:
            facts["verified"] = f"{self.proof.verdict}: {self.proof}"
        if self.speed is not None:
            facts["speed"] = f"{self.speed} as FP32"
        return facts

    def as_table(self) -> Table | None:
        """Return the layers left in float."""
        rows = [(layer.name, layer.op_type, layer.why) for layer in self.layers if layer.precision != "int8"]
        return Table(("float layer", "operator", "reason"), rows) if rows else None

    def require(self) -> None:
        """Raise :class:`GateError` where the gate does not hold."""
        if self.gate is not None:
            self.gate.require()


def check_gate(eval_data: Path | None, max_drop: float | None, min_speedup: float | None = None) -> None:
    """Raise :class:`UsageError` if the limits of accuracy and speed make no sense."""
    if max_drop is not None and eval_data is None:
        raise UsageError("--max-drop needs labelled images to measure with; pass --eval-data DIR too.")
    if max_drop is not None and not 0 <= max_drop <= 100:
        raise UsageError(f"--max-drop {max_drop:g}: it is percentage points from 0 to 100, such as 0.5.")
    if min_speedup is not None and not 0 < min_speedup < math.inf:
        raise UsageError(f"--min-speedup {min_speedup:g}: it is larger than zero, such as 1.0.")


def run(request: QuantizeRequest, *, progress: Progress = silent, note: Note = unsaid) -> QuantizeResult:
    """Quantize, and write the file if the accuracy that was asked for holds.

    Raises:
        UsageError: The values do not fit the model, or no speed can be measured here.
        ModelFileError: The model is quantized already, or can't be read.
        DataError: Pictures or a table can't be used.
        VerificationError: A step is not what it should be, or the INT8 file is not usable.
        GateError: It is slower than asked for, or mostly in float and no smaller than the float file.
        OutputError: A file can't be written.
    """
    require_files_apart(request)
    for path in filter(None, (request.output, request.save_table)):
        check_writable(path)
    if request.min_speedup is not None and not request.runs_here:
        raise UsageError(
            f"--min-speedup measures on ONNX Runtime on this machine, which is not what --target "
            f"{request.target.name} is for; leave it out, and measure the file where it is to run."
        )
    work = _prepare(request, progress, note)
    gate = work.measure_accuracy()
    note_skipped(work.skipped, note)
    result = QuantizeResult(request=request, table=work.table, recovery=work.recovery, gate=gate, skipped=work.skipped)
    float_layers: tuple[str, ...] = ()
    if gate is not None:
        if gate.why_not is not None:
            return replace(result, layers=gate.quantized.layers)
        float_layers = gate.chosen.float_layers
    int8 = work.make(frozenset(float_layers))
    result = replace(result, speed=work.compare_speed(int8))
    work.require_gain(int8, result.speed)
    return work.write(int8, result)


@dataclass(frozen=True, kw_only=True)
class _Int8Model:
    """The final INT8 model, its proof, and the layers kept in float for that."""

    quantized: QuantizedModel
    forms: LayerFormsResult
    proof: Proof | None
    repaired: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A request, and all that quantization depends on."""

    request: QuantizeRequest
    original: ir.Model
    model: ir.Model
    table: CalibrationTable
    recovery: RecoveryResult
    preprocessing: Preprocessing | None
    pictures: Dataset | None
    labelled: Dataset | None
    skipped: tuple[BadImage, ...]
    progress: Progress
    note: Note

    @property
    def scaled(self) -> ir.Model:
        """The float model with the tensors that the INT8 one has."""
        recovered = self.recovery.recovered
        return self.model if recovered is None else recovered.equalized.model

    @property
    def conditions(self) -> Conditions:
        """The conditions to measure speeds at."""
        return conditions_for(self.model, batch=self.request.forms.batch, threads=self.request.threads)

    def quantize(self, keep_float: frozenset[str]) -> QuantizedModel:
        """Quantize the model but for the layers called ``keep_float``."""
        return quantize(
            self.model,
            self.table,
            target=self.request.target,
            calibrator=self.request.calibrator,
            keep_float=keep_float,
            recovered=self.recovery.recovered,
        )

    def measure_accuracy(self) -> GateResult | None:
        """Quantize with as few layers in float as the gate needs; ``None`` without labelled pictures."""
        request = self.request
        if self.labelled is None:
            return None
        return mix_precision(
            self.model,
            self.quantize,
            Exam(dataset=self.labelled, metric=request.metric, skip_bad=request.skip_bad, threads=request.threads),
            max_drop=math.inf if request.max_drop is None else request.max_drop,
            conditions=self.conditions if request.runs_here and self.preprocessing is not None else None,
            progress=self.progress,
        )

    def make(self, keep_float: frozenset[str]) -> _Int8Model:
        """Quantize all but ``keep_float`` and the layers that the runtime does not compute as the file says."""
        request = self.request
        kind, batches = self._proof_pictures() if request.verify else (Pictures.DRAWN, [])
        repaired: tuple[str, ...] = ()
        while True:
            quantized = self.quantize(keep_float.union(repaired))
            forms = choose_forms(quantized.model, request.forms, verify=request.verify, progress=self.progress)
            if not request.verify:
                return _Int8Model(quantized=quantized, forms=forms, proof=None, repaired=())
            with self.progress("proving the INT8 file", None):
                audit(self.scaled, quantized.model)
                proof = prove(
                    self.original, forms.model, batches, pictures=kind, target=request.target, threads=request.threads
                )
            if not proof.runtime_differs or len(repaired) == _REPAIRS:
                break
            blamed = self._weakest_layer(quantized.model, quantized.model, batches)
            integer = {layer.name for layer in quantized.layers if layer.precision == "int8"}
            if blamed is None or blamed.node not in integer:
                break
            repaired += (blamed.node,)
        self._judge(proof, quantized.model, batches)
        return _Int8Model(quantized=quantized, forms=forms, proof=proof, repaired=repaired)

    def compare_speed(self, int8: _Int8Model) -> Comparison | None:
        """Measure the file against the float model, if a speed-up is asked for; raise :class:`GateError` below it."""
        least = self.request.min_speedup
        if least is None:
            return None
        return require_speedup(
            self.model, int8.forms.model, at_least=least, conditions=self.conditions, progress=self.progress
        )

    def require_gain(self, int8: _Int8Model, speed: Comparison | None) -> None:
        """Say so if most layers stay in float, and why.

        Raises:
            GateError: Moreover, the file is no smaller than the float file, as it is or fused, and neither a speed-up
                nor an accuracy that was asked for speaks for it.
        """
        layers = int8.quantized.layers
        reasons = Counter(layer.why for layer in layers if layer.precision != "int8")
        if 2 * reasons.total() <= len(layers):
            return
        why = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(_REASONS))
        sentence = f"{len(layers) - reasons.total()} of {len(layers)} layers in INT8, because: {why}"
        self.note(f"{sentence}.")
        # fusing alone makes many files smaller: exporters note down where each operator comes from
        size = len(to_bytes(int8.forms.model))
        float_size, kind = min((len(to_bytes(self.original)), "float"), (len(to_bytes(self.model)), "fused"))
        if size >= float_size and speed is None and self.request.max_drop is None:
            raise GateError(
                f"The INT8 file would be no smaller than {self.request.model} ({in_units(size)}, {kind} "
                f"{in_units(float_size)}), with {sentence}. It was not written. Deploy the float file; or pass "
                "--min-speedup 1.0, or --eval-data DIR and --max-drop, to have the INT8 file if it is as good as that."
            )

    def write(self, int8: _Int8Model, result: QuantizeResult) -> QuantizeResult:
        """Write the file, with its preprocessing and proof in the metadata, and return the result."""
        request, model = self.request, int8.forms.model
        if self.preprocessing is not None:
            state_preprocessing(model, self.preprocessing)
        _describe(model, int8)
        executed: Counter[str] = Counter()
        if request.target.runtime == ONNX_RUNTIME:
            executed = executed_ops(to_bytes(model), as_on_arm=request.target.is_int8_in_onnxruntime)
            in_float = executed["Conv"] + executed["FusedConv"]
            if in_float:
                run = "runs" if in_float == 1 else "run"
                self.note(f"{counted(in_float, 'convolution')} still {run} in float on ONNX Runtime.")
        save(model, request.output)
        return replace(
            result,
            layers=int8.quantized.layers,
            repaired=int8.repaired,
            size=request.output.stat().st_size,
            forms=int8.forms,
            executed=executed,
            proof=int8.proof,
        )

    def _proof_pictures(self) -> tuple[Pictures, list[Feed]]:
        """Return pictures to prove with: unseen ones if there are enough, or else such as recovery has not seen."""
        available = self.pictures or self.labelled
        if available is None:
            return Pictures.DRAWN, [_drawn(self.original, self.table)]
        request, count = self.request, len(available)
        calibrated_on: set[int] = set()
        recovered_on: set[int] = set()
        if available is self.pictures and not request.tables:
            calibrated_on = set(spread(count, request.samples))
        if request.recovery_level is Recovery.ADAROUND:
            recovered_on = set(spread(count, min(request.samples, RECOVERY_PICTURES)))
        kind, indices = Pictures.SEEN, list(range(count))
        for used, kind_of_others in ((calibrated_on | recovered_on, Pictures.HELD_OUT), (recovered_on, Pictures.SEEN)):
            others = [index for index in range(count) if index not in used]
            if len(others) >= max(1, min(_PROOF_PICTURES, count // 2)):
                kind, indices = kind_of_others, others
                break
        pictures = available.subset([indices[index] for index in spread(len(indices), _PROOF_PICTURES)])
        try:
            batches = [batch.feed for batch in pictures.batches(_PROOF_BATCH, skip_bad=True) if len(batch)]
        except DataError:  # not one of them can be read
            return Pictures.DRAWN, [_drawn(self.original, self.table)]
        return kind, batches

    def _judge(self, proof: Proof, quantized: ir.Model, batches: list[Feed]) -> None:
        """Do nothing for a good file, and say where a weak one goes wrong.

        Where the accuracy that was asked for holds, that decides, and not how close the scores are.

        Raises:
            VerificationError: It is not usable.
        """
        if proof.verdict in (Verdict.GOOD, Verdict.UNJUDGED):
            return
        layer = self._weakest_layer(self.scaled, quantized, batches)
        sentence = f"{proof}."
        if layer is not None:
            sentence += f" It goes wrong at {layer}."
        if proof.verdict is Verdict.UNUSABLE and (self.request.max_drop is None or math.isnan(proof.worst.sqnr_db)):
            raise VerificationError(
                f"The INT8 file is not usable: {sentence} It was not written. Calibrate with more pictures, of "
                "the kind that it will see, or another --calibrator; or leave layers in float with --eval-data DIR "
                "and --max-drop."
            )
        self.note(f"the INT8 file is {proof.verdict}: {sentence}")

    def _weakest_layer(self, reference: ir.Model, quantized: ir.Model, batches: list[Feed]) -> WeakLayer | None:
        few = first_examples(batches[0], fixed_batch(self.original) or 4)
        if not isinstance(few, np.ndarray):
            return None  # models of several inputs are not taken apart
        return weakest_layer(
            reference,
            quantized,
            few,
            runtime=judging_runtime_for(self.request.target),
            threads=self.request.threads,
            progress=self.progress,
        )


def _prepare(request: QuantizeRequest, progress: Progress, note: Note) -> _Work:
    """Read, fuse and calibrate the model, and recover accuracy."""
    original = load(request.model)
    require_float(original, request.model)
    preprocessing, pictures, labelled = _open(request, original, note)
    with progress(f"fusing {request.model.name}", None):
        model = _fuse(original, request.target, note, verify=request.verify)
    table, skipped = calibrate(request, model, pictures, progress, note)
    recovery, skipped_too = recover_accuracy(request, model, table, pictures, preprocessing, progress)
    return _Work(
        request=request,
        original=original,
        model=model,
        table=table,
        recovery=recovery,
        preprocessing=preprocessing,
        pictures=pictures,
        labelled=labelled,
        skipped=tuple(dict.fromkeys([*skipped, *skipped_too])),
        progress=progress,
        note=note,
    )


def _open(
    request: QuantizeRequest, model: ir.Model, note: Note
) -> tuple[Preprocessing | None, Dataset | None, Dataset | None]:
    """Return how pictures become the model's input, the examples to calibrate with, and those to measure accuracy."""
    data = tuple(path for path in (request.data, request.eval_data) if path is not None)
    if not data:
        return None, None, None
    preprocessing = picture_preprocessing(model, request.model, data, request.options, note)
    examples, labelled = (
        None if path is None else open_examples(path, model, request.model, preprocessing)
        for path in (request.data, request.eval_data)
    )
    return preprocessing, examples, labelled


def _fuse(original: ir.Model, target: Target, note: Note, *, verify: bool) -> ir.Model:
    """Return the fused model, raised to an opset that the target accepts, and proven equal to the original.

    Raises:
        VerificationError: It is not equal, even with each pass that changes the results rolled back.
    """
    own = with_own_weights(original)
    result = fuse(own, passes=QUANTIZATION_PASSES)
    reference = None
    if verify:
        reference = Reference(original)
        try:
            reference.difference(result.model)
        except VerificationError:  # proven pass by pass, which takes longer, the wrong one is rolled back
            result = fuse(own, passes=QUANTIZATION_PASSES, reference=reference)
    for report in result.reports:
        for text in report.notes:
            note(text)
    return with_own_weights(raise_opset(result.model, target.opset, reference=reference))


def _drawn(model: ir.Model, table: CalibrationTable) -> Feed:
    """Return noise within the ranges of the model's inputs, for a table without pictures."""
    try:
        image = image_input(model)
    except ModelFileError:
        return random_feeds(model)
    random, shape = np.random.default_rng(0), image.shape(picture_size(model), image.batch or 2)
    if image.raw:
        return random.integers(0, 256, shape, np.uint8)
    statistics = table.tensors.get(image.name)
    low, high = (-2.0, 2.0) if statistics is None else (statistics.low, statistics.high)
    return random.uniform(low, high, shape).astype(np.float32)


def _describe(model: ir.Model, int8: _Int8Model) -> None:
    """Add the proof to the file's metadata."""
    metadata = Metadata.of(model)
    described = json.loads(metadata.quantization or "{}")
    described["proof"] = int8.proof and int8.proof.to_json()
    replace(metadata, quantization=json.dumps(described)).write_to(model)
