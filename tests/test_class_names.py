from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

import pytest

from rexport._errors import InputError
from rexport.class_names import read_class_names

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize(
    "text",
    [
        "a\nb c\nñ",
        "a\nb c\nñ\n",
        "a\r\nb c\r\nñ\r\n",
        "a\rb c\rñ",
        " a \n\nb c\nñ\n\n\n",
        '["a", "b c", "ñ"]',
        '\n["a","b c","ñ"]',
    ],
)
def test_only_names_are_names(tmp_path: Path, mark: bytes, text: str) -> None:
    (tmp_path / "names").write_bytes(mark + text.encode())
    assert read_class_names(tmp_path / "names") == ("a", "b c", "ñ")


def test_folders_are_sorted_and_hidden_ones_left_out(tmp_path: Path) -> None:
    for name in ("b", "a", ".cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    assert read_class_names(tmp_path) == ("a", "b")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff\xfea\x00", "is not text in UTF-8"),
        (b"[1]", "is not a list of names"),
        (b"[", "no list in JSON"),
        (None, "can't be read: No such file"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path: Path, data: bytes | None, why: str) -> None:
    if data is not None:
        (tmp_path / "names").write_bytes(data)
    with pytest.raises(InputError, match=why):
        read_class_names(tmp_path / "names")
