"""What a model is given, cut into batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexport._errors import UnavailableError
from rexport.feeds import by_name, examples_in, first_examples, in_batches, is_function, one_array


@given(count=st.integers(1, 20), size=st.none() | st.integers(1, 9))
def test_batches_have_all_inputs_of_their_examples(count: int, size: int | None) -> None:
    feed = {"a": np.arange(count), "b": 10 * np.arange(count)[:, None]}
    parts = list(in_batches(feed, size))
    assert {examples_in(part) for part in parts} == {size or count}
    for name, array in feed.items():
        joined = np.concatenate([by_name(part, ["a", "b"])[name] for part in parts])
        np.testing.assert_array_equal(joined[:count], array)
        np.testing.assert_array_equal(joined[count:], np.repeat(array[-1:], len(joined) - count, axis=0))


def test_a_feed_of_one_input_is_its_array() -> None:
    array = np.zeros((3, 2))
    assert by_name(array, ["x"])["x"] is array
    assert one_array(array) is array
    assert examples_in(np.array(1.0)) == 1
    two = {"a": array, "b": array}
    few = first_examples(two, 2)
    assert isinstance(few, dict)
    assert {name: len(part) for name, part in few.items()} == {"a": 2, "b": 2}
    with pytest.raises(UnavailableError, match="inputs a, b"):
        one_array(two)


def test_a_function_is_named_with_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_function("my.data:load")
    assert not is_function("my/data:load")
    assert not is_function("hub:timm/resnet50")
    (tmp_path / "a:b").write_text("")
    assert not is_function(Path("a:b"))
