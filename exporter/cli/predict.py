"""``rexport predict``: the classes of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport.cli._console import note, print_json, print_table, print_text
from rexport.cli._options import Json, LayoutChoice, Mean, Resize, Size, SkipBad, Std, Threads, Weights

if TYPE_CHECKING:
    from rexport.jobs.predict import PredictResult

__all__ = ["EXAMPLES", "predict"]

EXAMPLES = (
    "rexport predict int8.onnx cat.jpg dog.jpg",
    "rexport predict resnet50.onnx holiday/ --top 1 --sheet holiday.png",
    "rexport predict cifar_resnet20 --weights best.pt ship.png --json",
)


def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="An ONNX file, an engine, or a network's name with --weights.", show_default=False
        ),
    ],
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURE", help="Pictures, or folders of them.", show_default=False)
    ],
    weights: Weights = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to name for each picture.")] = 5,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Write the pictures, as the model sees them, with their classes."),
    ] = None,
    on: Annotated[str | None, typer.Option(metavar="RUNTIME", help="What runs MODEL, as in `rexport eval`.")] = None,
    size: Size = None,
    layout: LayoutChoice = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    skip_bad: SkipBad = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Name the likeliest classes of pictures: the quickest way to see that a file is right.

    Pictures are prepared as the file states, or as --resize, --mean and --std say.
    """
    from rexport._progress import progress_bar
    from rexport.jobs.predict import PredictRequest, run
    from rexport.preprocessing import PictureOptions

    request = PredictRequest(
        model=model,
        pictures=tuple(pictures),
        weights=weights,
        top=top,
        runtime=on,
        sheet=sheet,
        skip_bad=skip_bad,
        options=PictureOptions.parse(size=size, layout=layout, resize=resize, mean=mean, std=std),
        threads=threads,
    )
    result = run(request, progress=progress_bar, note=note)
    if as_json:
        print_json(result.to_json())
    else:
        _print_predictions(result)


def _print_predictions(result: PredictResult) -> None:
    print_table(*result.as_table(), left=(0, 1))
    if result.request.sheet is not None:
        print_text(f"the pictures with their classes: {result.request.sheet}")
