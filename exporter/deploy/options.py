"""What a bundle is to say, and what goes into it beside the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rexport.device._manifest import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from rexport.preprocessing import Preprocessing

__all__ = ["BundleOptions"]


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
