"""The views of a picture that a network's accuracy is measured on; the scores of several views are averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from rexport._errors import UsageError
from rexport.preprocessing import Takes, sides_of, size_in_words

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from rexport.preprocessing import Preprocessing

__all__ = ["RESNET_SCALES", "CenterCrop", "TenCrops", "Views", "WholePictures", "parse_views"]

RESNET_SCALES = (224, 256, 384, 480, 640)  # of He et al. 2015, arXiv:1512.03385, section 3.4
_SMALLEST = 8  # pixels


@dataclass(frozen=True)
class CenterCrop:
    """The middle of the resized picture, as :meth:`Preprocessing.crop` cuts it."""

    @property
    def count(self) -> int:
        """How many views there are of a picture."""
        return 1

    @property
    def in_words(self) -> str:
        """Nothing: it is what pictures are usually shown as."""
        return ""

    def require(self, preprocessing: Preprocessing) -> None:
        """Do nothing: every preprocessing gives it."""

    def of(self, image: Image, preprocessing: Preprocessing) -> tuple[np.ndarray, ...]:
        """Return its pixels, uint8 of shape ``(size, size, 3)``, as the only one."""
        return (preprocessing.crop(image),)


@dataclass(frozen=True)
class TenCrops:
    """The corners and the middle, and those of the mirror image (see :meth:`Preprocessing.ten_crops`)."""

    @property
    def count(self) -> int:
        """How many views there are of a picture."""
        return 10

    @property
    def in_words(self) -> str:
        """What is shown of a picture."""
        return "10 crops each"

    def require(self, preprocessing: Preprocessing) -> None:
        """Raise :class:`UsageError` where pictures are not resized (all crops would be one), or the model does it."""
        _require_cut_outside(preprocessing)
        if preprocessing.resize is None:
            size = max(sides_of(preprocessing.size))
            raise UsageError(
                f"Ten crops of {size_in_words(preprocessing.size)} need larger pictures, and this model takes pictures "
                f"as they are; pass --resize {size + size // 4}, for example."
            )

    def of(self, image: Image, preprocessing: Preprocessing) -> tuple[np.ndarray, ...]:
        """Return their pixels, uint8 of shape ``(size, size, 3)``."""
        return preprocessing.ten_crops(image)


@dataclass(frozen=True)
class WholePictures:
    """The whole picture, once for each of ``scales``: the length of its shorter side in pixels.

    Raises:
        UsageError: There are no scales, or one twice, or one of less than 8 pixels.
    """

    scales: tuple[int, ...] = RESNET_SCALES

    def __post_init__(self) -> None:
        if not self.scales or len(set(self.scales)) < len(self.scales) or min(self.scales) < _SMALLEST:
            raise UsageError(
                f"The scales {','.join(map(str, self.scales)) or '(none)'} must be different lengths of the "
                f"shorter side, {_SMALLEST} pixels or more, such as {','.join(map(str, RESNET_SCALES))}."
            )

    @property
    def count(self) -> int:
        """How many views there are of a picture."""
        return len(self.scales)

    @property
    def in_words(self) -> str:
        """What is shown of a picture."""
        return f"whole, with shorter sides of {', '.join(map(str, self.scales))} pixels"

    def require(self, preprocessing: Preprocessing) -> None:
        """Raise :class:`UsageError` where the model resizes; otherwise only mean and std matter."""
        _require_cut_outside(preprocessing)

    def of(self, image: Image, preprocessing: Preprocessing) -> tuple[np.ndarray, ...]:
        """Return its pixels at each scale, uint8 of shape ``(H, W, 3)``."""
        return tuple(preprocessing.whole(image, scale) for scale in self.scales)


def _require_cut_outside(preprocessing: Preprocessing) -> None:
    if preprocessing.takes is Takes.PICTURES:
        raise UsageError(
            "The model resizes and crops pictures itself, so other crops and scales can't be evaluated; "
            "export it without --resize-in-graph."
        )


Views: TypeAlias = CenterCrop | TenCrops | WholePictures


def parse_views(*, crops: int = 1, scales: str | None = None) -> Views:
    """Return the views that ``--crops`` and ``--scales`` name.

    Raises:
        UsageError: They name none, or contradict each other.
    """
    if crops not in (1, 10):
        raise UsageError(f"--crops {crops}: choose 1 (the center) or 10.")
    if scales is None:
        return CenterCrop() if crops == 1 else TenCrops()
    if crops != 1:
        raise UsageError("--scales takes whole pictures; leave --crops 10 out.")
    try:
        return WholePictures(tuple(int(part) for part in scales.split(",")))
    except ValueError:
        raise UsageError(f"--scales takes lengths in pixels such as 224,256,384, not {scales!r}.") from None
