"""Parts of a data set whose tables add up to that of the whole, on any workers and in any order.

A shard is always the same images in the same batches: 64, or as many as make whole batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from rexport.calibration.dataset import spread
from rexport.calibration.decoding import UnreadableError
from rexport.calibration.observation import Observation, Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rexport.calibration.dataset import BadImage, Dataset
    from rexport.calibration.table import CalibrationTable
    from rexport.feeds import Feed

__all__ = ["CalibrateShard", "Shard", "ShardResult", "name_all_bad", "shards_of"]

_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A part of a data set, after ``before`` images of other parts."""

    dataset: Dataset
    before: int


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """The ``table`` of a shard's images, if any are usable, and the ``bad`` ones."""

    table: CalibrationTable | None
    bad: tuple[BadImage, ...]


@dataclass(frozen=True, kw_only=True)
class CalibrateShard:
    """The work: run the images of a shard, ``batch`` at a time."""

    observation: Observation
    batch: int

    def open(self) -> Callable[[Shard], ShardResult]:
        """Open a session, and return the function that runs a shard in it."""
        observer = Observer(self.observation)
        return lambda shard: self._run(observer, shard)

    def _run(self, observer: Observer, shard: Shard) -> ShardResult:
        bad: list[BadImage] = []

        def feeds() -> Iterator[Feed]:
            for batch in shard.dataset.batches(self.batch, skip_bad=True):
                bad.extend(batch.skipped)
                if len(batch):
                    yield batch.feed

        try:
            table = observer.observe(feeds(), before=shard.before)
        except UnreadableError as error:  # not one image of the shard
            return ShardResult(table=None, bad=error.bad)
        return ShardResult(table=table, bad=tuple(bad))


def shards_of(dataset: Dataset, *, batch: int, samples: int | None) -> tuple[Shard, ...]:
    """Return the shards of ``samples`` images, evenly spread over the data set (of all without that)."""
    indices = spread(len(dataset), samples)
    size = batch * max(1, _IMAGES // batch)
    return tuple(
        Shard(dataset=dataset.subset(indices[start : start + size]), before=start)
        for start in range(0, len(indices), size)
    )


def name_all_bad(batches: Iterable[object], bad: Sequence[BadImage], total: int) -> NoReturn:
    """Raise the error that names the bad images of all shards, by reading all of them.

    Args:
        batches: The images of all shards; reading them raises it.
        bad: The bad images of one shard.
        total: The number of images.

    Raises:
        DataError: In any case.
    """
    for _ in batches:
        pass
    raise UnreadableError(bad, total)  # the images have been mended in the meantime
