"""Options that several commands share, and what they mean together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport._errors import UsageError
from rexport.cli._console import note

if TYPE_CHECKING:
    import onnx_ir as ir

    from rexport.calibration import BadImage
    from rexport.preprocessing import Preprocessing

__all__ = [
    "Data",
    "Json",
    "Mean",
    "Output",
    "Resize",
    "SkipBad",
    "Std",
    "Threads",
    "Weights",
    "model_preprocessing",
    "with_overrides",
]

Output = Annotated[Path, typer.Option("--output", "-o", help="The file to write.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Data = Annotated[
    Path,
    typer.Option(
        "--data",
        help="Images: DIR/<class>/<image>, a flat folder, or an .npy or .npz file.",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="A state dict or a checkpoint with one: .safetensors, .pt, .pth, .ckpt. Without it, weights are random.",
    ),
]
Resize = Annotated[
    int | None,
    typer.Option("--resize", min=1, help="Resize the shorter side to this many pixels before the crop."),
]
Mean = Annotated[str | None, typer.Option("--mean", metavar="R,G,B", help="Mean of pixels scaled to 0…1.")]
Std = Annotated[str | None, typer.Option("--std", metavar="R,G,B", help="Standard deviation, likewise.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Go on without images that can't be read, naming them.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads of the runtime; by default one per core.")
]


def with_overrides(
    preprocessing: Preprocessing, *, resize: int | None, mean: str | None, std: str | None
) -> Preprocessing:
    """Return ``preprocessing`` with what was given on the command line.

    Raises:
        UsageError: The numbers make no sense.
    """
    if resize is not None:
        if resize < preprocessing.size:
            raise UsageError(f"--resize {resize} is smaller than the {preprocessing.size} pixels that are cut out.")
        preprocessing = replace(preprocessing, resize=resize)
    if mean is not None:
        preprocessing = replace(preprocessing, mean=_triple("--mean", mean))
    if std is not None:
        preprocessing = replace(preprocessing, std=_triple("--std", std))
    if not all(deviation > 0 for deviation in preprocessing.std):
        raise UsageError(f"--std {std}: standard deviations are larger than zero.")
    return preprocessing


def model_preprocessing(
    model: ir.Model, path: Path, *, resize: int | None, mean: str | None, std: str | None
) -> Preprocessing:
    """Return how pictures become the input of a model: what its file says, or else a guess that is announced."""
    from rexport.model_file import Metadata, image_input
    from rexport.preprocessing import Preprocessing, Takes

    image = image_input(model, path)
    if image.raw and (mean, std) != (None, None):
        raise UsageError(f"{path} normalises its images itself, so --mean and --std mean nothing with it.")
    stated = Metadata.of(model).preprocessing
    if stated is not None and stated.takes is Takes.PICTURES and resize is not None:
        raise UsageError(f"{path} resizes its images itself, so --resize means nothing with it.")
    if stated is None:
        takes = Takes.PIXELS if image.raw else Takes.NORMALISED
        stated = replace(Preprocessing.default_for(image.size or 224), takes=takes)
        if mean is None and std is None:
            rest = "(see --resize)" if image.raw else "and ImageNet's mean and std (see --resize, --mean and --std)"
            note(f"{path} does not say how pictures become its input; taking {_in_words(stated)} {rest}.")
    if stated.takes.raw != image.raw:
        raise UsageError(f"{path} says that it takes {stated.takes} images, and its input is of another type.")
    if image.size not in (None, stated.size):
        raise UsageError(f"{path} says that its pictures are {stated.size} pixels wide, and its input is {image.size}.")
    return with_overrides(stated, resize=resize, mean=mean, std=std)


def report_skipped(skipped: list[BadImage] | tuple[BadImage, ...]) -> None:
    """Name the images that were left out."""
    for image in skipped[:5]:
        note(f"skipped {image}")
    if len(skipped) > 5:
        note(f"skipped {len(skipped)} images in all")


def _in_words(preprocessing: Preprocessing) -> str:
    size = preprocessing.size
    if preprocessing.resize is None:
        return f"pictures of {size}×{size} as they are"
    return f"the middle {size}×{size} of pictures resized to {preprocessing.resize}"


def _triple(option: str, text: str) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{option} {text}: expected three numbers, such as 0.485,0.456,0.406.") from error
    return red, green, blue
