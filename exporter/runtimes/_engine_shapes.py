"""The shapes of an engine: its tensors, its optimization profiles, and how many images go into each call.

An engine of one batch takes exactly that; one that was built for a range has a profile with the least, best and most
images, or several of them. Images that are more than the most are run in parts, those that are fewer than the least are
filled up with copies of the last one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rexport._errors import EngineFileError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rexport.engine_file import EngineFacts

__all__ = ["EngineShapes", "Part", "Profile", "Tensor"]

_TYPES = {"float": "f4", "half": "f2", "int8": "i1", "uint8": "u1", "int32": "i4", "int64": "i8", "bool": "?"}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output of an engine; ``-1`` in its ``shape`` is the open batch."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, name: str, kind: str, shape: Sequence[int]) -> Tensor:
        """Return a tensor of TensorRT's type ``kind``, such as ``FLOAT`` or ``half``.

        Raises:
            UnavailableError: NumPy has no such type.
        """
        if kind.lower() not in _TYPES:
            raise UnavailableError(
                f"The engine's {name} is {kind.lower()}, a type that NumPy lacks; build it with float."
            )
        return cls(name=name, dtype=np.dtype(_TYPES[kind.lower()]), shape=tuple(shape))

    def at(self, batch: int) -> tuple[int, ...]:
        """Return its shape for so many images."""
        return tuple(batch if size == -1 else size for size in self.shape)

    def bytes_at(self, batch: int) -> int:
        """Return its size for so many images, in bytes."""
        return math.prod(self.at(batch)) * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The ``least``, ``best`` and ``most`` images of an optimization profile, and its ``index``."""

    index: int
    least: int
    best: int
    most: int

    def takes(self, batch: int) -> bool:
        """Say whether so many images fit."""
        return self.least <= batch <= self.most


@dataclass(frozen=True, kw_only=True)
class Part:
    """One call: images ``start`` to ``stop``, filled up to ``batch``, with the profile of that ``index``."""

    start: int
    stop: int
    batch: int
    profile: int


@dataclass(frozen=True, kw_only=True)
class EngineShapes:
    """The one input of an engine, its outputs, and its profiles (one, of the fixed batch, where nothing is open)."""

    images: Tensor
    outputs: tuple[Tensor, ...]
    profiles: tuple[Profile, ...]

    @classmethod
    def of_facts(cls, facts: EngineFacts) -> EngineShapes:
        """Return the shapes that the file beside an engine states.

        Raises:
            EngineFileError: It has several inputs.
        """
        inputs, outputs = (
            tuple(Tensor.of(tensor["name"], tensor["dtype"], tensor["shape"]) for tensor in tensors)
            for tensors in (facts.inputs, facts.outputs)
        )
        return cls.checked(inputs, outputs, [facts.batch])

    @classmethod
    def checked(
        cls, inputs: Sequence[Tensor], outputs: Sequence[Tensor], batches: Sequence[Sequence[int]]
    ) -> EngineShapes:
        """Return an engine's shapes; ``batches`` are the least, best and most of each profile.

        Raises:
            EngineFileError: It has several inputs, no output, or more open than the batch.
        """
        if len(inputs) != 1 or not outputs:
            raise EngineFileError(
                f"The engine has {len(inputs)} inputs and {len(outputs)} outputs; expected one input, images."
            )
        (images,) = inputs
        if -1 in images.shape[1:]:
            raise EngineFileError(
                f"The engine's {images.name} has dynamic dimensions besides the batch: {images.shape}."
            )
        if images.shape[0] != -1:
            batches = [[images.shape[0]] * 3]
        profiles = tuple(
            Profile(index=index, least=least, best=best, most=most) for index, (least, best, most) in enumerate(batches)
        )
        return cls(images=images, outputs=tuple(outputs), profiles=profiles)

    @property
    def least(self) -> int:
        """The fewest images of a call."""
        return min(profile.least for profile in self.profiles)

    @property
    def most(self) -> int:
        """The most images of a call."""
        return max(profile.most for profile in self.profiles)

    def profile_for(self, batch: int) -> Profile:
        """Return the profile that is best for so many images: tuned for the closest batch.

        Raises:
            UnavailableError: None takes so many.
        """
        fitting = [profile for profile in self.profiles if profile.takes(batch)]
        if not fitting:
            raise UnavailableError(f"The engine takes {self.in_words} at a time, not {batch}.")
        return min(fitting, key=lambda profile: (abs(math.log(batch / profile.best)), profile.index))

    def parts(self, count: int) -> Iterator[Part]:
        """Yield the calls that so many images take, each of as many as the engine takes at once."""
        for start in range(0, count, self.most):
            stop = min(count, start + self.most)
            batch = next(size for size in range(stop - start, self.most + 1) if self._some_profile_takes(size))
            yield Part(start=start, stop=stop, batch=batch, profile=self.profile_for(batch).index)

    @property
    def in_words(self) -> str:
        """The batches that it takes."""
        ranges = sorted({(profile.least, profile.most) for profile in self.profiles})
        return ", or ".join(str(least) if least == most else f"{least} to {most}" for least, most in ranges) + " images"

    def require(self, images: np.ndarray) -> None:
        """Check a batch of images.

        Raises:
            UnavailableError: They are of another shape or type than the engine takes.
        """
        kinds = (images.dtype.kind, self.images.dtype.kind)
        if images.shape[1:] != self.images.shape[1:] or (images.dtype != self.images.dtype and kinds != ("f", "f")):
            open_batch = ", ".join(["N", *map(str, self.images.shape[1:])])
            raise UnavailableError(
                f"The engine takes {self.images.dtype} of shape ({open_batch}), not {images.dtype} of shape "
                f"{images.shape}."
            )

    def difference(self, loaded: EngineShapes) -> str | None:
        """Say in which tensor or profile a loaded engine differs."""
        expected = (self.images, *self.outputs, *self.profiles)
        actual = (loaded.images, *loaded.outputs, *loaded.profiles)
        for described, present in zip(expected, actual, strict=False):
            if described != present:
                return f"{present}, not {described}"
        if len(expected) != len(actual):
            return f"{len(actual)} tensors and profiles, not {len(expected)}"
        return None

    def _some_profile_takes(self, batch: int) -> bool:
        return any(profile.takes(batch) for profile in self.profiles)
