"""What about a row's times should make a reader careful: outliers, drift, throttling.

Outliers: within a round, a call is one if its modified z-score (Iglewicz and Hoaglin 1993, "How to Detect and Handle
Outliers")

    0.6745 · |x − median| / median(|x − median|)

is above 14.826, ten standard deviations of normal noise and hyperfine's bound. One in ten thousand calls, when the
system did something else, is no news; a row says so from one call in a hundred on.

Drift: the rounds become slower or faster beyond chance, which is Mann's test of a trend (Mann 1945, "Nonparametric
Tests Against Trend"; two-sided, p < 0.01), and by 5 % or more from the first third of them to the last.

Throttling: the processor's clock, where the system tells it, in the last quarter of the rounds is 5 % or more below
that of the first.
"""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["clock_mhz", "flags", "outliers", "trend"]

_Z = 14.826
_TO_SIGMA = 0.6745
_SHARE_OF_OUTLIERS = 0.01
_TREND_Z = 2.576  # of the normal distribution, for p = 0.01
_DRIFT = 0.05
_THROTTLED = 0.05
_FEWEST_ROUNDS = 8  # of fewer, no order is beyond chance at 1 %, or nearly none


def flags(rounds: Sequence[Sequence[float]], clocks: Sequence[float | None] = ()) -> tuple[str, ...]:
    """Return sentences for the reader of a row; none if there is nothing to say.

    Args:
        rounds: Seconds per call, round by round.
        clocks: The clock after each round in MHz, where known.
    """
    sentences = []
    calls = sum(map(len, rounds))
    strange = sum(outliers(block) for block in rounds)
    if strange and strange >= _SHARE_OF_OUTLIERS * calls:
        sentences.append(
            "one call in a hundred, or more, took far longer or shorter than the others of its round; "
            "other programs may have run."
        )
    change = trend([median(block) for block in rounds])
    if change is not None:
        direction = "slower" if change > 0 else "faster"
        sentences.append(f"calls became {abs(change):.0%} {direction} while measuring: the machine drifted.")
    fall = _fall([clock for clock in clocks if clock])
    if fall >= _THROTTLED:
        sentences.append(f"the processor's clock fell by {fall:.0%} while measuring: it was throttled.")
    return tuple(sentences)


def outliers(seconds: Sequence[float]) -> int:
    """Count the calls of a round that are far off its median; none among fewer than five."""
    if len(seconds) < 5:
        return 0
    distances = np.abs(np.asarray(seconds) - np.median(seconds))
    spread = float(np.median(distances))
    if spread == 0:  # half of the calls took the same time to the last bit: a clock of coarse ticks
        return 0
    return int((_TO_SIGMA * distances / spread > _Z).sum())


def trend(medians: Sequence[float]) -> float | None:
    """Return by which fraction rounds became slower (or faster, below 0); ``None`` if not beyond chance, or little."""
    n = len(medians)
    if n < _FEWEST_ROUNDS:
        return None
    values = np.asarray(medians)
    score = float(np.sign(values[None, :] - values[:, None])[np.triu_indices(n, 1)].sum())
    deviation = math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    third = n // 3
    change = median(medians[-third:]) / median(medians[:third]) - 1
    if abs(score) - 1 <= _TREND_Z * deviation or abs(change) < _DRIFT:
        return None
    return change


def clock_mhz(cores: Iterable[int], *, root: Path = Path("/")) -> float | None:
    """Return the mean clock of these cores now, in MHz, where Linux tells it."""
    numbers = set(cores)
    folder = root / "sys/devices/system/cpu"
    try:
        clocks = [int((folder / f"cpu{core}/cpufreq/scaling_cur_freq").read_text()) / 1e3 for core in numbers]  # in kHz
    except (OSError, ValueError):
        clocks = _clocks_of_cpuinfo(numbers, root / "proc/cpuinfo")
    return sum(clocks) / len(clocks) if clocks else None


def _clocks_of_cpuinfo(cores: set[int], cpuinfo: Path) -> list[float]:
    """Return the clocks of these cores in MHz, as x86 lists them there."""
    clocks, core = [], -1
    try:
        for line in cpuinfo.read_text().splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            if key == "processor":
                core = int(value)
            elif key == "cpu MHz" and core in cores:
                clocks.append(float(value))
    except (OSError, ValueError):
        return []
    return clocks


def _fall(clocks: Sequence[float]) -> float:
    """Return the share of itself by which the clock fell; 0 for too few rounds."""
    if len(clocks) < _FEWEST_ROUNDS:
        return 0.0
    quarter = len(clocks) // 4
    return 1 - median(clocks[-quarter:]) / median(clocks[:quarter])
