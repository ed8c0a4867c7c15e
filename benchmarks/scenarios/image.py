"""What one query carries: an image as the model takes it, or the pixels that become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rexport.preprocessing import Preprocessing
    from rexport.runtimes.source import Source

__all__ = ["Image"]


@dataclass(frozen=True, kw_only=True)
class Image:
    """The shape of one image, without the batch.

    Attributes:
        shape: ``(3, S, S)``, or of pixels ``(H, W, 3)``.
        dtype: ``float32``, standard-normal values; or ``uint8``, pixels.
        preprocessing: What the pixels go through in every call before the model; ``None`` for nothing.
    """

    shape: tuple[int, int, int]
    dtype: Literal["float32", "uint8"] = "float32"
    preprocessing: Preprocessing | None = None

    @classmethod
    def of(cls, source: Source) -> Image:
        """Return what a model takes, as far as its file or its name tells.

        Raises:
            ModelFileError: The file is not a model of images.
            UsageError: There is no such network.
        """
        from rexport.benchmarks.subjects import examine  # loads PyTorch, which the process of a file does not need

        subject = examine(source)
        if subject.raw is not None:
            return cls(shape=subject.raw, dtype="uint8")
        return cls(shape=(3, subject.size, subject.size))
