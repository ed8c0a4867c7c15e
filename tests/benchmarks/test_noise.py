from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport.benchmarks.noise import clock_mhz, flags, outliers, trend

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(0)


def rounds(middles: list[float], *, noise: float = 0.01, calls: int = 12) -> list[list[float]]:
    random = np.random.default_rng(0)
    return [(middle * random.normal(1, noise, calls)).tolist() for middle in middles]


def test_a_quiet_row_has_no_flags() -> None:
    assert flags(rounds([0.01] * 20), [2600.0] * 20) == ()


def test_planted_outliers_are_counted() -> None:
    times = rounds([0.01] * 10)
    times[3][2] = times[7][5] = 0.05
    assert sum(map(outliers, times)) == 2
    (flag,) = flags(times)
    assert "one call in a hundred, or more" in flag


def test_one_outlier_in_many_calls_is_no_news() -> None:
    times = rounds([0.01] * 10, calls=100)
    times[3][2] = 0.05
    assert sum(map(outliers, times)) == 1
    assert flags(times) == ()


def test_calls_of_one_time_by_a_coarse_clock_are_no_outliers() -> None:
    assert outliers([0.01] * 9 + [0.02]) == 0


@pytest.mark.slow
@given(st.lists(st.floats(0.9, 1.1), min_size=5, max_size=30), st.floats(1e-6, 1e3))
def test_outliers_do_not_depend_on_the_unit(seconds: list[float], unit: float) -> None:
    spread = np.median(np.abs(np.array(seconds) - np.median(seconds)))
    scores = 0.6745 * np.abs(np.array(seconds) - np.median(seconds))
    if spread > 1e-6 and np.all(np.abs(scores / spread - 14.826) > 1e-3):
        assert outliers(seconds) == outliers([second * unit for second in seconds])


@pytest.mark.parametrize(("change", "words"), [(0.15, "slower"), (-0.15, "faster")])
def test_a_drift_is_flagged(change: float, words: str) -> None:
    (flag,) = flags(rounds([0.01 * (1 + change * index / 19) for index in range(20)]))
    assert words in flag


def test_noise_is_no_drift() -> None:
    found = [trend(RANDOM.normal(1, 0.1, 20).tolist()) for _ in range(300)]
    assert sum(one is not None for one in found) <= 9  # 1 % of chance: 3 expected, and 9 are 3.5 deviations more


def test_a_little_drift_and_few_rounds_say_nothing() -> None:
    assert trend([1 + 0.001 * index for index in range(20)]) is None  # 2 %
    assert trend([1.0, 2.0, 3.0, 4.0]) is None


def test_a_falling_clock_is_flagged() -> None:
    (flag,) = flags(rounds([0.01] * 20), [3000.0] * 10 + [2400.0] * 10)
    assert "fell by 20%" in flag
    assert flags(rounds([0.01] * 20), [None] * 20) == ()


def test_clocks_are_read_where_linux_tells_them(tmp_path: Path) -> None:
    assert clock_mhz([0], root=tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\ncpu MHz\t: 1000.5\n\nprocessor\t: 1\ncpu MHz\t: 3000.0\n")
    assert clock_mhz([0, 1], root=tmp_path) == pytest.approx(2000.25)
    for core, khz in enumerate((2_000_000, 2_400_000)):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{khz}\n")
    assert clock_mhz([0, 1], root=tmp_path) == 2200
    assert clock_mhz([1], root=tmp_path) == 2400
