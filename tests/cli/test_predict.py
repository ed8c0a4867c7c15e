"""``rexport predict``: what it prints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from PIL import Image

from tests._classifiers import write_colours
from tests.cli._run import invoke, run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_table_names_the_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_colours(tmp_path / "m.onnx")
    Image.new("RGB", (8, 8), (0, 0, 255)).save("sea.png")
    printed = run("predict m.onnx sea.png --top 2 --sheet sheet.png").splitlines()
    assert [line.split() for line in printed if "%" in line] == [["sea.png", "blue", "57.6", "%"], ["red", "21.2", "%"]]
    assert printed[-1] == "the pictures with their classes: sheet.png"
    assert json.loads(run("predict m.onnx sea.png --json"))["predictions"][0]["top"][0]["class"] == "blue"
    assert invoke("predict", "m.onnx", "lost.png").exit_code == 2
