"""`rexport onnx` as a job: a network that takes no picture, from a function of the user's or tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import rexport
from rexport._errors import UsageError
from rexport.jobs.export import ExportRequest, run
from rexport.model_file import Head, Metadata, load
from rexport.preprocessing import PictureOptions

if TYPE_CHECKING:
    from collections.abc import Iterator


_CODE = """
import torch
from torch import nn

class Sum(nn.Module):
    def forward(self, a, b):
        return a + b

class Six(nn.Conv2d):
    def __init__(self):
        super().__init__(6, 2, 3)

class Maps(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 4, 3)

    def forward(self, x):
        return {"out": super().forward(x), "aux": x[:, :1]}

def pair():
    return torch.rand(2, 3), torch.rand(2, 3)

def fails():
    raise ValueError("no sound")
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("nets")
    (folder / "nets_with_examples.py").write_text(_CODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield "nets_with_examples"


def _request(network: str | nn.Module, tmp_path: Path, **settings: Any) -> ExportRequest:
    return ExportRequest(network=network, output=tmp_path / "m.onnx", **settings)


def test_a_function_gives_the_example(nets: str, tmp_path: Path) -> None:
    report = run(_request(f"{nets}:Sum", tmp_path, example=f"{nets}:pair"))
    document = report.to_json()
    assert [tensor["name"] for tensor in document["inputs"]] == ["a", "b"]
    assert document["head"] is None
    assert document["parity"]["batches"] == (2, 3, 1)
    metadata = Metadata.of(load(tmp_path / "m.onnx"))
    assert (metadata.network, metadata.preprocessing) == (f"{nets}:Sum", None)


def test_tensors_are_an_example_from_python(tmp_path: Path) -> None:
    module = nn.Bilinear(3, 4, 2)
    report = rexport.export(module, example=[torch.rand(2, 3), torch.rand(2, 4)], output=tmp_path / "m.onnx")
    assert "input1 float32 [batch, 3], input2 float32 [batch, 4]" in report.facts()["input"]
    rexport.export(module, example={"input1": torch.rand(2, 3), "input2": torch.rand(2, 4)}, output=tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"options": PictureOptions(size=32)}, "--size"),
        ({"options": PictureOptions(mean=(0.5,))}, "--mean"),
        ({"any_size": True}, "--any-size"),
        ({"raw_image": True}, "--raw-image"),
        ({"resize_in_graph": True}, "--resize-in-graph"),
        ({"head": Head.SOFTMAX}, "--head softmax"),
        ({"class_names": Path("names.txt")}, "--class-names"),
        ({"features": ("layer1",)}, "--features"),
    ],
)
def test_options_of_pictures_are_refused_with_an_example(settings: dict[str, Any], option: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--example exports all .*, and {option} is for"):
        _request("net", tmp_path, example="nets:pair", **settings)


@pytest.mark.parametrize(
    ("network", "example", "why"),
    [
        ("Sum", None, "does not run on a picture of .* export it with --example module:function"),
        ("Six", None, "does not run on a picture of .* export it with --example module:function"),
        ("Sum", "fails", r"nets_with_examples:fails fails \(ValueError: no sound\)"),
        ("Sum", "absent", "the module has no function 'absent'"),
    ],
)
def test_an_example_that_is_missing_is_told(
    network: str, example: str | None, why: str, nets: str, tmp_path: Path
) -> None:
    example = None if example is None else f"{nets}:{example}"
    with pytest.raises(UsageError, match=why):
        run(_request(f"{nets}:{network}", tmp_path, example=example))
    assert not list(tmp_path.iterdir())


def test_one_of_several_results_is_a_classifiers(nets: str, tmp_path: Path) -> None:
    said: list[str] = []
    report = run(_request(f"{nets}:Maps", tmp_path, options=PictureOptions(size=8)), note=said.append)
    assert [output["name"] for output in report.to_json()["outputs"]] == ["logits"]
    assert any(
        "returns out, aux; this is out, and --result NAME takes another, or --result out,aux all" in s for s in said
    )


def test_several_results_are_outputs(nets: str, tmp_path: Path) -> None:
    report = run(_request(f"{nets}:Maps", tmp_path, results=("aux", "out"), options=PictureOptions(size=8)))
    document = report.to_json()
    assert [(output["name"], output["shape"][1:]) for output in document["outputs"]] == [
        ("aux", [1, 8, 8]),
        ("out", [4, 6, 6]),
    ]
    assert (document["head"], document["features"]) == (None, ("aux", "out"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"features": ("layer1",)}, "--result means nothing with it"),
        ({"head": Head.SOFTMAX}, "--result out,aux gives no classes, so --head softmax"),
        ({"example": "nets:pair"}, "or the one that --result names"),
    ],
)
def test_what_does_not_go_with_several_results(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        _request("net", tmp_path, results=("out", "aux"), **settings)
