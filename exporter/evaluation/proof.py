"""The proof of an INT8 file: run as its runtime will run it, against the original float file.

Over pictures n and numbers i of an output, with r of the float file and y of the INT8 file, in decibels:

    SQNR       10 log₁₀ (Σ r² / Σ (r − y)²)
    varying    10 log₁₀ (Σ (r − r̄)² / Σ (r − y)²)        r̄ᵢ: the mean of rᵢ over the pictures

A network that gives nearly the same for every picture (random weights do) has a high SQNR whatever becomes of the
pictures; *varying* is what is left to tell them apart by. *Agreement* is the share of pictures with the same largest
score, in files with one output of scores. Pictures whose float scores for both answers lie within 5 % of the scores'
standard deviation are ties, which 8 bits need not decide as 32 do: they are not judged; nor is any, where the float
file gives one class for all pictures.

    not usable   an output is not finite, SQNR < 10 dB (a tenth of the power is noise), or agreement < 90 % beyond
                 chance: the upper end of its 95 % interval (Wilson 1927) is lower
    weak         SQNR < 20 dB, varying < 10 dB, or agreement < 95 %: trained networks of 8 to 50 layers keep 28 to 50 dB
                 and 98 to 100 %
    good         all else

The first batch also runs node by node, without any optimization, exactly as the file is written. Where that is 6 dB or
more closer to the float file, the runtime deviates from the file.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rexport._cpu import this_cpu
from rexport._errors import ModelFileError, VerificationError
from rexport._words import counted
from rexport.evaluation.judging import judging_runtime_for
from rexport.evaluation.result import db_in_words, finite, sqnr_db, wilson_interval
from rexport.feeds import by_name, examples_in
from rexport.model_file import save, to_bytes
from rexport.model_inputs import fixed_batch
from rexport.quantization import ONNX_RUNTIME
from rexport.quantization.targets import X86_NAMES
from rexport.runtimes._onnx_files import run_in_batches
from rexport.runtimes.onnxruntime import input_names, open_session, said
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import onnx_ir as ir

    from rexport.feeds import Feed
    from rexport.quantization import Target

__all__ = ["OutputProof", "Pictures", "Proof", "Verdict", "prove"]

_USABLE_DB, _GOOD_DB, _VARYING_DB = 10.0, 20.0, 10.0
_USABLE_AGREEMENT, _GOOD_AGREEMENT = 0.9, 0.95
_TIE = 0.05  # of the standard deviation of a picture's scores
_RUNTIME_DB = 6.0
_CLOSE_DB = 40.0  # above, roundings that fall another way are all that tells a runtime from the file
_NODE_BY_NODE = "node by node, as its runtime is not here"

_TRIAL = """
import json
import sys
from pathlib import Path
import numpy as np
from rexport.runtimes.openvino import OpenVino
from rexport.runtimes.source import Source
_, path, inputs = sys.argv
feed = {name: np.zeros(shape, dtype) for name, (shape, dtype) in json.loads(inputs).items()}
OpenVino(Source(path=Path(path))).run_all(feed.get("", feed))
"""

Outputs: TypeAlias = "list[np.ndarray]"
Run: TypeAlias = "Callable[[Feed], Outputs]"


class Pictures(StrEnum):
    """The pictures of a proof: pictures that were not calibrated on, those that were, or noise."""

    HELD_OUT = "held-out"
    SEEN = "calibration"
    DRAWN = "drawn"


class Verdict(StrEnum):
    """The verdict of a proof."""

    GOOD = "good"
    WEAK = "weak"
    UNUSABLE = "not usable"
    UNJUDGED = "not judged"


@dataclass(frozen=True, kw_only=True)
class OutputProof:
    """One output of the INT8 file against the float file's, in decibels: infinite if equal, ``nan`` if not finite.

    Attributes:
        name: The output's name.
        sqnr_db: The SQNR on its runtime.
        varying_db: The ratio for the part that differs from picture to picture.
        as_run_db: The SQNR on the first batch.
        node_by_node_db: The same without any optimization.
    """

    name: str
    sqnr_db: float
    varying_db: float
    as_run_db: float
    node_by_node_db: float

    @property
    def runtime_differs(self) -> bool:
        """Whether the runtime deviates from the file."""
        if math.isnan(self.as_run_db):
            return not math.isnan(self.node_by_node_db)
        return self.as_run_db < min(self.node_by_node_db - _RUNTIME_DB, _CLOSE_DB)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How many of ``images`` get the float file's class (``same``), and how many are no ties (``judged``)."""

    images: int
    same: int
    judged: int

    @property
    def share(self) -> float:
        """The share of pictures with the same class."""
        return self.same / self.images


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The proof of an INT8 file.

    Attributes:
        pictures: The kind of pictures that it ran on.
        images: The number of pictures.
        runtime: The runtime, in words.
        outputs: The proof of each output, in the file's order.
        agreement: Agreement with the float file's classes; ``None`` for a file that is no classifier, or gives one
            class only.
    """

    pictures: Pictures
    images: int
    runtime: str
    outputs: tuple[OutputProof, ...]
    agreement: Agreement | None = None

    @property
    def worst(self) -> OutputProof:
        """The output that is furthest from the float file's."""
        return min(self.outputs, key=lambda output: (not math.isnan(output.sqnr_db), output.sqnr_db))

    @property
    def runtime_differs(self) -> bool:
        """Whether the runtime deviates from the file, for any output."""
        return any(output.runtime_differs for output in self.outputs)

    @property
    def verdict(self) -> Verdict:
        """The verdict; drawn pictures may be far from those of the calibration, and only show that a file runs."""
        worst = self.worst.sqnr_db
        if math.isnan(worst):
            return Verdict.UNUSABLE
        if self.pictures is Pictures.DRAWN:
            return Verdict.UNJUDGED
        share = most = 1.0
        if self.agreement is not None and self.agreement.judged:
            share = self.agreement.same / self.agreement.judged
            _, most = wilson_interval(self.agreement.same, self.agreement.judged)
        if worst < _USABLE_DB or most < _USABLE_AGREEMENT:
            return Verdict.UNUSABLE
        varying = min(output.varying_db for output in self.outputs)
        if worst < _GOOD_DB or varying < _VARYING_DB or share < _GOOD_AGREEMENT:
            return Verdict.WEAK
        return Verdict.GOOD

    def __str__(self) -> str:
        """Return the proof on one line."""
        worst = self.worst
        figures = f"SQNR {db_in_words(worst.sqnr_db)}"
        if len(self.outputs) > 1:
            figures += f" of {worst.name}"
        if self.agreement is not None:
            figures += f", agreement {100 * self.agreement.share:.1f} %"
            ties = self.agreement.images - self.agreement.judged
            if ties:
                figures += f" ({counted(ties, 'tie')} not judged)"
        text = f"{figures} on {self.images} {self.pictures} pictures {self.runtime}"
        if self.runtime == _NODE_BY_NODE:
            return text
        gain = worst.node_by_node_db - worst.as_run_db
        if not math.isfinite(gain):
            return text
        return f"{text} (node by node {gain:+.1f} dB)"

    def to_json(self) -> dict[str, Any]:
        """Return the proof as a JSON object; infinite numbers and NaN are ``None``."""
        return {
            "verdict": str(self.verdict),
            "pictures": str(self.pictures),
            "images": self.images,
            "runtime": self.runtime,
            "agreement": self.agreement and self.agreement.share,
            "outputs": [
                {
                    "name": output.name,
                    "sqnr_db": finite(output.sqnr_db),
                    "varying_sqnr_db": finite(output.varying_db),
                    "as_run_sqnr_db": finite(output.as_run_db),
                    "node_by_node_sqnr_db": finite(output.node_by_node_db),
                }
                for output in self.outputs
            ],
        }


def prove(
    original: ir.Model,
    quantized: ir.Model,
    batches: Iterable[Feed],
    *,
    pictures: Pictures,
    target: Target,
    threads: int | None = None,
) -> Proof:
    """Run both models on the same pictures, and return how they compare.

    ONNX Runtime runs its own files, those for ARM with ARM's kernels; OpenVINO runs its own, if it is installed; all
    others, such as TensorRT's, run node by node.

    Args:
        original: The original float model.
        quantized: The INT8 model for ``target``.
        batches: What both take; at least one.
        pictures: The kind of these pictures.
        target: The target that will run it.
        threads: By default one per usable core.

    Raises:
        VerificationError: The INT8 model does not load or run, or has other outputs.
        ModelFileError: The float model does not run.
    """
    totals = _Totals(original)
    with ExitStack() as stack:
        run_original = _in_onnx_runtime(original, threads=threads)
        try:
            runtime, run = _as_it_is_run(quantized, target, threads, stack)
            by_node = run
            if runtime != _NODE_BY_NODE:
                by_node = _in_onnx_runtime(quantized, threads=threads, optimize=False)
            for batch in batches:
                totals.add(batch, run_original, run, by_node)
        except ModelFileError as error:
            raise VerificationError(f"The runtime rejects the INT8 file: {error}") from error
    return totals.proof(pictures, runtime)


def _in_onnx_runtime(model: ir.Model, *, threads: int | None, optimize: bool = True, as_on_arm: bool = False) -> Run:
    session = open_session(to_bytes(model), threads=threads, optimize=optimize, as_on_arm=as_on_arm)
    names = input_names(session)

    def run(feed: Feed) -> Outputs:
        try:
            outputs: Outputs = session.run(None, by_name(feed, names))
        except Exception as error:  # ONNX Runtime's errors share no public base class
            raise ModelFileError(f"It does not run on these pictures: {said(error)}.") from error
        return outputs

    return run


def _as_it_is_run(model: ir.Model, target: Target, threads: int | None, stack: ExitStack) -> tuple[str, Run]:
    """Return the runtime in words, and a function that runs the model; its files live as long as ``stack``."""
    if target.runtime == ONNX_RUNTIME and target.activations.dtype is not np.int8:
        return f"in {ONNX_RUNTIME}", _in_onnx_runtime(model, threads=threads)
    # without VNNI, x86 processors add pairs of products in 16 bits, and ARM's do not
    if target.runtime == ONNX_RUNTIME and (this_cpu().has_vnni or this_cpu().architecture not in X86_NAMES):
        words = f"in {ONNX_RUNTIME} with its kernels for int8"
        return words, _in_onnx_runtime(model, threads=threads, as_on_arm=True)
    if judging_runtime_for(target) == "openvino":
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model.onnx"
        save(model, path)
        return f"in {target.runtime}", _in_openvino(path, threads, stack)
    return _NODE_BY_NODE, _in_onnx_runtime(model, threads=threads, optimize=False)


def _in_openvino(path: Path, threads: int | None, stack: ExitStack) -> Run:
    from rexport.runtimes.openvino import OpenVino

    loaded: list[OpenVino] = []

    def run(feed: Feed) -> Outputs:
        if not loaded:
            # compiling some files ends the process (2026.4.1): tried in another one first
            arrays = {"": feed} if isinstance(feed, np.ndarray) else feed
            inputs = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
            trial = [sys.executable, "-P", "-c", _TRIAL, str(path), json.dumps(inputs)]
            if subprocess.run(trial, capture_output=True).returncode < 0:
                raise ModelFileError("OpenVINO crashes on it.")
            loaded.append(stack.enter_context(OpenVino(Source(path=path), threads=threads)))
        return loaded[0].run_all(feed)

    return run


class _Totals:
    """Adds up all outputs of both files, batch by batch."""

    def __init__(self, original: ir.Model) -> None:
        self._size = fixed_batch(original)
        self._outputs = [_OutputSums(str(value.name)) for value in original.graph.outputs]
        self._scores, self._images = _Scores(), 0

    def add(self, batch: Feed, run_original: Run, run: Run, by_node: Run) -> None:
        """Run a batch in both files, and the first one ``by_node`` too."""
        expected, actual = (
            run_in_batches(run_original, batch, self._size),
            run_in_batches(run, batch, self._size),
        )
        for output, reference, result in zip(self._outputs, expected, actual, strict=True):
            if reference.shape != result.shape:
                raise VerificationError(
                    f"The INT8 file gives {output.name} of shape {result.shape}, and the float file of "
                    f"{reference.shape}; this is a bug in rexport, please report it."
                )
            output.add(reference, result)
        if not self._images:
            as_written = run_in_batches(by_node, batch, self._size)
            for output, reference, result in zip(self._outputs, expected, as_written, strict=True):
                output.add_as_written(reference, result)
        if len(self._outputs) == 1:
            self._scores.add(expected[0], actual[0])
        self._images += examples_in(batch)

    def proof(self, pictures: Pictures, runtime: str) -> Proof:
        outputs, agreement = tuple(output.proof() for output in self._outputs), self._scores.agreement()
        return Proof(pictures=pictures, images=self._images, runtime=runtime, outputs=outputs, agreement=agreement)


class _OutputSums:
    """Adds up an output batch by batch, in float64."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.images = 0
        self.signal = self.noise = 0.0
        self.total: np.ndarray | float = 0.0  # over the pictures, number by number
        self.as_run_db = self.node_by_node_db = math.nan  # of the first batch

    def add_as_written(self, reference: np.ndarray, result: np.ndarray) -> None:
        """Keep the SQNR of the first batch, of which ``result`` was computed node by node."""
        expected, result = _as_floats(reference, result)
        self.node_by_node_db = _ratio_db(_power(expected), _power(expected - result))

    def add(self, reference: np.ndarray, result: np.ndarray) -> None:
        """Add a batch."""
        expected, result = _as_floats(reference, result)
        signal, noise = _power(expected), _power(expected - result)
        if not self.images:
            self.as_run_db = _ratio_db(signal, noise)
        self.images += len(reference) if reference.ndim else 1
        self.signal, self.noise = self.signal + signal, self.noise + noise
        self.total = self.total + (expected.sum(axis=0) if expected.ndim else expected)

    def proof(self) -> OutputProof:
        constant = _power(np.asarray(self.total)) / self.images if self.images > 1 else 0.0
        return OutputProof(
            name=self.name,
            sqnr_db=_ratio_db(self.signal, self.noise),
            varying_db=_ratio_db(max(self.signal - constant, 0.0), self.noise),
            as_run_db=self.as_run_db,
            node_by_node_db=self.node_by_node_db,
        )


def _as_floats(reference: np.ndarray, result: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if np.issubdtype(reference.dtype, np.floating):
        return reference.astype(np.float64), result
    return np.ones(reference.shape), result == reference  # classes and the like are right or wrong


class _Scores:
    """Counts the pictures whose largest score is the same, if an output holds scores."""

    def __init__(self) -> None:
        self.images = self.same = self.judged = 0
        self.classes: set[int] = set()

    def add(self, expected: np.ndarray, actual: np.ndarray) -> None:
        if expected.ndim != 2 or expected.shape[1] < 2 or not np.issubdtype(expected.dtype, np.floating):
            return
        rows = np.arange(len(expected))
        expected_best, actual_best = expected.argmax(axis=1), actual.argmax(axis=1)
        gap = expected[rows, expected_best] - expected[rows, actual_best]
        ties = (expected_best != actual_best) & (gap <= _TIE * expected.std(axis=1))
        self.images += len(expected)
        self.same += int((expected_best == actual_best).sum())
        self.judged += int((~ties).sum())
        self.classes |= set(expected_best.tolist())

    def agreement(self) -> Agreement | None:
        if len(self.classes) < 2:
            return None
        return Agreement(images=self.images, same=self.same, judged=self.judged)


def _power(numbers: np.ndarray) -> float:
    return float(np.square(numbers, dtype=np.float64).sum())


def _ratio_db(signal: float, noise: float) -> float:
    return sqnr_db(signal, noise) if math.isfinite(signal + noise) else math.nan
