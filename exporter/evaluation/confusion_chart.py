"""The confusion matrix as a picture: a row for each class, a column for each prediction."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from rexport.pages.drawing import COLOURS, INCH, TOOLTIP, inline, look, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from rexport.evaluation.result import Evaluation

__all__ = ["MOST_CLASSES", "classes_to_draw", "confusion_chart"]

MOST_CLASSES = 20
_SIDE, _CELL, _DIGIT = 350, 31, 7  # points of the drawing: the least of the matrix and of a cell, and room for a digit
_GAP = 0.05  # between cells, as part of one
_LETTERS = 10  # at either end of a long name
_FAINTEST = 0.12  # the opacity of a share of nearly nothing


def classes_to_draw(evaluation: Evaluation) -> tuple[int, ...]:
    """Return the outputs to draw: all, or of too many those of the pairs that are confused most often."""
    if evaluation.outputs <= MOST_CLASSES:
        return tuple(range(evaluation.outputs))
    classes: set[int] = set()
    for pair in evaluation.confused_pairs:
        if len(classes | {pair.label, pair.prediction}) <= MOST_CLASSES:
            classes |= {pair.label, pair.prediction}
    return tuple(sorted(classes))


def confusion_chart(evaluation: Evaluation, classes: Sequence[int], names: Sequence[str]) -> str:
    """Return the matrix of ``classes``, outputs in the order of rows and columns; ``names`` are those of all outputs.

    The larger a cell's share of the images of its class, the stronger its colour; mistakes, in another colour, are
    compared with the largest share of mistakes.
    """
    images = [counts.images for counts in evaluation.classes]
    pairs = product(classes, classes)
    drawn = {pair: evaluation.confusion[pair] for pair in pairs if evaluation.confusion[pair]}
    mistakes = [count / images[label] for (label, prediction), count in drawn.items() if label != prediction]
    right = sum(drawn.get((label, label), 0) for label in classes)
    with look():
        longest = max((len(f"{count:,}") for count in drawn.values()), default=0)
        figure, axes = _axes([_shortened(names[index]) for index in classes], max(_CELL, _DIGIT * longest))
        for (row, label), (column, prediction) in product(enumerate(classes), repeat=2):
            cell, count = _empty_cell(axes, row, column), drawn.get((label, prediction))
            if count is None:
                continue
            share, about = count / images[label], f"{names[label]}: {count:,} of {images[label]:,}"
            if label == prediction:
                _fill(axes, cell, count, "hit", share, f"{about} right")
            else:
                _fill(axes, cell, count, "miss", share / max(mistakes), f"{about} predicted as {names[prediction]}")
        counted = f"{right:,} of {sum(drawn.values()):,} images"
        return inline(figure, f"Confusion matrix of {len(classes)} classes: {counted} are on its diagonal")


def _axes(names: Sequence[str], cell: int) -> tuple[Figure, Axes]:
    """Return a figure of the size that the names and cells need, and axes where a cell is 1 wide and high."""
    side = max(_SIDE, cell * len(names))
    figure = Figure(figsize=(side / INCH, side / INCH))
    axes = figure.add_axes((0, 0, 1, 1), xlabel="predicted", ylabel="class")
    axes.set(xlim=(0, len(names)), ylim=(len(names), 0))
    middles = [index + 0.5 for index in range(len(names))]
    axes.set_xticks(middles, names)
    axes.set_yticks(middles, names)
    axes.xaxis.set_label_position("top")
    axes.xaxis.tick_top()
    axes.xaxis.labelpad = axes.yaxis.labelpad = 8
    axes.tick_params(length=0, pad=5)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    widest = max(label.get_window_extent().width for label in axes.get_xticklabels())
    if widest > 0.9 * side / len(names):
        axes.tick_params(axis="x", rotation=90)
    figure.draw_without_rendering()
    box = axes.get_tightbbox()
    assert box is not None
    left, above = -box.x0 + 2, box.y1 - side + 2
    figure.set_size_inches((side + left + 2) / INCH, (side + above + 2) / INCH)
    width, height = figure.bbox.width, figure.bbox.height
    axes.set_position((left / width, 2 / height, side / width, side / height))
    return figure, axes


def _empty_cell(axes: Axes, row: int, column: int) -> Rectangle:
    place, side = (column + _GAP / 2, row + _GAP / 2), 1 - _GAP
    cell = Rectangle(place, side, side, facecolor=COLOURS["panel"], linewidth=0)
    axes.add_patch(cell)
    return cell


def _fill(axes: Axes, cell: Rectangle, count: int, colour: str, strength: float, tooltip: str) -> None:
    """Colour a cell, from 0 to 1, and write its count."""
    gid = TOOLTIP + printable(tooltip)
    cell.set(facecolor=COLOURS[colour], alpha=_FAINTEST + (1 - _FAINTEST) * strength, gid=gid)
    x, y = cell.get_center()
    axes.text(x, y, f"{count:,}", ha="center", va="center_baseline", gid=gid)


def _shortened(name: str) -> str:
    text = printable(name)
    return text if len(text) <= 2 * _LETTERS else f"{text[:_LETTERS]}…{text[-_LETTERS + 1 :]}"
