from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests._products import Products

if TYPE_CHECKING:
    from pathlib import Path


def test_a_product_is_made_once_for_each_key(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("content")

    workers = [Products(tmp_path / "products") for _ in range(2)]
    folders = [worker.folder("a", 1, make=make) for worker in workers]
    assert folders[0] == folders[1]
    assert (folders[0] / "file").read_text() == "content"
    assert workers[0].folder("a", 2, make=make) != folders[0]
    assert len(made) == 2


def test_who_comes_while_it_is_made_waits(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def make(folder: Path) -> None:
        begun.set()
        assert go_on.wait(60)
        (folder / "file").touch()

    first = threading.Thread(target=lambda: Products(tmp_path / "products").folder("a", make=make))
    first.start()
    assert begun.wait(60)
    found: list[bool] = []
    second = threading.Thread(
        target=lambda: found.append((Products(tmp_path / "products").folder("a", make=make) / "file").exists())
    )
    second.start()
    go_on.set()
    for thread in (first, second):
        thread.join(60)
    assert found == [True]


def test_what_could_not_be_made_is_tried_again(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("full")

    products = Products(tmp_path / "products")
    with pytest.raises(OSError, match="full"):
        products.folder("a", make=fail)
    whole = products.folder("a", make=lambda folder: (folder / "whole").touch())
    assert [path.name for path in whole.iterdir()] == ["whole"]


def test_a_value_is_made_once_and_given_in_copies(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> list[int]:
        made.append(1)
        return [1, 2]

    products = Products(tmp_path / "products")
    first, second = (products.value("a", make=make) for _ in range(2))
    assert first == second == [1, 2]
    assert first is not second
    assert made == [1]
