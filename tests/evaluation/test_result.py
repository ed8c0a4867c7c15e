"""Counts add up to the bit, in any order."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from rexport.evaluation.result import Counts, Evaluation

_SUM = st.floats(min_value=0, max_value=1e77).map(Fraction)  # as of squares of float32
_COUNTS = st.builds(
    lambda n, right, agreeing, signal, noise, pairs: Counts(
        images=n,
        top1=min(n, right),
        agreeing=min(n, agreeing),
        signal=signal,
        noise=noise,
        confusion=Counter(pairs),
    ),
    st.integers(1, 64),
    st.integers(0, 64),
    st.integers(0, 64),
    _SUM,
    _SUM,
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=20),
)


@given(st.lists(_COUNTS, min_size=1, max_size=12), st.randoms(use_true_random=False), st.integers(1, 11))
def test_any_split_in_any_order_is_the_same(parts: list[Counts], random: object, cut: int) -> None:
    whole = sum(parts, Counts())
    shuffled = list(parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sum(shuffled, Counts()) == whole
    assert sum(parts[cut:], Counts()) + sum(parts[:cut], Counts()) == whole
    assert whole.images == sum(part.images for part in parts)


def test_small_sums_beside_large_ones_are_not_lost() -> None:
    parts = [1e16, 1.0, -0.0, 1.0]  # in float64 1e16 + 1 is 1e16
    assert math.fsum(parts) == 1e16 + 2
    assert float(sum((Counts(noise=Fraction(part)) for part in parts), Counts()).noise) == 1e16 + 2


def test_what_counts_come_to() -> None:
    counts = Counts(
        images=200, top1=150, top5=190, reference_top1=160, agreeing=180, signal=Fraction(1000), noise=Fraction(1)
    )
    result = Evaluation.of(counts, classes=10, labelled=True, compared="logits", skipped=())
    assert (result.images, result.top1, result.top5) == (200, 0.75, 0.95)
    assert result.comparison is not None
    assert (result.comparison.agreement, result.comparison.reference_top1) == (0.9, 0.8)
    assert math.isclose(result.comparison.sqnr_db, 30)
    few = Evaluation.of(counts, classes=5, labelled=False, compared=None, skipped=())
    assert (few.top1, few.top5, few.comparison) == (None, None, None)


def test_classes_are_counted_from_labels_and_predictions() -> None:
    confusion = Counter({(0, 0): 8, (0, 2): 2, (2, 2): 5})
    counts = Counts(images=15, top1=13, confusion=confusion)
    result = Evaluation.of(counts, classes=3, labelled=True, compared=None, skipped=())
    assert [(row.index, row.images, row.right, row.accuracy) for row in result.classes] == [
        (0, 10, 8, 0.8),
        (1, 0, 0, None),
        (2, 5, 5, 1.0),
    ]
    unlabelled = Evaluation.of(Counts(images=15), classes=3, labelled=False, compared=None, skipped=())
    assert unlabelled.classes == ()


def test_the_worst_come_first() -> None:
    confusion = Counter({(0, 0): 4, (1, 0): 2, (1, 1): 2, (2, 2): 3, (2, 1): 3, (2, 0): 1})
    counts = Counts(images=15, top1=9, confusion=confusion)
    result = Evaluation.of(counts, classes=5, labelled=True, compared=None, skipped=())
    assert [(counts.index, counts.right, counts.images) for counts in result.worst_classes] == [
        (2, 3, 7),
        (1, 2, 4),
        (0, 4, 4),
    ]
    pairs = [(pair.images, pair.label, pair.prediction) for pair in result.confused_pairs]
    assert pairs == [(3, 2, 1), (2, 1, 0), (1, 2, 0)]
