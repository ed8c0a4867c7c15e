"""``rexport engine``: a TensorRT engine from an ONNX file, checked layer by layer."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport._errors import UsageError
from rexport.cli._options import Json

if TYPE_CHECKING:
    from rexport.engine_file import BackendName
    from rexport.jobs.engine import EngineResult

__all__ = ["engine"]


def engine(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An ONNX file; quantized for TensorRT or float.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The engine file to write.")],
    backend: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="rtx, for GPUs that need not be here; for the one that is, tensorrt, or onnxruntime, which writes an "
            "ONNX file that holds the engine.",
        ),
    ] = "rtx",
    sm: Annotated[
        str | None,
        typer.Option(
            metavar="N,...", help="Compute capabilities to build for, without the point.", show_default="80,86,89,120"
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="MIN:OPT:MAX",
            help="Batches that it takes, and the one it is tuned for.",
            show_default="that of MODEL.onnx, or 1",
        ),
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(metavar="MIB", help="The most scratch memory of a layer.", show_default="all")
    ] = None,
    optimization_level: Annotated[
        int | None, typer.Option(min=0, max=5, help="How long to search for faster kernels.", show_default="TensorRT's")
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Measured times, read and written.", show_default=False)
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Later versions of TensorRT may run it.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="Other GPUs of Ampere and later may run it.")
    ] = False,
    refittable: Annotated[bool, typer.Option("--refittable", help="Its weights can be exchanged.")] = False,
    strip: Annotated[
        bool, typer.Option("--strip", help="Leave its weights out, to be filled in on the device with --refit.")
    ] = False,
    refit: Annotated[
        Path | None,
        typer.Option(
            metavar="ENGINE",
            help="Build nothing: fill the weights of MODEL.onnx into this engine, built of it with --strip.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build a TensorRT engine, and check that what the file quantizes came out in integers.

    TensorRT for RTX (--backend rtx) builds for other machines' GPUs without having one. If a layer that the
    file quantizes came out in float, the exit code is 4 and nothing is written. Beside the engine lies
    OUTPUT.json, which says what it is; whoever loads the engine compares it first. Of what ONNX Runtime
    compiles, only that all of it is in the engine is checked.
    """
    from rexport.cli._console import note, print_json, progress
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
    result = run(request, progress=progress, note=note)
    if as_json:
        print_json(result.to_json())
    else:
        _print(result)


def _parse_backend(name: str) -> BackendName:
    from rexport.engine_file import BackendName

    if name not in list(BackendName):
        *others, last = BackendName
        raise UsageError(f"There is no backend {name!r}; choose {', '.join(others)} or {last}.")
    return BackendName(name)


def _parse_capabilities(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise UsageError(f"--sm takes compute capabilities such as 86,89, not {text!r}.") from None


def _print(result: EngineResult) -> None:
    facts, output = result.facts, result.request.output
    counts = Counter((layer["op_type"], layer["precision"]) for layer in facts.layers)
    precisions = ", ".join(f"{count} {op_type} in {precision}" for (op_type, precision), count in counts.items())
    gpus = ", ".join(map(str, facts.capabilities)) or facts.device or "this machine's"
    print(f"{output}: {facts.bytes / 2**20:.1f} MiB, {facts.backend} {facts.version}, for GPUs {gpus}")
    unknown = "all layers in one engine" if facts.backend == "onnxruntime" else "no layers that multiply"
    print(f"{precisions or unknown}; built in {facts.seconds:.1f} s")
    if facts.stripped:
        print(f"without its weights: rexport engine {facts.onnx} --refit {output} -o FILE fills them in")
