"""Predicting: the classes that a model gives to pictures, with their probabilities, and a sheet of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport._apart import READ, READ_IMAGES, WRITE, require_files_apart
from rexport._errors import UsageError
from rexport._progress import Note, Progress, silent, unsaid
from rexport._words import first_few, percent
from rexport.calibration.dataset import note_skipped
from rexport.calibration.image_folder import ImageFolder
from rexport.evaluation import Classifier
from rexport.jobs._contact_sheet import check_contact_sheet, write_contact_sheet
from rexport.jobs.classifiers import choose_runtime, describe
from rexport.jobs.result import JobResult, Table
from rexport.preprocessing import PictureOptions
from rexport.runtimes import open_runtime
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.calibration import BadImage
    from rexport.jobs.classifiers import ClassifierFacts
    from rexport.preprocessing import Preprocessing

__all__ = ["Guess", "PredictRequest", "PredictResult", "Prediction", "run"]

_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """A model, and the pictures to show it.

    Attributes:
        model: An ONNX file, an engine file, or the name of a network.
        pictures: Picture files, and folders of them.
        weights: Of a network.
        top: How many classes to name for each picture.
        runtime: What runs the model; by default what shows what it computes (see ``rexport.evaluation.judging``).
        sheet: Where a picture of the pictures, as the model sees them, goes, each with its class.
        skip_bad: Go on without pictures that can't be read.
        options: What takes the place of what the model states of its pictures.
        threads: By default one per usable core.

    Raises:
        UsageError: There are no pictures, or no classes to name.
    """

    model: str = field(metadata=READ)
    pictures: tuple[Path, ...] = field(metadata=READ_IMAGES)
    weights: Path | None = field(default=None, metadata=READ)
    top: int = 5
    runtime: str | None = None
    sheet: Path | None = field(default=None, metadata=WRITE)
    skip_bad: bool = False
    options: PictureOptions = field(default_factory=PictureOptions)
    threads: int | None = None

    def __post_init__(self) -> None:
        if not self.pictures:
            raise UsageError("There are no pictures to show the model; name some.")
        if self.top < 1:
            raise UsageError(f"--top is how many classes to name, at least 1, not {self.top}.")


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A class: its ``index`` among the outputs, its ``name``, if the model knows that, and its ``probability``."""

    index: int
    name: str | None
    probability: float

    @property
    def label(self) -> str:
        """Its name, or else its index."""
        return self.name or str(self.index)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The likeliest classes of a picture, the best first."""

    picture: Path
    guesses: tuple[Guess, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as the document ``rexport.predict/1`` has it."""
        guesses = [
            {"class": guess.name, "index": guess.index, "probability": guess.probability} for guess in self.guesses
        ]
        return {"picture": str(self.picture), "top": guesses}


@dataclass(frozen=True, kw_only=True, repr=False)
class PredictResult(JobResult):
    """A prediction for each picture, in order, and the ``runtime`` that made them."""

    request: PredictRequest
    runtime: str
    predictions: tuple[Prediction, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document ``rexport.predict/1``."""
        return {
            "schema": "rexport.predict/1",
            "model": self.request.model,
            "runtime": self.runtime,
            "predictions": [prediction.to_json() for prediction in self.predictions],
        }

    def facts(self) -> dict[str, str]:
        """Return what ran, and the likeliest class of the first pictures."""
        best = [(prediction.picture.name, prediction.guesses[0]) for prediction in self.predictions]
        classes = [f"{name}: {guess.label} ({percent(guess.probability, 1)})" for name, guess in best]
        return {"model": f"{self.request.model} on {self.runtime}", "classes": first_few(classes)}

    def as_table(self) -> Table:
        """Return the likeliest classes of each picture, its name in the first of its rows."""
        rows = []
        for prediction in self.predictions:
            for rank, guess in enumerate(prediction.guesses):
                picture = "" if rank else str(prediction.picture)
                rows.append((picture, guess.label, percent(guess.probability, 1)))
        return Table(("picture", "class", "probability"), rows)


def run(request: PredictRequest, *, progress: Progress = silent, note: Note = unsaid) -> PredictResult:
    """Classify pictures.

    Raises:
        UsageError: The values do not fit the model.
        DataError: A picture can't be read.
        ModelFileError: The file can't be read, or is no classifier.
        UnavailableError: The runtime can't be used here.
        OutputError: The sheet can't be written.
    """
    require_files_apart(request)
    if request.sheet is not None:
        check_contact_sheet(request.sheet)
    model = describe(Source.parse(request.model, weights=request.weights), request.options, note)
    pictures = _open(request.pictures, model.preprocessing)
    runtime = request.runtime or choose_runtime(model, note)
    scores, skipped = _scores(request, model, runtime, pictures, progress)
    note_skipped(skipped, note)
    unreadable = {image.path for image in skipped}
    readable = [path for path in pictures.paths if path not in unreadable]
    predictions = tuple(
        Prediction(picture=path, guesses=_guesses(row, model.classes, request.top))
        for path, row in zip(readable, scores, strict=True)
    )
    if request.sheet is not None:
        captions = [(best.guesses[0].label, f"{best.guesses[0].probability:.1%}") for best in predictions]
        write_contact_sheet(request.sheet, readable, captions, model.preprocessing)
    return PredictResult(request=request, runtime=runtime, predictions=predictions)


def _open(paths: tuple[Path, ...], preprocessing: Preprocessing) -> ImageFolder:
    """Return the pictures, with those of folders in their place."""
    files: list[Path] = []
    for path in paths:
        files += ImageFolder.scan(path, preprocessing).paths if path.is_dir() else [path]
    return ImageFolder(tuple(files), None, None, preprocessing)


def _scores(
    request: PredictRequest, model: ClassifierFacts, runtime: str, pictures: ImageFolder, progress: Progress
) -> tuple[np.ndarray, list[BadImage]]:
    """Return the probabilities of the pictures that can be read, ``(N, classes)``, and those that can't."""
    skipped: list[BadImage] = []
    scores = []
    with (
        open_runtime(runtime, model.source, threads=request.threads) as loaded,
        progress("predicting", len(pictures)) as advance,
    ):
        classifier = Classifier(runtime=loaded, head=model.head)
        for batch in pictures.batches(model.batch or _BATCH, skip_bad=request.skip_bad):
            skipped += batch.skipped
            if len(batch):
                scores.append(classifier.scores(batch, batch=_BATCH, probabilities=True))
            advance(len(batch) + len(batch.skipped))
    return np.concatenate(scores), skipped


def _guesses(probabilities: np.ndarray, classes: tuple[str, ...], top: int) -> tuple[Guess, ...]:
    best = np.argsort(-probabilities, kind="stable")[:top]
    names = dict(enumerate(classes))
    return tuple(
        Guess(index=int(index), name=names.get(int(index)), probability=float(probabilities[index])) for index in best
    )
