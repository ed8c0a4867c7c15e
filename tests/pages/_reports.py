"""One page of each report, with every part that it can have."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rexport.benchmarks.reports import compare
from rexport.benchmarks.reports import to_html as bench_to_html
from rexport.calibration import CenterCrop
from rexport.evaluation import Arithmetic, DivergenceReport
from rexport.evaluation.divergence import TensorRow
from rexport.evaluation.likeness import Difference
from rexport.evaluation.report import Report, to_html
from rexport.evaluation.result import Counts, Evaluation, Mistake
from rexport.evaluation.thumbnails import thumbnail
from rexport.preprocessing import Preprocessing
from tests.benchmarks.conftest import SAMPLE

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PAGES", "evaluation_of", "evaluation_report"]

_SHARES = (0.9, 0.07, 0.03)  # right, taken for the next class, for the one after


def bench_page(folder: Path, name: str) -> str:
    """Return the page of a benchmark; the model of its first row has this name."""
    sample = json.loads(SAMPLE.read_text(encoding="utf-8"))
    sample["rows"][0]["model"] = f"{name}.onnx"
    return bench_to_html(sample, compare(sample, sample))


def evaluation_page(folder: Path, name: str) -> str:
    """Return the page of an evaluation; its first class has this name."""
    return to_html(evaluation_report(folder, name))


PAGES = {"bench": bench_page, "eval": evaluation_page}


def evaluation_of(outputs: int, mistakes: tuple[Mistake, ...] = ()) -> Evaluation:
    """Return an evaluation of 100 images of each class, most of them right."""
    confusion = Counter(
        {(i, (i + step) % outputs): round(100 * share) for i in range(outputs) for step, share in enumerate(_SHARES)}
    )
    counts = Counts(images=100 * outputs, top1=90 * outputs, top5=98 * outputs, reference_top1=91 * outputs)
    counts = counts + Counts(agreeing=95 * outputs, signal=Counts().signal + 1000, noise=Counts().noise + 1)
    counts.confusion.update(confusion)
    return Evaluation.of(counts, classes=outputs, labelled=True, compared="logits", skipped=(), worst=mistakes)


def evaluation_report(folder: Path, name: str = "airplane") -> Report:
    """Return the report of ten classes, the first of them of this name, with pictures in ``folder`` of 32 and 224."""
    random = np.random.default_rng(0)
    pictures, mistakes = {}, []
    for index, side in enumerate((32, 224, 32)):
        file = folder / f"{index}.png"
        Image.fromarray(random.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(file)
        picture = thumbnail(file, Preprocessing(size=side), CenterCrop())
        assert picture is not None
        pictures[str(file)] = picture
        mistakes.append(Mistake(image=str(file), label=index, prediction=index + 1, probability=0.987))
    row = TensorRow(
        tensor="layer1.0.relu",
        node="layer1.0.relu",
        op_type="Relu",
        layers=1,
        difference=Difference(sqnr_db=12.5, largest=1.0, peak=0.3),
        diverges=True,
    )
    return Report(
        evaluation=evaluation_of(10, tuple(mistakes)),
        classes=[name, *(f"class {index}" for index in range(1, 10))],
        model="model-int8.onnx",
        reference="model.onnx",
        data=str(folder),
        facts={"Runtime": "cpu"},
        long_facts={"Model": name},
        command=f"rexport eval {name}",
        notes=[f"{name} is assumed."],
        divergence=DivergenceReport(first=None, rows=(row,), arithmetic=Arithmetic.FLOAT32, tensors=12),
        pictures=pictures,
    )
