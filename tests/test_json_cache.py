from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from rexport._json_cache import JsonCache

if TYPE_CHECKING:
    from pathlib import Path


def _cache(path: Path, schema: str = "a/1") -> JsonCache:
    return JsonCache(path, schema=schema, check=int)


def test_entries_are_found_under_exactly_their_facts(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "c.json"
    _cache(path).keep({"cpu": "x", "threads": 2}, 7)
    _cache(path).keep({"cpu": "x", "threads": 1}, 8)
    assert _cache(path).find({"threads": 2, "cpu": "x"}) == 7
    assert _cache(path).find({"cpu": "x"}) is None
    _cache(path).keep({"cpu": "x", "threads": 2}, 9)
    assert _cache(path).find({"cpu": "x", "threads": 2}) == 9
    assert _cache(path, schema="a/2").find({"cpu": "x", "threads": 2}) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "a/1"}', '{"schema": "a/1", "entries": {"{}": "x"}}'])
def test_what_can_not_be_read_is_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)
    assert _cache(path).find({}) is None
    _cache(path).keep({}, 7)
    assert json.loads(path.read_text()) == {"schema": "a/1", "entries": {"{}": 7}}


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = _cache(tmp_path / "file" / "c.json")
    cache.keep({}, 7)
    assert cache.find({}) is None
