from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rexport._files import cache_folder
from rexport.tuning import AS_IT_IS, Conditions, ConvLayer, GroupForm, Timings

if TYPE_CHECKING:
    from pathlib import Path

LAYER = ConvLayer(
    inputs=16,
    outputs=16,
    groups=4,
    kernel=(3, 3),
    strides=(1, 1),
    pads=(1, 1, 1, 1),
    dilations=(1, 1),
    height=8,
    width=8,
    weights="int8",
    activations="uint8",
    can_split=True,
)
TWO, APART = GroupForm(merged=2), GroupForm(merged=2, branches=True)
HERE = Conditions(batch=1, threads=2, runtime="onnxruntime 1.0, CPU", cpu="a processor")


def test_what_is_kept_is_found_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "timings.json"
    Timings(path).keep(LAYER, HERE, {AS_IT_IS: 0.5, TWO: 0.25, APART: 0.125})
    Timings(path).keep(replace(LAYER, height=9), HERE, {AS_IT_IS: 1.0})
    assert Timings(path).find(LAYER, HERE) == {AS_IT_IS: 0.5, TWO: 0.25, APART: 0.125}


@pytest.mark.parametrize(
    "other", [{"batch": 8}, {"threads": 1}, {"runtime": "onnxruntime 1.1, CPU"}, {"cpu": "another"}]
)
def test_under_other_conditions_nothing_is_known(tmp_path: Path, other: dict[str, object]) -> None:
    timings = Timings(tmp_path / "timings.json")
    timings.keep(LAYER, HERE, {AS_IT_IS: 0.5})
    assert timings.find(LAYER, replace(HERE, **other)) == {}
    assert timings.find(replace(LAYER, kernel=(1, 1)), HERE) == {}


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "null", "\0", '{"schema": "rexport.layer-timings/1"}', '{"schema": "other/1", "entries": {}}'),
        *(json.dumps({"schema": "rexport.layer-timings/1", "entries": x}) for x in ([], {"k": {"a": 1}}, {"k": 1})),
    ],
)
def test_a_broken_file_is_measured_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "timings.json"
    path.write_text(content)
    timings = Timings(path)
    assert timings.find(LAYER, HERE) == {}
    timings.keep(LAYER, HERE, {AS_IT_IS: 0.5})
    assert timings.find(LAYER, HERE) == {AS_IT_IS: 0.5}


def test_a_folder_that_can_not_be_written_only_forgets(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    timings = Timings(tmp_path / "file" / "timings.json")
    timings.keep(LAYER, HERE, {AS_IT_IS: 0.5})
    assert timings.find(LAYER, HERE) == {}


def test_the_cache_is_where_users_have_theirs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REXPORT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "rexport"
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


@pytest.mark.parametrize("form", [AS_IT_IS, TWO, APART])
def test_a_form_is_read_as_it_was_written(form: GroupForm) -> None:
    assert GroupForm.parse(str(form)) == form


def test_simpler_forms_come_first() -> None:
    assert sorted([APART, TWO, AS_IT_IS]) == [AS_IT_IS, TWO, APART]
