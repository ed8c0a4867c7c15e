"""What devices and servers get of a model: its bytes, a golden input, the names of its classes, its engines."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rexport._errors import DataError, EngineFileError, InputError, UsageError
from rexport.calibration import CalibrationTable
from rexport.class_names import read_class_names
from rexport.deploy.golden import GoldenPair, golden_pair
from rexport.deploy.vetting import VettedModel, vet
from rexport.deployment_settings import load_settings
from rexport.device._manifest import Engine, Limits
from rexport.engine_file import read_facts, read_intact

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from rexport.preprocessing import Preprocessing

__all__ = ["MODEL", "BundleOptions", "Payload", "collect", "stated_preprocessing"]

MODEL = "model.onnx"
_LARGEST_TEXT = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class BundleOptions:
    """What a bundle is to say, and what goes into it beside the model.

    Attributes:
        name: Of what it installs: lower-case letters, digits, ``.``, ``_``, ``-``.
        version: From 1 on; devices refuse one that is lower than they had.
        expires: The end of the time in which devices install it, in UTC; ``None`` for none.
        system: The devices' operating system, as ``platform.system()`` in lower case.
        machines: Their processors, as ``platform.machine()``; by default those that the model was quantized for.
        runtimes: What may run it, with versions; by default what it was quantized for.
        engines: Engine files built from this very model, each with its ``.json`` beside it.
        table: A calibration table, to go along.
        profile: What ``rexport tune`` wrote for this very model.
        classes: A file of the names of its outputs, one a line or a JSON list; by default those in the model.
        golden: A picture, or an ``.npy`` of what the model takes; by default a made one (see ``deploy.golden``).
        min_sqnr_db: See :class:`rexport.device._manifest.Golden`.
        limits: See :class:`rexport.device._manifest.Limits`.
        preprocessing: How pictures become its input, where the model does not say.
        openssf: Whether to add ``model.sig``, OpenSSF's signature of the same files.
    """

    name: str
    version: int
    expires: datetime | None = None
    system: str = "linux"
    machines: tuple[str, ...] = ()
    runtimes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    engines: tuple[Path, ...] = ()
    table: Path | None = None
    profile: Path | None = None
    classes: Path | None = None
    golden: Path | None = None
    min_sqnr_db: float = 30.0
    limits: Limits = field(default_factory=Limits)
    preprocessing: Preprocessing | None = None
    openssf: bool = False


@dataclass(frozen=True, kw_only=True)
class Payload:
    """What goes out.

    Attributes:
        model: The model.
        preprocessing: How pictures become its input.
        golden: An input, and what the model gives for it.
        classes: The names of its outputs; empty if unknown.
        engines: What the manifest says of each, and its bytes.
        engine_batches: The most images that each takes.
        profile: The text of the profile, for the name that the model has in a bundle; ``None`` without.
        table: That of the calibration table; likewise.
    """

    model: VettedModel
    preprocessing: Preprocessing
    golden: GoldenPair
    classes: tuple[str, ...] = ()
    engines: tuple[tuple[Engine, bytes], ...] = ()
    engine_batches: tuple[int, ...] = ()
    profile: bytes | None = None
    table: bytes | None = None


def collect(model: Path, options: BundleOptions) -> Payload:
    """Read a model and what goes along, and run the model on the golden input.

    Raises:
        ModelFileError: The model can't be read, or is not for devices (see ``deploy.vetting``).
        EngineFileError: An engine is damaged, or of another model.
        InputError: Another file can't be read, or does not belong to the model.
    """
    vetted = vet(model)
    preprocessing = options.preprocessing or stated_preprocessing(vetted)
    golden = golden_pair(vetted, preprocessing, options.golden)
    engines = _engines(vetted, len(golden.input), options.engines)
    return Payload(
        model=vetted,
        preprocessing=preprocessing,
        golden=golden,
        classes=_class_names(vetted, golden, options.classes),
        engines=tuple(engines),
        engine_batches=tuple(read_facts(path).batch[2] for path in options.engines),
        profile=None if options.profile is None else _profile(options.profile, vetted),
        table=None if options.table is None else _table(options.table),
    )


def stated_preprocessing(model: VettedModel) -> Preprocessing:
    """Return how pictures become the model's input, as its file says.

    Raises:
        InputError: It does not say, or contradicts itself.
    """
    stated = model.metadata.preprocessing
    if stated is None:
        raise InputError(
            f"{model.path} does not say how pictures become its input; export it with rexport, or state it."
        )
    if stated.takes.raw != model.image.raw or model.image.size not in (None, stated.size):
        raise InputError(f"What {model.path} says of its preprocessing does not fit its input; export it again.")
    return stated


def _class_names(model: VettedModel, golden: GoldenPair, given: Path | None) -> tuple[str, ...]:
    names = model.metadata.classes if given is None else read_class_names(given)
    outputs = golden.logits.shape[1]
    if names and len(names) != outputs:
        where = given or model.path
        raise InputError(f"{where} names {len(names)} classes, and {model.path} has {outputs} outputs.")
    return names


def _engines(model: VettedModel, batch: int, paths: tuple[Path, ...]) -> list[tuple[Engine, bytes]]:
    found: list[tuple[Engine, bytes]] = []
    digest = hashlib.sha256(model.data).hexdigest()
    for path in paths:
        facts = read_facts(path)
        data = read_intact(path, facts)
        if facts.onnx_sha256 != digest:
            raise EngineFileError(
                f"{path} was built from another file than {model.path} (sha256 {facts.onnx_sha256[:12]}…, not "
                f"{digest[:12]}…); build it again with `rexport engine {model.path}`."
            )
        least, _, most = facts.batch
        if not least <= batch <= most:
            raise EngineFileError(
                f"{path} takes {least} to {most} images, and the golden input has {batch}; build it with --batch "
                f"{batch}:{max(batch, facts.batch[1])}:{max(batch, most)}."
            )
        name = "-".join([facts.backend, facts.version, *map(str, facts.capabilities or ("device",))])
        engine = Engine(
            file=f"engines/{name}.engine",
            backend=facts.backend,
            version=facts.version,
            capabilities=tuple(facts.capabilities),
        )
        twin = next((other for other, _ in found if other.file == engine.file), None)
        if twin is not None:
            raise UsageError(f"{path} is the second engine for {name}; name one of each kind.")
        found.append((engine, data))
    return found


def _profile(path: Path, model: VettedModel) -> bytes:
    settings = load_settings(path)
    settings.check_model(model.path)
    return replace(settings, model=replace(settings.model, file=MODEL)).to_toml().encode()


def _table(path: Path) -> bytes:
    text = _text(path, "a calibration table")
    try:
        CalibrationTable.from_json(text)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return text.encode()


def _text(path: Path, what: str) -> str:
    try:
        if path.stat().st_size > _LARGEST_TEXT:
            raise InputError(f"{path} is larger than the 64 MiB of {what} in a bundle.")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}; name a file of {what}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not {what}: it is not text.") from error
