from __future__ import annotations

from rexport import models


def test_imagenets_classes_are_in_the_order_of_the_outputs() -> None:
    names = models.imagenet_classes()
    assert len(names) == len(set(names)) == 1000
    assert all(name and name == name.strip() for name in names)
    # indices that the literature knows by heart
    known = {
        0: "tench",
        207: "golden retriever",
        281: "tabby",
        388: "giant panda",
        954: "banana",
        999: "toilet tissue",
    }
    assert {index: names[index] for index in known} == known
