"""``rexport bundle``: pack an ONNX file into a signed bundle for devices, or into a model repository for Triton."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport._errors import UsageError
from rexport.cli._console import note, print_json, print_text
from rexport.cli._options import Json, LayoutChoice, Mean, Resize, Std

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.jobs.bundle import BundleResult

__all__ = ["EXAMPLES", "bundle", "parse_expiry", "parse_runtimes"]

EXAMPLES = (
    "rexport bundle --new-key private.pem",
    "rexport bundle int8.onnx --key private.pem --name resnet50 --version 3",
    "rexport bundle int8.onnx --triton models --name resnet50",
)

_SPAN = re.compile(r"(\d{1,5})([dw])")
_RUNTIME = re.compile(r"([a-z]+)([<>=][^,]*(?:,[<>=][^,]*)*)?")


def _complete_runtime(incomplete: str) -> list[str]:
    from rexport.device._manifest import RUNTIMES

    return [name for name in RUNTIMES if name.startswith(incomplete)]


_CONTENTS, _TARGET, _CHECK, _TRITON = "Contents", "Target devices", "Self-check on the device", "Triton"


def bundle(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL.onnx", help="An ONNX file that takes pictures.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The .rxb file, or the folder, to write.", show_default="NAME-VERSION.rxb"),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The private key to sign with.", show_default=False)
    ] = None,
    new_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.pem",
            help="Make a key pair: FILE.pem, the private key, and FILE.pub.pem for the devices.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name on the devices.", show_default="that of MODEL.onnx")
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(metavar="N", help="A number from 1 up; devices refuse lower ones.", show_default=False),
    ] = None,
    expires: Annotated[
        str,
        typer.Option(
            metavar="DATE|30d|never", help="When devices stop accepting it: a date (midnight UTC), a span, or never."
        ),
    ] = "365d",
    as_json: Json = False,
    engine: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Add a TensorRT engine of this model; repeatable.",
            show_default=False,
            rich_help_panel=_CONTENTS,
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Add a calibration table.", show_default=False, rich_help_panel=_CONTENTS),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="Add the settings that `rexport tune` wrote.",
            show_default=False,
            rich_help_panel=_CONTENTS,
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Class names, one per line.",
            show_default="those in the model",
            rich_help_panel=_CONTENTS,
        ),
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGE|.npy",
            help="The input of the self-check.",
            show_default="a generated picture",
            rich_help_panel=_CONTENTS,
        ),
    ] = None,
    openssf: Annotated[
        bool, typer.Option("--openssf", help="Add an OpenSSF signature, model.sig.", rich_help_panel=_CONTENTS)
    ] = False,
    target_system: Annotated[
        str, typer.Option(metavar="NAME", help="Their operating system.", rich_help_panel=_TARGET)
    ] = "linux",
    machine: Annotated[
        str | None,
        typer.Option(
            metavar="x86_64,aarch64",
            help="Their processors, as `uname -m` prints them.",
            show_default="those of the model's target",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME>=VERSION",
            help="A runtime that may run the model; repeatable.",
            show_default="those that can",
            rich_help_panel=_TARGET,
            autocompletion=_complete_runtime,
        ),
    ] = None,
    min_sqnr: Annotated[
        float,
        typer.Option(
            "--min-sqnr", metavar="DB", help="Lowest SQNR of each output to that from here.", rich_help_panel=_CHECK
        ),
    ] = 30.0,
    max_latency: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Highest median latency.", show_default="no limit", rich_help_panel=_CHECK),
    ] = None,
    max_seconds: Annotated[
        int, typer.Option(metavar="S", help="Time limit of the self-check.", rich_help_panel=_CHECK)
    ] = 120,
    max_memory: Annotated[
        int, typer.Option(metavar="MIB", help="Memory limit of the self-check.", rich_help_panel=_CHECK)
    ] = 2048,
    layout: LayoutChoice = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    triton: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a model repository for Triton; no --key is needed for it.",
            show_default=False,
            rich_help_panel=_TRITON,
        ),
    ] = None,
    triton_batch: Annotated[
        int, typer.Option("--triton-batch", min=1, help="Largest batch that Triton forms.", rich_help_panel=_TRITON)
    ] = 8,
    triton_gpu: Annotated[
        bool, typer.Option("--triton-gpu", help="Run the ONNX file on GPUs.", rich_help_panel=_TRITON)
    ] = False,
) -> None:
    """Pack MODEL into a signed bundle for devices.

    Devices verify the signature and run a self-check before they switch to it: a golden input, whose outputs must match
    those that ONNX Runtime computes here. The manifest says which devices and runtimes the bundle is for, and when it
    expires. Bundles are reproducible: the same files and key give the same bytes.
    """
    from rexport.deploy.triton import TritonOptions
    from rexport.device._manifest import Limits
    from rexport.jobs.bundle import BundleRequest, run
    from rexport.preprocessing import PictureOptions

    request = BundleRequest(
        model=model,
        output=output,
        key=key,
        new_key=new_key,
        name=name,
        version=version,
        expires=parse_expiry(expires),
        engines=tuple(engine or ()),
        table=table,
        profile=profile,
        classes=classes,
        golden=golden,
        system=target_system,
        machines=tuple(filter(None, map(str.strip, (machine or "").split(",")))),
        runtimes=parse_runtimes(runtime or ()),
        min_sqnr_db=min_sqnr,
        limits=Limits(latency_ms=max_latency, seconds=max_seconds, memory_mib=max_memory),
        pictures=PictureOptions.parse(layout=layout, resize=resize, mean=mean, std=std),
        openssf=openssf,
        triton=triton,
        triton_options=TritonOptions(max_batch=triton_batch, gpu=triton_gpu),
    )
    result = run(request, note=note)
    if as_json:
        print_json(result.to_json())
    else:
        _print(result)


def parse_expiry(text: str, now: datetime | None = None) -> datetime | None:
    """Return the end of a date such as ``2027-11-27``, or of so many days from now; ``None`` for ``never``.

    Times are midnights in UTC, so that bundles made on one day are the same.

    Raises:
        UsageError: It is none of these.
    """
    if text == "never":
        return None
    span = _SPAN.fullmatch(text)
    try:
        if span is None:
            return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        today = (now or datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0)
        return today + timedelta(days=1 + int(span[1]) * {"d": 1, "w": 7}[span[2]])
    except (ValueError, OverflowError):
        raise UsageError(
            f"--expires takes a date such as 2027-11-27, a time such as 30d or 26w, or never, not {text!r}."
        ) from None


def parse_runtimes(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the versions by runtime in texts such as ``onnxruntime>=1.20,<2``.

    Raises:
        UsageError: One has no name, or versions that say nothing.
    """
    runtimes = {}
    for text in texts:
        match = _RUNTIME.fullmatch(text.replace(" ", ""))
        if match is None:
            raise UsageError(f"--runtime takes a name and versions such as 'onnxruntime>=1.20,<2', not {text!r}.")
        runtimes[match[1]] = tuple(filter(None, (match[2] or "").split(",")))
    return runtimes


def _print(result: BundleResult) -> None:
    if result.keys is not None:
        private, public = result.keys
        print_text(f"{private}: the private key; whoever has it can sign for your devices")
        print_text(f"{public}: the public key, for devices")
    if result.bundle is not None:
        manifest = result.bundle.manifest
        until = "never expires" if manifest.expires is None else f"expires on {manifest.expires:%Y-%m-%d}"
        print_text(f"{result.file}: {manifest.name} {manifest.version}, {manifest.size / 2**20:.2f} MiB, {until}")
        target = manifest.target
        runtimes = (name + ",".join(versions) for name, versions in target.runtimes.items())
        print_text(f"for {target.system} on {', '.join(target.machines)}; runs on {' or '.join(runtimes)}")
    if result.triton is not None:
        print_text(
            f"{result.triton}: for Triton; serve it with `tritonserver --model-repository={result.triton.parent}`"
        )
