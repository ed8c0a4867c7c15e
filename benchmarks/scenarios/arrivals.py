"""When queries arrive: a Poisson process, whose gaps are independent and exponential.

    P(gap > t) = exp(−λ t),  mean 1/λ, variance 1/λ²

It is what independent users make together, and what MLPerf's server scenario prescribes.
"""

from __future__ import annotations

import numpy as np

__all__ = ["poisson_arrivals"]


def poisson_arrivals(rate: float, count: int, *, seed: int) -> np.ndarray:
    """Return the moments of ``count`` arrivals at ``rate`` per second, in seconds from the start, ascending.

    The same seed gives the same gaps at every rate, stretched: of two trials, the one at the lower rate is the easier
    one then, which a search by bisection relies on.

    Example:
        >>> slow, fast = poisson_arrivals(10, 4, seed=1), poisson_arrivals(20, 4, seed=1)
        >>> bool(np.allclose(slow, 2 * fast))
        True
    """
    gaps = np.random.default_rng(seed).exponential(1.0, count)
    return np.asarray(np.cumsum(gaps) / rate)
