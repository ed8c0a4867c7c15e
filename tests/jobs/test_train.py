"""Training from Python: what goes together, and what is said and returned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rexport._errors import UsageError
from rexport.jobs.train import TrainRequest, run
from rexport.preprocessing import PictureOptions
from tests.training._images import write_images

_WEIGHTS = Path("old.safetensors")
_QAT = Path("data/train")


def _request(folder: Path = Path(), **changes: Any) -> TrainRequest:
    given = {"network": "cifar_resnet8", "data": folder / "data", "output": folder / "w.safetensors"}
    return TrainRequest(**given | changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"output": Path("w.pth")}, "let the name end in .safetensors"),
        ({"freeze_backbone": True}, "pass --weights FILE too"),
        ({"qat": _QAT}, "pass --weights FILE too"),
        ({"target": "x86"}, "pass --qat DIR too"),
        ({"qat": _QAT, "weights": _WEIGHTS, "freeze_backbone": True}, "leave --freeze-backbone out"),
        ({"qat": _QAT, "weights": _WEIGHTS, "precision": "bf16"}, "leave --precision bf16 out"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        _request(**changes)


def test_only_with_qat_there_is_an_int8_file() -> None:
    assert _request(weights=_WEIGHTS, freeze_backbone=True, precision="bf16").int8 is None
    assert _request(weights=_WEIGHTS, qat=_QAT).int8 == Path("w.int8.onnx")


def test_what_is_said_and_returned(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    write_images(tmp_path / "data" / "train", count=4)
    write_images(tmp_path / "data" / "test", count=2, seed=1)
    said: list[str] = []
    result = run(_request(tmp_path, epochs=2, batch=8, threads=1), say=said.append)
    assert said[0].startswith("cifar_resnet8 on 8 images of 2 classes, 4 test images; 2 epochs of onecycle at 0.1, ")
    assert [line[:14] for line in said[1:]] == ["epoch   1 of 2", "epoch   2 of 2"]
    assert (result.images, result.test_images, len(result.epochs)) == (8, 4, 2)
    document = json.loads(json.dumps(result.to_json()))
    assert (document["recipe"], document["classes"], document["int8"]) == ("onecycle", ["blue", "red"], None)
    assert document["images"] == 8  # the number of them, not the fingerprint
    assert not {"weight_decay", "preprocessing", "qat"} & document.keys()


def test_a_network_of_grey_pictures_is_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_images(tmp_path / "data" / split, count=1)
    with pytest.raises(UsageError, match="takes pictures of 1 channel, and `rexport train` trains networks of 3"):
        run(_request(tmp_path, network="tests.cli._own:grey", options=PictureOptions(size=32)))
