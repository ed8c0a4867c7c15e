from __future__ import annotations

import pytest

import rexport.models
from rexport.models import find
from tests._deep import deep
from tests.cli._run import run, run_json


@pytest.fixture(params=["some", *deep("all")])
def listed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the networks that there are."""
    if request.param == "some":
        some = tuple(map(find, ("resnet18", "resnet50", "cifar_resnet20")))
        monkeypatch.setattr("rexport.models.networks", lambda: some)
    return [network.name for network in rexport.models.networks()]


def test_the_table_has_every_network_and_the_papers_numbers(listed: list[str]) -> None:
    lines = run("models").splitlines()
    assert lines[1].split() == ["network", "depth", "parameters", "MACs", "input", "arXiv"]
    rows = {line.split()[0]: line.split()[1:5] for line in lines[3:] if line.strip()}
    assert list(rows) == listed
    assert rows["resnet50"] == ["50", "25.56M", "4.09G", "224×224"]
    assert rows["cifar_resnet20"] == ["20", "0.27M", "40.55M", "32×32"]


def test_one_network_is_shown_stage_by_stage() -> None:
    lines = [line.split() for line in run("models resnet50").splitlines() if line.strip()]
    assert lines[0] == ["resnet50:", "ResNet", "(1512.03385),", "input", "3×224×224"]
    assert lines[3:] == [
        ["conv1", "64×112×112", "9,536", "118.01M"],
        ["layer1", "256×56×56", "3", "0.22M", "667.94M"],
        ["layer2", "512×28×28", "4", "1.22M", "1.03G"],
        ["layer3", "1024×14×14", "6", "7.10M", "1.46G"],
        ["layer4", "2048×7×7", "3", "14.96M", "809.24M"],
        ["fc", "1000", "2.05M", "2.05M"],
        ["total", "25.56M", "4.09G"],
    ]


def test_json_is_one_document_with_the_promised_keys(listed: list[str]) -> None:
    document = run_json("models")
    assert document["schema"] == "rexport.models/1"
    assert [network["name"] for network in document["networks"]] == listed
    assert document["networks"][0] == {
        "name": "resnet18",
        "depth": 18,
        "parameters": 11_689_512,
        "macs": 1_814_073_344,
        "input_size": 224,
        "paper": "ResNet (1512.03385)",
    }


def test_json_of_one_network_has_its_stages() -> None:
    (network,) = run_json("models cifar_resnet8")["networks"]
    assert network["name"] == "cifar_resnet8"
    assert [stage["name"] for stage in network["stages"]] == ["conv1", "layer1", "layer2", "layer3", "fc"]
    assert sum(stage["macs"] for stage in network["stages"]) == network["macs"]
