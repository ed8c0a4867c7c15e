"""How far a model is from the limit: its multiply-accumulates per second, and their share of the machine's peak.

    GMAC/s        = images per second · multiply-accumulates per image / 10⁹
    share of peak = GMAC/s / the higher of the peaks for convolutions and for matrix products

A peak that a model exceeds is none: it was measured while the machine was slower, or on loads that the runtime likes
less. Then what the model reached is reported as what the peak is at the least, and no share is given for the models of
that runtime and precision, which could only be too high.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rexport.benchmarks.document import PeakPrecision
from rexport.benchmarks.outputs import Precision, precision_of
from rexport.benchmarks.peak import PEAK_RUNTIMES, measure_peaks
from rexport.cost import total_macs
from rexport.engine_file import is_engine
from rexport.model_file import load
from rexport.models import registry
from rexport.runtimes.source import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rexport._progress import Progress
    from rexport.benchmarks.document import Peak, Row

__all__ = ["Reached", "against_peaks", "cost_of", "peaks_for", "reached"]

_PRECISIONS = {Precision.INT8: PeakPrecision.INT8, Precision.FLOAT32: PeakPrecision.FLOAT32}


@dataclass(frozen=True, kw_only=True)
class Reached:
    """A measured row, as far as its limit depends on it.

    Attributes:
        runtime: Its name.
        threads: That it was given.
        precision: What the model multiplies; ``None`` where there is no peak for it, as for float16.
        macs: Multiply-accumulates per image; ``None`` if unknown.
        images_per_second: ``None`` where it was not measured.
        share_of_peak: ``None`` until it is compared with a peak, and where there is none.
    """

    runtime: str
    threads: int
    precision: PeakPrecision | None
    macs: int | None
    images_per_second: float | None
    share_of_peak: float | None = None

    @property
    def gmacs_per_second(self) -> float | None:
        """10⁹ multiply-accumulates per second; ``None`` where a factor is unknown."""
        if self.macs is None or self.images_per_second is None:
            return None
        return self.macs * self.images_per_second / 1e9

    def row_fields(self) -> dict[str, Any]:
        """Return the fields of the row."""
        return {
            "macs": self.macs,
            "gmacs_per_second": self.gmacs_per_second,
            "share_of_peak": self.share_of_peak,
        }

    def is_under(self, peak: Peak) -> bool:
        """Say whether a peak is of the same runtime, threads and precision."""
        subject = self.runtime, self.threads, self.precision
        return subject == (peak.runtime, peak.threads, peak.precision)


def cost_of(source: Source) -> tuple[int | None, PeakPrecision | None]:
    """Return the multiply-accumulates per image of a model, and the precision that its peak is of.

    Raises:
        ModelFileError: The file is no model of images.
        UsageError: There is no such network.
    """
    if source.path is None:
        return registry.find(str(source.network)).summary().macs, PeakPrecision.FLOAT32
    if is_engine(source.path):  # which does not tell
        return None, None
    model = load(source.path)
    return total_macs(model), _PRECISIONS.get(precision_of(model))


def reached(rows: Sequence[Row]) -> tuple[Reached, ...]:
    """Return what rows reached, in order; each model is examined once.

    Raises:
        ModelFileError: A file is no model of images.
    """
    costs = {name: cost_of(Source.parse(name)) for name in dict.fromkeys(row.model for row in rows)}
    return tuple(
        Reached(
            runtime=row.runtime,
            threads=row.threads,
            precision=costs[row.model][1],
            macs=costs[row.model][0],
            images_per_second=row.images_per_second,
        )
        for row in rows
    )


def peaks_for(rows: Sequence[Reached], *, again: bool, progress: Progress) -> tuple[Peak, ...]:
    """Measure, or remember, the peaks of all runtimes, threads and precisions of the rows that have times.

    Raises:
        UnavailableError: A runtime that has times does not run the loads.
    """
    subjects = dict.fromkeys(
        (row.runtime, row.precision, row.threads)
        for row in rows
        if row.runtime in PEAK_RUNTIMES and row.precision is not None and row.gmacs_per_second is not None
    )
    return tuple(
        peak
        for runtime, precision, threads in subjects
        if precision is not None
        for peak in measure_peaks(runtime, precision, threads=threads, again=again, progress=progress)
    )


def against_peaks(rows: Sequence[Reached], peaks: Sequence[Peak]) -> tuple[tuple[Reached, ...], tuple[Peak, ...]]:
    """Return the rows with their shares of the peak, and the peaks, raised to what a row reached where that is more."""
    judged = tuple(_at_least(peak, rows, peaks) for peak in peaks)
    return tuple(_with_share(row, judged) for row in rows), judged


def _at_least(peak: Peak, rows: Sequence[Reached], peaks: Sequence[Peak]) -> Peak:
    """Raise the highest peak of a runtime and precision to what a row reached."""
    same = [candidate for candidate in peaks if _subject(candidate) == _subject(peak)]
    highest = max(same, key=lambda candidate: candidate.gmacs_per_second)
    fastest = max((row.gmacs_per_second or 0.0 for row in rows if row.is_under(peak)), default=0.0)
    if peak is not highest or fastest <= peak.gmacs_per_second:
        return peak
    return replace(peak, gmacs_per_second=fastest, at_least=True, load="a model that was measured")


def _subject(peak: Peak) -> tuple[str, int, PeakPrecision]:
    return peak.runtime, peak.threads, peak.precision


def _with_share(row: Reached, peaks: Sequence[Peak]) -> Reached:
    own_peaks = [peak for peak in peaks if row.is_under(peak)]
    if row.gmacs_per_second is None or not own_peaks or any(peak.at_least for peak in own_peaks):
        return row
    return replace(row, share_of_peak=row.gmacs_per_second / max(peak.gmacs_per_second for peak in own_peaks))
