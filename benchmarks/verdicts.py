"""Putting beside the times of rows whether their models agree with the first one, and how often they are right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rexport._errors import DataError
from rexport.benchmarks.outputs import Identity, Precision, compare_outputs, top1
from rexport.evaluation.judge import class_indices

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from rexport.benchmarks.document import Row
    from rexport.benchmarks.pictures import Hung
    from rexport.benchmarks.subjects import Subject
    from rexport.preprocessing import Preprocessing

__all__ = ["Shown", "judge"]

_ROUNDS_TO_TF32 = frozenset({"cuda", "tensorrt"})  # float32 products, on newer GPUs


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a row's model gave for the pictures it was shown: ``outputs`` of shape ``(N, classes)``."""

    outputs: np.ndarray
    subject: Subject
    runtime: str
    hung: Hung

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for rows that can be compared: the same crops, and all of files or of weights from the same seed."""
        return (*self.hung.key, self.subject.drawn_on(self.runtime))

    @property
    def identity(self) -> Identity:
        """What the model is, on this runtime."""
        identity = self.subject.identity
        if identity.precision is Precision.FLOAT32 and self.runtime in _ROUNDS_TO_TF32:
            return replace(identity, precision=Precision.FLOAT16)
        return identity

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What made its input of the pictures, on this runtime; ``None`` for a model that takes none."""
        return self.subject.takes_on(self.runtime)

    def top1(self) -> float | None:
        """Return the accuracy; ``None`` without labels, and for weights that were never trained.

        Raises:
            DataError: The class folders do not fit the outputs.
        """
        labels = self.hung.labels
        if labels is None or self.subject.drawn_on(self.runtime) is not None:
            return None
        if self.outputs.ndim != 2:
            raise DataError("The model is not a classifier.")
        outputs = self.outputs.shape[1]
        indices = class_indices(self.hung.folders, self.subject.classes, outputs)
        if indices.size:
            labels = indices[labels]
        return top1(self.outputs, labels)


def judge(rows: Sequence[Row], answers: Sequence[Shown | None]) -> tuple[Row, ...]:
    """Return rows of one batch size with agreement, SQNR, verdict and accuracy set, where there are outputs."""
    comparable: dict[tuple[object, ...], list[Shown]] = {}
    for answer in filter(None, answers):
        comparable.setdefault(answer.key, []).append(answer)
    return tuple(_judged(row, answer, comparable) for row, answer in zip(rows, answers, strict=True))


def _judged(row: Row, answer: Shown | None, comparable: dict[tuple[object, ...], list[Shown]]) -> Row:
    if answer is None:
        return row
    try:
        row = replace(row, top1=answer.top1())
        preprocessing = answer.preprocessing
        if row.top1 is not None and preprocessing is not None and preprocessing.assumed:
            caution = f"top-1 with assumed preprocessing: {preprocessing.in_words()}"
            row = replace(row, flags=(*row.flags, caution))
    except DataError as error:
        row = replace(row, flags=(*row.flags, f"no top-1: {error}"))
    first, *others = comparable[answer.key]
    compared = compare_outputs(first.outputs, first.identity, answer.outputs, answer.identity)
    if compared is None or (not others and not compared.wrong):  # with nothing to compare with
        return row
    if compared.reason:
        row = replace(row, flags=(*row.flags, f"WRONG: {compared.reason}"))
    return replace(row, agreement=compared.agreement, sqnr_db=compared.sqnr_db, wrong=compared.wrong)
