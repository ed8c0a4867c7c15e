"""Options that several commands share, and the lists that options take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, overload

import typer

from rexport._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ACCURACY",
    "ADVANCED",
    "CALIBRATION",
    "MEASURING",
    "PICTURES",
    "TAKES",
    "Data",
    "Json",
    "LayoutChoice",
    "Mean",
    "Output",
    "Resize",
    "Size",
    "SkipBad",
    "Std",
    "Threads",
    "Weights",
    "complete_calibrator",
    "complete_network",
    "complete_runtime",
    "complete_target",
    "parse_counts",
    "parse_shapes",
    "parse_words",
]

ACCURACY, CALIBRATION, MEASURING, TAKES = "Accuracy", "Calibration", "Measuring", "What the file takes"
PICTURES, ADVANCED = "How pictures are prepared", "Advanced"
"""Groups of options in the help of commands; the last one comes last."""

Output = Annotated[Path, typer.Option("--output", "-o", help="The file to write.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Data = Annotated[
    Path,
    typer.Option(
        "--data",
        help="Images: a folder per class (DIR/<class>/<image>), a flat folder (with image_labels.csv in it, if they "
        "have labels), an .npy or an .npz file.",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="Weights: a .safetensors, .pt, .pth or .ckpt file, or published ones, such as hub:timm/resnet50.a1_in1k.",
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="N|HxW",
        help="Height and width of the pictures, for a model that takes any.",
        show_default="as the model says, or 224",
        rich_help_panel=PICTURES,
    ),
]
LayoutChoice = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="nchw|nhwc",
        help="Order of the input's axes: channels first or last.",
        show_default="where the channels are",
        rich_help_panel=PICTURES,
    ),
]
Resize = Annotated[
    str | None,
    typer.Option(
        "--resize",
        metavar="N|HxW",
        help="Resize the shorter side to this many pixels before the crop, or pictures to this height and width.",
        rich_help_panel=PICTURES,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean", metavar="R,G,B", help="Mean of each channel, of pixels scaled to 0…1.", rich_help_panel=PICTURES
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        "--std",
        metavar="R,G,B",
        help="Standard deviation of each channel, of pixels scaled to 0…1.",
        rich_help_panel=PICTURES,
    ),
]
SkipBad = Annotated[
    bool,
    typer.Option("--skip-bad", help="Skip images that can't be read, and list them.", rich_help_panel=PICTURES),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, help="Threads of the runtime.", show_default="one per core", rich_help_panel=ADVANCED
    ),
]


@overload
def parse_words(text: str) -> tuple[str, ...]: ...
@overload
def parse_words(text: None) -> None: ...
def parse_words(text: str | None) -> tuple[str, ...] | None:
    """Return the words between commas, each once; ``None`` for an option that was not given."""
    if text is None:
        return None
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def parse_shapes(texts: Iterable[str] | None) -> dict[str, tuple[int, ...]]:
    """Read ``x=1x80x3000`` and the like.

    Raises:
        UsageError: A text is none of a name and sizes.
    """
    shapes = {}
    for text in texts or ():
        name, _, sizes = text.rpartition("=")
        if not name or not all(size.isdecimal() and int(size) for size in sizes.split("x")):
            raise UsageError(f"--input {text}: name an input and its sizes, such as x=1x80x3000.")
        shapes[name] = tuple(map(int, sizes.split("x")))
    return shapes


def parse_counts(option: str, text: str | None) -> tuple[int, ...] | None:
    """Return the whole numbers between commas, each once; ``None`` for an option that was not given.

    Raises:
        UsageError: There are none, or one is not a whole number above zero.
    """
    words = parse_words(text)
    if words is None:
        return None
    if not words or not all(word.isascii() and word.isdecimal() and int(word) > 0 for word in words):
        raise UsageError(f"{option} {text!r}: it takes numbers from 1 on, such as 1,2.")
    return tuple(dict.fromkeys(map(int, words)))


def complete_network(incomplete: str) -> list[str]:
    """Return the names of networks that begin so; like all completions, after the last comma if there is one."""
    from rexport.models import networks

    return _matching((network.name for network in networks()), incomplete)


def complete_runtime(incomplete: str) -> list[str]:
    """Return the names of runtimes that begin so."""
    from rexport.runtimes import RUNTIMES

    return _matching(RUNTIMES, incomplete)


def complete_target(incomplete: str) -> list[str]:
    """Return the names of quantization targets that begin so."""
    from rexport.quantization import TARGETS

    return _matching(TARGETS, incomplete)


def complete_calibrator(incomplete: str) -> list[str]:
    """Return the names of calibrators that begin so."""
    from rexport.calibration.calibrator import Method

    return _matching(Method, incomplete)


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    before, comma, word = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(word)]
