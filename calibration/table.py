"""The result of a calibration: the statistics of every watched tensor, as data that can be stored and added up.

Its file is a line of JSON for each tensor, within one document; float32 numbers are written in their shortest form, and
sums as integers.
"""

from __future__ import annotations

import json
import re
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport._errors import DataError, UsageError
from rexport.calibration.histogram import BINS, Histogram, exponent_for
from rexport.calibration.statistics import TensorStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["CalibrationTable"]

_MODULUS = 2**256
_KIND = "rexport.calibration"
_SCHEMA = f"{_KIND}/2"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class CalibrationTable:
    """The statistics of a model's tensors over some images.

    Attributes:
        model_sha256: The hash of the model (see :func:`rexport.model_file.model_hash`).
        images: The number of images.
        tensors: The statistics by tensor name.
        data_sha256: The hash of the model's inputs: the sum, modulo 2²⁵⁶, of each image's SHA-256 (over its dtype,
            shape and bytes), in hex. It does not depend on their order, and adds up.
        batch: The most images that ran at a time.
        versions: The packages that made it, each a name and a version.
    """

    model_sha256: str
    images: int
    tensors: Mapping[str, TensorStatistics]
    data_sha256: str = f"{0:064x}"
    batch: int = 1
    versions: tuple[str, ...] = ()

    def merge(self, another: CalibrationTable) -> CalibrationTable:
        """Return the table of the images of both; the order of merging makes no difference, to the bit.

        Raises:
            UsageError: They are of different models, or watched different tensors.
        """
        if self.model_sha256 != another.model_sha256:
            raise UsageError(
                f"The calibration tables are of different models ({self.model_sha256[:12]}… and "
                f"{another.model_sha256[:12]}…), so they can't be merged; calibrate again."
            )
        if not _same_tensors(self.tensors, another.tensors):
            raise UsageError(
                "The calibration tables watch different tensors of the model, as different versions of rexport made "
                f"them ({', '.join(self.versions)}; {', '.join(another.versions)}); calibrate again with one of them."
            )
        data = (int(self.data_sha256, 16) + int(another.data_sha256, 16)) % _MODULUS
        return CalibrationTable(
            model_sha256=self.model_sha256,
            images=self.images + another.images,
            tensors={
                name: statistics.merge(another.tensors[name]) for name, statistics in sorted(self.tensors.items())
            },
            data_sha256=f"{data:064x}",
            batch=max(self.batch, another.batch),
            versions=tuple(sorted({*self.versions, *another.versions})),
        )

    def to_json(self) -> str:
        """Return the table as a JSON document; equal tables give equal text."""
        head = {
            "schema": _SCHEMA,
            "model_sha256": self.model_sha256,
            "data_sha256": self.data_sha256,
            "images": self.images,
            "batch": self.batch,
            "versions": list(self.versions),
        }
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        tensors = [f"{json.dumps(name)}: {json.dumps(_encoded(self.tensors[name]))}" for name in sorted(self.tensors)]
        lines.append('"tensors": {' + ",".join(f"\n {line}" for line in tensors) + "}")
        return "{" + ",\n".join(lines) + "}\n"

    @classmethod
    def from_json(cls, text: str) -> CalibrationTable:
        """Read what :meth:`to_json` wrote.

        Raises:
            DataError: It is not such a document, or one of an older version.
        """
        try:
            document = json.loads(text)
            schema = document["schema"]
            if schema == f"{_KIND}/1":
                raise DataError(
                    f"This calibration table is of an older form ({schema}), which holds no histograms; calibrate "
                    "again."
                )
            if schema != _SCHEMA:
                raise DataError(f"This is a {schema} document, not a calibration table ({_SCHEMA}).")
            return cls(
                model_sha256=str(document["model_sha256"]),
                images=_count(document, "images"),
                tensors={name: _decoded(name, fields) for name, fields in document["tensors"].items()},
                data_sha256=_sha256(document, "data_sha256"),
                batch=_count(document, "batch"),
                versions=tuple(str(package) for package in document["versions"]),
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise DataError(f"This is not a calibration table ({error!r}).") from error

    @classmethod
    def load(cls, path: Path) -> CalibrationTable:
        """Read a file with such a document.

        Raises:
            DataError: It can't be read, or holds something else.
        """
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{path} can't be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path} can't be read: it is not text.") from error
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def _same_tensors(first: Mapping[str, TensorStatistics], second: Mapping[str, TensorStatistics]) -> bool:
    return first.keys() == second.keys() and all(
        len(statistics.channel_lows) == len(second[name].channel_lows) for name, statistics in first.items()
    )


def _encoded(statistics: TensorStatistics) -> dict[str, Any]:
    return {
        "images": statistics.images,
        "values": statistics.values,
        "sum_of_lows": statistics.sum_of_lows,
        "sum_of_highs": statistics.sum_of_highs,
        "exponent": statistics.histogram.exponent,
        "first": statistics.histogram.first,
        "counts": statistics.histogram.counts.tolist(),
        "channel_lows": _shortest(statistics.channel_lows),
        "channel_highs": _shortest(statistics.channel_highs),
        "channel_sums": statistics.channel_sums,
    }


def _decoded(name: str, fields: dict[str, Any]) -> TensorStatistics:
    lows, highs = _floats(fields["channel_lows"]), _floats(fields["channel_highs"])
    sums = _integers(fields["channel_sums"])
    if not len(lows) == len(highs) == len(sums) > 0:
        raise ValueError(f"{name!r} has {len(lows)}, {len(highs)} and {len(sums)} channels")
    for low, high in zip(lows, highs, strict=True):
        if not -np.inf < low <= high < np.inf:
            raise ValueError(f"{name!r} ranges from {low} to {high}")
    exponent, first, sum_of_lows, sum_of_highs = _integers(
        fields[key] for key in ("exponent", "first", "sum_of_lows", "sum_of_highs")
    )
    counts = _integers(fields["counts"])
    if not counts or min(counts) < 0 or not counts[0] or not counts[-1]:
        raise ValueError(f"{name!r} has a histogram with empty ends or negative counts")
    if exponent != exponent_for(max(-min(lows), max(highs))) or first < -BINS or first + len(counts) > BINS:
        raise ValueError(f"{name!r} has a histogram of another range")
    return TensorStatistics(
        images=_count(fields, "images"),
        values=_count(fields, "values"),
        channel_lows=lows,
        channel_highs=highs,
        channel_sums=sums,
        sum_of_lows=sum_of_lows,
        sum_of_highs=sum_of_highs,
        histogram=Histogram(exponent=exponent, first=first, counts=array("q", counts)),
    )


def _shortest(values: Sequence[float]) -> list[float]:
    """Return the numbers of the fewest digits that round to the same float32."""
    return [float(text) for text in map(str, np.array(values, np.float32))]


def _floats(values: Iterable[float]) -> tuple[float, ...]:
    numbers = [float(value) for value in values]
    with np.errstate(over="ignore"):
        array = np.array(numbers).astype(np.float32) + np.float32(0)  # no -0
    if np.isinf(array).any():
        raise ValueError(f"{numbers[int(np.argmax(np.isinf(array)))]} is no float32")
    return tuple(array.tolist())


def _integers(values: Iterable[int]) -> tuple[int, ...]:
    numbers = tuple(values)
    for number in numbers:
        if type(number) is not int:
            raise TypeError(f"{number!r} is not an integer")
    return numbers


def _count(fields: dict[str, Any], key: str) -> int:
    (number,) = _integers([fields[key]])
    if number < 1:
        raise ValueError(f"{number} {key}")
    return number


def _sha256(fields: dict[str, Any], key: str) -> str:
    if not _SHA256.fullmatch(fields[key]):
        raise ValueError(f"{key} is {fields[key]!r}")
    return str(fields[key])
