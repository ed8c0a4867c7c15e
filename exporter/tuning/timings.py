"""Times of layers, kept from one run to the next.

A time belongs to the layer, the batch and the threads, the runtime and its version, and the processor; with all of them
the same, nothing is measured again. The file is a cache: deleting it costs a minute, and entries that can't be read are
measured again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rexport._cpu import this_cpu
from rexport._files import cache_folder
from rexport._json_cache import JsonCache
from rexport.tuning.group_form import GroupForm

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rexport.tuning.conv_layer import ConvLayer

__all__ = ["Conditions", "Timings"]

_SCHEMA = "rexport.layer-timings/1"


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions of a layer's time: images a call, threads, runtime and processor."""

    batch: int
    threads: int
    runtime: str
    cpu: str

    @classmethod
    def here(cls, *, batch: int, threads: int) -> Conditions:
        """Return the conditions on ONNX Runtime on this machine's processor."""
        cpu = this_cpu()
        return cls(
            batch=batch, threads=threads, runtime=_onnxruntime(), cpu=f"{cpu.name}, {cpu.architecture}, {cpu.int8}"
        )


class Timings:
    """Seconds of layers under some conditions, in a file.

    Args:
        path: By default ``layer-timings.json`` in rexport's cache folder.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._cache = JsonCache(path or cache_folder() / "layer-timings.json", schema=_SCHEMA, check=_forms)

    def find(self, layer: ConvLayer, conditions: Conditions) -> dict[GroupForm, float]:
        """Return the seconds of a layer in its forms; empty if none are known."""
        return _forms(self._cache.find(_facts(layer, conditions)) or {})

    def keep(self, layer: ConvLayer, conditions: Conditions, seconds: Mapping[GroupForm, float]) -> None:
        """Add the seconds of a layer to the file; where there is no room for it, they are simply not kept."""
        self._cache.keep(_facts(layer, conditions), {str(form): elapsed for form, elapsed in seconds.items()})


def _forms(entry: Mapping[str, float]) -> dict[GroupForm, float]:
    return {GroupForm.parse(form): float(seconds) for form, seconds in entry.items()}


def _facts(layer: ConvLayer, conditions: Conditions) -> dict[str, Any]:
    return {**layer.to_json(), **asdict(conditions)}


def _onnxruntime() -> str:
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}, CPU"
