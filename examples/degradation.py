"""The experiment that residual networks come from: deeper plain networks train worse; shortcuts all but undo that.

    python examples/degradation.py --data cifar10/train -o degradation.png

It trains plain and residual networks of two depths on the same pictures in the same order, by the same short recipe
(one cycle of the learning rate), and draws the error on the pictures that they are trained with, as figure 6 of He et
al. 2015 (arXiv:1512.03385) does. It is not overfitting: a deeper plain network has the larger error on its own training
pictures, although a solution exists, since its further layers could pass on what they are given. In trainings as short
as these the deeper residual network is still a little behind; in the paper's 64,000 iterations it comes to be ahead.
The figures are written beside the drawing, as JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rexport.training import Pictures

_FAMILIES = {"plain": "plain networks", "resnet": "residual networks"}
_INK, _QUIET = "#1f2933", "#9aa5b1"
_COLORS = ("#f0a202", "#c8553d", "#7b2d43")


def main(
    data: Annotated[Path, typer.Option(help="Pictures of 32×32: DIR/<class>/<image>.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The drawing, a PNG.")] = Path("degradation.png"),
    depths: Annotated[str, typer.Option(help="Depths 6n + 2 to compare.")] = "20,56",
    epochs: Annotated[int, typer.Option(min=1, help="Of each training.")] = 8,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="By default one per core.")] = None,
) -> None:
    """Train plain and residual networks of several depths, and draw their training errors."""
    from rexport import Preprocessing, RexportError
    from rexport.benchmarks.machine import machine_facts
    from rexport.calibration.image_folder import ImageFolder
    from rexport.training import PicturesInMemory

    try:
        _require_matplotlib()
        if not data.is_dir():
            raise SystemExit(f"error: there is no folder {data}; --data takes one with a folder of pictures per class.")
        folder = ImageFolder.scan(data, Preprocessing(size=32))
        if folder.classes is None:
            raise SystemExit(f"error: the pictures in {data} have no classes; sort them into a folder per class.")
        pictures = PicturesInMemory.read(folder)
        names = [f"cifar_{family}{depth}" for family in _FAMILIES for depth in depths.split(",")]
        runs = [
            _train(name, pictures, classes=len(folder.classes), epochs=epochs, seed=seed, threads=threads)
            for name in names
        ]
    except RexportError as error:
        raise SystemExit(f"error: {error}") from error
    document = {
        "schema": "rexport.degradation/1",
        "images": len(pictures),
        "epochs": epochs,
        "seed": seed,
        "runs": runs,
        "machine": machine_facts().to_json(),
    }
    output.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draw(document, output)
    print(f"{output} and {output.with_suffix('.json')}")


def _train(
    name: str, pictures: Pictures, *, classes: int, epochs: int, seed: int, threads: int | None
) -> dict[str, Any]:
    import torch

    from rexport import build
    from rexport.training import EpochResult, OneCycleRecipe, train

    if threads is not None:
        torch.set_num_threads(threads)

    def say(result: EpochResult) -> None:
        print(
            f"{name}: epoch {result.epoch:2d} of {epochs}, loss {result.loss:.3f}, "
            f"training error {100 * (1 - result.train_top1):.1f} %, {result.seconds:.0f} s",
            flush=True,
        )

    module = build(name, num_classes=classes, seed=seed)
    recipe = OneCycleRecipe(epochs=epochs, learning_rate=0.05, seed=seed)
    results = train(module, pictures, recipe=recipe, augment=True, after_epoch=say)
    return {"network": name, "epochs": [asdict(result) for result in results]}


def draw(document: dict[str, Any], path: Path) -> None:
    """Draw the training errors of plain networks beside those of residual ones.

    Args:
        document: As :func:`main` writes it.
        path: The PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(_FAMILIES), figsize=(8, 3.2), sharey=True, layout="constrained")
    for axes, (family, title) in zip(panels, _FAMILIES.items(), strict=True):
        runs = [run for run in document["runs"] if run["network"].startswith(f"cifar_{family}")]
        _draw_family(axes, runs, family)
        axes.set_title(title, loc="left", fontsize=11, color=_INK)
    panels[0].set_ylabel("training error, %", color=_INK)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _draw_family(axes: Axes, runs: list[dict[str, Any]], family: str) -> None:
    ends = []
    for color, run in zip(_COLORS, runs, strict=False):
        errors = [100 * (1 - epoch["train_top1"]) for epoch in run["epochs"]]
        axes.plot(range(1, len(errors) + 1), errors, color=color, linewidth=2)
        ends.append((errors[-1], len(errors), run["network"].removeprefix(f"cifar_{family}"), color))
    for error, last, depth, color in ends:
        above = error >= max(other for other, *_ in ends)
        axes.annotate(
            f"{depth} layers\n{error:.0f} %",
            (last, error),
            xytext=(6, -5 if above else 5),
            textcoords="offset points",
            va="bottom" if above else "top",
            color=color,
            fontweight="bold",
        )
    axes.set_xlabel("epoch", color=_INK)
    axes.grid(axis="y", color=_QUIET, alpha=0.3)
    axes.tick_params(colors=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise SystemExit(
            "error: the drawing needs matplotlib, which is not installed: pip install 'rexport[report]'"
        ) from error


if __name__ == "__main__":
    typer.run(main)
