"""What calibration leaves behind: the range of every tensor that it watched, as data that can be kept in a file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CalibrationTable", "TensorRange"]

_SCHEMA = "rexport.calibration/1"


@dataclass(frozen=True)
class TensorRange:
    """The smallest and the largest value that a tensor was seen to take."""

    low: float
    high: float

    def merge(self, other: TensorRange) -> TensorRange:
        """Return the range of both; the order of merging makes no difference."""
        return TensorRange(min(self.low, other.low), max(self.high, other.high))

    @property
    def finite(self) -> bool:
        """Whether both ends are numbers."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True, kw_only=True)
class CalibrationTable:
    """The ranges of a model's tensors over some images.

    Attributes:
        model_sha256: Of the model that was run (see :func:`rexport.model_file.model_hash`).
        images: How many were seen.
        ranges: By tensor name.
    """

    model_sha256: str
    images: int
    ranges: Mapping[str, TensorRange]

    def to_json(self) -> str:
        """Return the table as a JSON document; equal tables give equal text."""
        return json.dumps(
            {
                "schema": _SCHEMA,
                "model_sha256": self.model_sha256,
                "images": self.images,
                "calibrator": "minmax",
                "ranges": {name: [r.low, r.high] for name, r in sorted(self.ranges.items())},
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> CalibrationTable:
        """Read what :meth:`to_json` wrote.

        Raises:
            DataError: It is not such a document.
        """
        try:
            document = json.loads(text)
            if document["schema"] != _SCHEMA:
                raise DataError(f"This is a {document['schema']} document, not a calibration table ({_SCHEMA}).")
            ranges = {name: TensorRange(float(low), float(high)) for name, (low, high) in document["ranges"].items()}
            for name, seen in ranges.items():
                if not (seen.finite and seen.low <= seen.high):
                    raise ValueError(f"{name!r} ranges from {seen.low} to {seen.high}")
            images = int(document["images"])
            if images < 1:
                raise ValueError(f"{images} images")
            return cls(model_sha256=str(document["model_sha256"]), images=images, ranges=ranges)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise DataError(f"This is not a calibration table ({error!r}).") from error
