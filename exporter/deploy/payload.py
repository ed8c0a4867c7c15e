"""What devices and servers get of a model: its bytes, a golden input, the names of its classes, its engines."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rexport._apart import READ
from rexport._errors import BundleError, EngineFileError, InputError, UsageError
from rexport._words import suggestion
from rexport.calibration import CalibrationTable
from rexport.class_names import read_class_names
from rexport.deploy.golden import GoldenPair, golden_pair
from rexport.deploy.vetting import VettedModel, vet
from rexport.deployment_settings import load_settings
from rexport.device._manifest import RUNTIMES, SPECIFIER, Engine, Limits
from rexport.engine_file import read_facts, read_intact
from rexport.model_inputs import require_fitting

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rexport.preprocessing import Preprocessing

__all__ = ["MODEL", "BundleOptions", "Payload", "collect"]

MODEL = "model.onnx"


@dataclass(frozen=True, kw_only=True)
class BundleOptions:
    """What a bundle is to say, and what goes into it beside the model.

    Attributes:
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

    Raises:
        BundleError: The time of expiry is past, or a version is none.
        UsageError: There is no such runtime.
    """

    expires: datetime | None = None
    system: str = "linux"
    machines: tuple[str, ...] = ()
    runtimes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    engines: tuple[Path, ...] = field(default=(), metadata=READ)
    table: Path | None = field(default=None, metadata=READ)
    profile: Path | None = field(default=None, metadata=READ)
    classes: Path | None = field(default=None, metadata=READ)
    golden: Path | None = field(default=None, metadata=READ)
    min_sqnr_db: float = 30.0
    limits: Limits = field(default_factory=Limits)
    preprocessing: Preprocessing | None = None
    openssf: bool = False

    def __post_init__(self) -> None:
        if self.expires is not None and self.expires <= datetime.now(UTC):
            raise BundleError(
                f"The bundle would expire at {self.expires:%Y-%m-%d}, which is in the past; pass a later date."
            )
        for name, specifiers in self.runtimes.items():
            if name not in RUNTIMES:
                near = suggestion(name, RUNTIMES, 3)
                raise UsageError(f"There is no runtime {name!r} on devices; choose from {', '.join(RUNTIMES)}.{near}")
            for text in specifiers:
                if not SPECIFIER.fullmatch(text):
                    raise BundleError(
                        f"{text!r} is not a version constraint: write >=, < or == and a number, such as >=1.20."
                    )


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
    preprocessing = options.preprocessing or _stated_preprocessing(vetted)
    golden = golden_pair(vetted, preprocessing, options.golden)
    return Payload(
        model=vetted,
        preprocessing=preprocessing,
        golden=golden,
        classes=_class_names(vetted, golden, options.classes),
        engines=_engines(vetted, len(golden.input), options.engines),
        engine_batches=tuple(read_facts(path).batch[2] for path in options.engines),
        profile=_profile(options.profile, vetted) if options.profile else None,
        table=_table(options.table) if options.table else None,
    )


def _stated_preprocessing(model: VettedModel) -> Preprocessing:
    preprocessing = model.metadata.preprocessing
    if preprocessing is None:
        raise InputError(
            f"{model.path} does not say how pictures become its input; export it with rexport, or state it."
        )
    require_fitting(preprocessing, model.image, model.path)
    return preprocessing


def _class_names(model: VettedModel, golden: GoldenPair, file: Path | None) -> tuple[str, ...]:
    names = model.metadata.classes if file is None else read_class_names(file)
    outputs = golden.logits.shape[1] if golden.logits.ndim > 1 else 1
    if names and len(names) != outputs:
        raise InputError(f"{file or model.path} names {len(names)} classes, and {model.path} has {outputs} outputs.")
    return names


def _engines(model: VettedModel, batch: int, paths: tuple[Path, ...]) -> tuple[tuple[Engine, bytes], ...]:
    engines: dict[str, tuple[Engine, bytes]] = {}
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
        if name in engines:
            raise UsageError(f"{path} is the second engine for {name}; pass one of each kind.")
        engine = Engine(f"engines/{name}.engine", facts.backend, facts.version, tuple(facts.capabilities))
        engines[name] = engine, data
    return tuple(engines.values())


def _profile(path: Path, model: VettedModel) -> bytes:
    settings = load_settings(path)
    settings.check_model(model.path)
    return replace(settings, model=replace(settings.model, file=MODEL)).to_toml().encode()


def _table(path: Path) -> bytes:
    CalibrationTable.load(path)
    return path.read_bytes()
