"""``rexport bundle``: a signed bundle for devices from an ONNX file, and a model repository for Triton."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rexport._errors import UsageError
from rexport.cli._options import Json, Mean, Resize, Std

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport.jobs.bundle import BundleResult

__all__ = ["bundle", "parse_expiry", "parse_runtimes"]

_SPAN = re.compile(r"(\d{1,5})([dw])")
_RUNTIME = re.compile(r"([a-z]+)([<>=][^,]*(?:,[<>=][^,]*)*)?")


def bundle(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL.onnx", help="An ONNX file of a classifier.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The .rxb file, or the folder, to write.", show_default="NAME-VERSION.rxb"),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The private key to sign with.", show_default=False)
    ] = None,
    name: Annotated[str | None, typer.Option(help="What devices call it.", show_default="that of MODEL.onnx")] = None,
    version: Annotated[
        int | None,
        typer.Option(metavar="N", help="From 1 up; devices refuse one lower than they had.", show_default=False),
    ] = None,
    expires: Annotated[
        str, typer.Option(metavar="DATE|30d|never", help="Until when devices install it; a date is UTC.")
    ] = "365d",
    engine: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="An engine of this model; several are possible.", show_default=False),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A calibration table, to go along.", show_default=False)
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `rexport tune` wrote.", show_default=False)
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Names of the classes, one a line.", show_default="those in the model"),
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGE|.npy", help="The input whose scores devices compare.", show_default="a made picture"
        ),
    ] = None,
    target_system: Annotated[str, typer.Option(metavar="NAME", help="The devices' operating system.")] = "linux",
    machine: Annotated[
        str | None,
        typer.Option(
            metavar="x86_64,aarch64", help="Their processors.", show_default="what the model was quantized for"
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME>=VERSION", help="What may run it; several are possible.", show_default="likewise"),
    ] = None,
    min_sqnr: Annotated[
        float, typer.Option("--min-sqnr", metavar="DB", help="How near a device's scores have to be.")
    ] = 30.0,
    max_latency: Annotated[
        float | None,
        typer.Option(metavar="MS", help="The longest median call in a device's check.", show_default="none"),
    ] = None,
    max_seconds: Annotated[int, typer.Option(metavar="S", help="The longest that the check may take.")] = 120,
    max_memory: Annotated[int, typer.Option(metavar="MIB", help="The most memory that it may take.")] = 2048,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    openssf: Annotated[
        bool, typer.Option("--openssf", help="Add model.sig, OpenSSF's signature of the same files.")
    ] = False,
    triton: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also, or only, write a model repository for Triton.", show_default=False),
    ] = None,
    triton_batch: Annotated[
        int, typer.Option("--triton-batch", min=1, help="The most images that Triton puts together.")
    ] = 8,
    triton_gpu: Annotated[bool, typer.Option("--triton-gpu", help="Triton runs the ONNX file on GPUs.")] = False,
    new_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Make a key pair: FILE, and FILE's .pub.pem.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a signed bundle of MODEL for devices; they verify it, try it, and only then switch to it.

    The bundle has the model, a golden input with the scores that ONNX Runtime gives for it here, and a manifest that
    says what it is for and until when. The same files and key give the same bytes. --new-key makes a key pair: the
    private key stays with you, the .pub.pem goes to the devices.
    """
    from rexport.cli._console import note, print_json
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
        pictures=PictureOptions.parse(resize=resize, mean=mean, std=std),
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
        print(f"{private}: the private key; whoever has it can sign for your devices")
        print(f"{public}: the public key, for devices")
    if result.bundle is not None:
        manifest = result.bundle.manifest
        until = "without expiry" if manifest.expires is None else f"to be installed until {manifest.expires:%Y-%m-%d}"
        print(f"{result.file}: {manifest.name} {manifest.version}, {manifest.size / 2**20:.2f} MiB, {until}")
        target = manifest.target
        runtimes = (name + ",".join(versions) for name, versions in target.runtimes.items())
        print(f"for {target.system} on {', '.join(target.machines)}; runs on {' or '.join(runtimes)}")
    if result.triton is not None:
        print(f"{result.triton}: for Triton; serve it with --model-repository={result.triton.parent}")
