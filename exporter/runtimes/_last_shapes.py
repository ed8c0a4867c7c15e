"""What a runtime makes for each shape of images, such as memory on a device, kept for the last few shapes."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LastShapes"]

_MOST = 4  # a batch, the last one of a data set, and as many again
_Shape = TypeVar("_Shape")
_Made = TypeVar("_Made")


class LastShapes(OrderedDict[_Shape, _Made]):
    """The last four shapes that were used, with what was made for each."""

    def at(
        self, shape: _Shape, make: Callable[[], _Made], *, free: Callable[[_Made], object] = lambda _: None
    ) -> _Made:
        """Return what was made for a shape, or make it; ``free`` gets what makes room for it."""
        if shape not in self:
            if len(self) == _MOST:
                free(self.popitem(last=False)[1])
            self[shape] = make()
        self.move_to_end(shape)
        return self[shape]
