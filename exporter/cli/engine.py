"""``rexport engine``: a TensorRT engine from an ONNX file, checked layer by layer."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport._errors import UsageError
from rexport._words import suggestion
from rexport.cli._console import note, print_json, print_text
from rexport.cli._options import ADVANCED, Json

if TYPE_CHECKING:
    from rexport.engine_file import BackendName
    from rexport.jobs.engine import EngineResult

__all__ = ["EXAMPLES", "engine"]

EXAMPLES = (
    "rexport engine resnet50-int8.onnx -o resnet50.engine",
    "rexport engine resnet50-int8.onnx --sm 86,89 --batch 1:8:32 -o resnet50.engine",
    "rexport engine resnet50-int8.onnx --backend tensorrt --timing-cache times.bin -o resnet50.engine",
)
_COMPATIBILITY, _WEIGHTS = "Where it runs", "Engines without weights"


def engine(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL.onnx", help="An ONNX file, float or quantized for TensorRT.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The engine file to write.", show_default=False)],
    backend: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="rtx: TensorRT for RTX, which needs no GPU here. tensorrt: for this machine's GPU. onnxruntime: the "
            "same, as an ONNX file that holds the engine.",
        ),
    ] = "rtx",
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="MIN:OPT:MAX",
            help="The batch sizes that it takes, and the one that it is tuned for.",
            show_default="that of MODEL.onnx, or 1",
        ),
    ] = None,
    as_json: Json = False,
    sm: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            help="Compute capabilities of the GPUs, such as 86 for 8.6.",
            show_default="80,86,89,120",
            rich_help_panel=_COMPATIBILITY,
        ),
    ] = None,
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible", help="Later versions of TensorRT can run it.", rich_help_panel=_COMPATIBILITY
        ),
    ] = False,
    hardware_compatible: Annotated[
        bool,
        typer.Option(
            "--hardware-compatible", help="Other GPUs, Ampere and later, can run it.", rich_help_panel=_COMPATIBILITY
        ),
    ] = False,
    refittable: Annotated[
        bool, typer.Option("--refittable", help="Its weights can be replaced later.", rich_help_panel=_WEIGHTS)
    ] = False,
    strip: Annotated[
        bool,
        typer.Option(
            "--strip", help="Leave the weights out; --refit fills them in on the device.", rich_help_panel=_WEIGHTS
        ),
    ] = False,
    refit: Annotated[
        Path | None,
        typer.Option(
            metavar="ENGINE",
            help="Instead of building, fill the weights of MODEL.onnx into this engine, built from it with --strip.",
            show_default=False,
            rich_help_panel=_WEIGHTS,
        ),
    ] = None,
    workspace: Annotated[
        int | None,
        typer.Option(
            metavar="MIB",
            help="The most scratch memory per layer, in MiB.",
            show_default="all of the GPU's",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    optimization_level: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=5,
            help="How long to search for faster kernels.",
            show_default="TensorRT's",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Measured kernel times, read from this file and added to it.",
            show_default=False,
            rich_help_panel=ADVANCED,
        ),
    ] = None,
) -> None:
    """Build a TensorRT engine, and check that every quantized layer runs in integers.

    TensorRT for RTX (--backend rtx) builds for other machines' GPUs and needs none itself. If a quantized layer came
    out in float, the exit code is 4 and nothing is written. OUTPUT.json, beside the engine, describes it, and is
    checked before the engine is loaded. With --backend onnxruntime, only that the whole model is in the engine is
    checked.
    """
    from rexport._progress import progress_bar
    from rexport.engine import BatchRange, BuildOptions
    from rexport.jobs.engine import EngineRequest, run

    options = BuildOptions(
        backend=_parse_backend(backend),
        capabilities=_parse_capabilities(sm),
        batch=None if batch is None else BatchRange.parse(batch),
        workspace_mib=workspace,
        optimization_level=optimization_level,
        timing_cache=timing_cache,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        refittable=refittable,
        strip=strip,
    )
    request = EngineRequest(
        model=model, output=output, options=options, refit=refit, command=shlex.join(["rexport", *sys.argv[1:]])
    )
    result = run(request, progress=progress_bar, note=note)
    if as_json:
        print_json(result.to_json())
    else:
        _print(result)


def _parse_backend(name: str) -> BackendName:
    from rexport.engine_file import BackendName

    if name not in list(BackendName):
        *others, last = BackendName
        hint = suggestion(name, BackendName)
        raise UsageError(f"There is no backend {name!r}; choose {', '.join(others)} or {last}.{hint}")
    return BackendName(name)


def _parse_capabilities(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise UsageError(f"--sm takes compute capabilities such as 86,89, not {text!r}.") from None


def _print(result: EngineResult) -> None:
    facts, output = result.engine, result.request.output
    counts = Counter((layer["op_type"], layer["precision"]) for layer in facts.layers)
    precisions = ", ".join(f"{count} {op_type} in {precision}" for (op_type, precision), count in counts.items())
    gpus = ", ".join(map(str, facts.capabilities)) or facts.device or "this machine's"
    print_text(f"{output}: {facts.bytes / 2**20:.1f} MiB, {facts.backend} {facts.version}, for GPUs {gpus}")
    unknown = "all layers in one engine" if facts.backend == "onnxruntime" else "no convolutions or matrix products"
    print_text(f"{precisions or unknown}; built in {facts.seconds:.1f} s")
    if facts.stripped:
        print_text(f"without its weights; `rexport engine {facts.onnx} --refit {output} -o FILE` fills them in")
