from __future__ import annotations

from functools import partial

from rexport.runtimes._last_shapes import LastShapes


def test_the_last_four_are_kept_and_what_was_used_longest_ago_makes_room() -> None:
    made, freed = list[int](), list[str]()
    shapes = LastShapes[int, str]()

    def make(shape: int) -> str:
        made.append(shape)
        return f"of {shape}"

    for shape in (1, 2, 3, 4, 1, 5):
        shapes.at(shape, partial(make, shape), free=freed.append)
    assert made == [1, 2, 3, 4, 5]
    assert freed == ["of 2"]
    assert dict(shapes) == {3: "of 3", 4: "of 4", 1: "of 1", 5: "of 5"}
