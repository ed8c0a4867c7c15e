from __future__ import annotations

from tests.faults.concurrency import Remembered, orders_that_give

_BEGIN = Remembered(2, 1, 2)
_VERBS = (3, 4, None)  # install 3, install 4, rollback


def test_every_order_ends_somewhere() -> None:
    assert orders_that_give(Remembered(4, 3, 4), _BEGIN, _VERBS, (True, True, True)) == [(None, 3, 4)]
    assert orders_that_give(Remembered(3, 4, 4), _BEGIN, _VERBS, (True, True, True)) == [(3, 4, None)]
    assert orders_that_give(Remembered(2, 4, 4), _BEGIN, _VERBS, (False, True, True)) == [(4, 3, None), (4, None, 3)]


def test_a_mixture_is_none_of_them() -> None:
    assert orders_that_give(Remembered(4, 2, 3), _BEGIN, _VERBS, (True, True, True)) == []
    assert orders_that_give(Remembered(4, 3, 4), _BEGIN, _VERBS, (False, True, True)) == []  # 3 failed, and is there
    assert orders_that_give(Remembered(2, 1, 2), _BEGIN, _VERBS, (False, True, False)) == []  # 4 succeeded, and is lost
