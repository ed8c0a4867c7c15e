"""``rexport engine``: a TensorRT engine from an ONNX file, checked layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport.cli._options import Json
from rexport.cli._paths import READ, WRITE, Writes

if TYPE_CHECKING:
    from rexport.engine import BackendName
    from rexport.engine_file import EngineFacts

__all__ = ["engine"]


def _with_facts(output: Path) -> tuple[Path, ...]:
    from rexport.engine_file import facts_path

    return (facts_path(output),)


def engine(
    model: Annotated[
        Path, READ, typer.Argument(metavar="MODEL.onnx", help="An ONNX file; quantized for TensorRT or float.")
    ],
    output: Annotated[Path, Writes(_with_facts), typer.Option("--output", "-o", help="The engine file to write.")],
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
            metavar="N,...",
            help="Compute capabilities to build for, without the point.",
            show_default="80,86,89,120",
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
        Path | None, WRITE, typer.Option(metavar="FILE", help="Measured times, read and written.", show_default=False)
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
        READ,
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
    import shlex
    import sys

    from rexport import _files
    from rexport.cli import _console
    from rexport.engine import BatchRange, BuildOptions, build_engine, refit_engine

    _files.check_writable(output)
    name = _backend(backend)
    _check_suffix(name, output, refit)
    options = BuildOptions(
        backend=name,
        capabilities=_capabilities(sm),
        batch=None if batch is None else BatchRange.parse(batch),
        workspace_mib=workspace,
        optimization_level=optimization_level,
        timing_cache=timing_cache,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        refittable=refittable,
        strip=strip,
    )
    command = shlex.join(["rexport", *sys.argv[1:]])
    if refit is None:
        built = build_engine(model, options, command=command, progress=_console.progress)
    else:
        built = refit_engine(refit, model, command=command, progress=_console.progress)
    built.save(output)
    for text in (*built.facts.repairs, *built.facts.warnings):
        _console.note(text)
    if as_json:
        _console.print_json({**built.facts.to_json(), "file": str(output)})
    else:
        _print(built.facts, output)


def _check_suffix(backend: BackendName, output: Path, refit: Path | None) -> None:
    """Refuse a name under which nobody would look for what is written."""
    from rexport._errors import UsageError
    from rexport.engine import BackendName

    is_onnx = output.suffix.lower() == ".onnx"
    if backend is BackendName.ONNXRUNTIME and refit is None and not is_onnx:
        raise UsageError(f"ONNX Runtime writes an ONNX file; call it {output.with_suffix('.onnx')}, not {output}.")
    if is_onnx and (backend is not BackendName.ONNXRUNTIME or refit is not None):
        raise UsageError(f"An engine is no ONNX file; call it {output.with_suffix('.engine')}, not {output}.")


def _backend(name: str) -> BackendName:
    from rexport._errors import UsageError
    from rexport.engine import BackendName

    if name not in list(BackendName):
        *others, last = BackendName
        raise UsageError(f"There is no backend {name!r}; choose {', '.join(others)} or {last}.")
    return BackendName(name)


def _capabilities(text: str | None) -> tuple[int, ...]:
    from rexport._errors import UsageError

    try:
        return () if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--sm takes compute capabilities such as 86,89, not {text!r}.") from None


def _print(facts: EngineFacts, output: Path) -> None:
    from collections import Counter

    counts = Counter((layer["op_type"], layer["precision"]) for layer in facts.layers)
    found = ", ".join(f"{count} {op_type} in {precision}" for (op_type, precision), count in counts.items())
    gpus = ", ".join(map(str, facts.capabilities)) or facts.device or "this machine's"
    print(f"{output}: {facts.bytes / 2**20:.1f} MiB, {facts.backend} {facts.version}, for GPUs {gpus}")
    unknown = "all layers in one engine" if facts.backend == "onnxruntime" else "no layers that multiply"
    print(f"{found or unknown}; built in {facts.seconds:.1f} s")
    if facts.stripped:
        print(f"without its weights: rexport engine {facts.onnx} --refit {output} -o FILE fills them in")
