"""What calibration leaves behind: the statistics of every watched tensor, as data that can be kept and added up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rexport.calibration.statistics import TensorStatistics

__all__ = ["CalibrationTable"]

_MODULUS = 2**256


@dataclass(frozen=True, kw_only=True)
class CalibrationTable:
    """The statistics of a model's tensors over some images.

    Attributes:
        model_sha256: Of the model that was run (see :func:`rexport.model_file.model_hash`).
        images: How many were seen.
        tensors: By tensor name.
        data_sha256: Of the images as the model takes them: the sum, modulo 2²⁵⁶, of each one's SHA-256 (over its dtype,
            shape and bytes), in hex. It does not depend on their order, and adds up.
        batch: How many images ran at a time, at most.
        versions: The packages that made it, each a name and a version.
    """

    model_sha256: str
    images: int
    tensors: Mapping[str, TensorStatistics]
    data_sha256: str = f"{0:064x}"
    batch: int = 1
    versions: tuple[str, ...] = ()

    def merge(self, other: CalibrationTable) -> CalibrationTable:
        """Return the table of the images of both; the order of merging makes no difference, to the bit.

        Raises:
            UsageError: They are of different models, or watched different tensors.
        """
        if self.model_sha256 != other.model_sha256:
            raise UsageError(
                "The calibration tables are of different models "
                f"({self.model_sha256[:12]}… and {other.model_sha256[:12]}…), so they can't be merged; calibrate again."
            )
        if not _same_tensors(self.tensors, other.tensors):
            raise UsageError(
                "The calibration tables watch different tensors of the model, as different versions of rexport made "
                f"them ({', '.join(self.versions)}; {', '.join(other.versions)}); calibrate again with one of them."
            )
        data = (int(self.data_sha256, 16) + int(other.data_sha256, 16)) % _MODULUS
        return CalibrationTable(
            model_sha256=self.model_sha256,
            images=self.images + other.images,
            tensors={name: seen.merge(other.tensors[name]) for name, seen in sorted(self.tensors.items())},
            data_sha256=f"{data:064x}",
            batch=max(self.batch, other.batch),
            versions=tuple(sorted({*self.versions, *other.versions})),
        )

    def to_json(self) -> str:
        """Return the table as a JSON document; equal tables give equal text."""
        from rexport.calibration.table_json import to_json

        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> CalibrationTable:
        """Read what :meth:`to_json` wrote.

        Raises:
            DataError: It is not such a document, or one of an older version.
        """
        from rexport.calibration.table_json import from_json

        return from_json(text)


def _same_tensors(one: Mapping[str, TensorStatistics], other: Mapping[str, TensorStatistics]) -> bool:
    return one.keys() == other.keys() and all(
        len(seen.channel_lows) == len(other[name].channel_lows) for name, seen in one.items()
    )
