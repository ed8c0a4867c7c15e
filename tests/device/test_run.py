"""``run``: what the agent says of pictures, good and bad."""

from __future__ import annotations

import platform
import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from rexport.deploy.golden import npy
from rexport.device import _self_check, _worker_process
from rexport.device._errors import UnusableError
from rexport.device._install import install, load
from rexport.device._manifest import Target
from rexport.device._self_check import classify
from rexport.device._target import _advice
from rexport.device._worker_process import Bounds, WorkerError, answers_of_worker
from rexport.model_file import to_bytes
from tests.deploy._bundles import probabilities
from tests.faults.vendor import archive, passed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rexport.device._self_check import Version
    from rexport.device._state import Device
    from tests.faults.vendor import Vendor

_PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.fixture
def version(vendor: Vendor, device: Device) -> Version:
    install(device, archive(vendor.bundle()), check=passed)
    return load(device)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Two good pictures around one that is cut off."""
    paths = [tmp_path / name for name in ("first.npy", "broken.png", "last.npy")]
    for path in (paths[0], paths[2]):
        np.save(path, _PIXELS)
    paths[1].write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return paths


@pytest.mark.parametrize("stated", ["softmax", None])
def test_probabilities_of_the_model_are_shown_as_they_are(
    tmp_path: Path, vendor: Vendor, device: Device, stated: str | None
) -> None:
    """Without a head in the manifest, as older ones are, the golden scores tell."""
    model = to_bytes(probabilities())
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    given = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    (scores,) = session.run(None, {"x": given})[0]
    np.save(tmp_path / "ready.npy", given)

    def state(manifest: dict[str, Any]) -> None:
        manifest["head"] = stated
        if stated is None:
            del manifest["head"]

    install(device, archive(vendor.bundle(1, state, model=model, logits=npy(scores[np.newaxis]))), check=passed)
    (result,) = classify(load(device), [tmp_path / "ready.npy"])
    shown = [top["probability"] for top in result["top"]]
    assert shown == pytest.approx(sorted(scores, reverse=True), rel=1e-6)


@pytest.mark.slow
def test_a_bad_picture_costs_no_other_its_result(
    pictures: list[Path], version: Version, agent: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    assert version.manifest.head == "logits"
    code, answer = agent("run", *pictures)
    first, broken, last = answer["results"]
    assert code == 1
    assert (first["error"], last["error"], first["top"]) == (None, None, last["top"])
    assert len(first["top"]) == 4
    assert broken["top"] == []
    assert broken["error"] == f"{pictures[1]}: is not an image that Pillow knows"


def test_a_picture_that_ends_the_worker_costs_no_other_its_result(
    pictures: list[Path], version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crashing(question: dict[str, Any], bounds: object, count: int) -> Iterator[dict[str, Any]]:
        yield {"version": "1"}
        for image in question["images"]:
            if "broken" in image:
                raise WorkerError("it crashed with SIGSEGV")
            yield {"top": [image], "why_not": None}

    monkeypatch.setattr(_self_check, "answers_of_worker", crashing)
    first, broken, last = classify(version, pictures)
    assert (first["top"], last["top"]) == ([str(pictures[0])], [str(pictures[2])])
    assert broken["error"] == f"{pictures[1]}: can't be classified (it crashed with SIGSEGV)"


def test_each_answer_has_the_time_of_the_self_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six that take half a second each, where each may take two."""
    slow = "import time\nfor index in range(6):\n time.sleep(0.5)\n print('{\"picture\": %d}' % index, flush=True)"
    monkeypatch.setattr(_worker_process, "_command", lambda: [sys.executable, "-S", "-c", slow])
    answers = answers_of_worker({}, Bounds(2, 1024), 6)
    assert [answer["picture"] for answer in answers] == list(range(6))
    with pytest.raises(WorkerError, match=r"not done after 0\.25 s"):
        list(answers_of_worker({}, Bounds(0.25, 1024), 6))


def test_a_model_that_does_not_load_is_no_fault_of_the_pictures(
    pictures: list[Path], vendor: Vendor, device: Device
) -> None:
    install(device, archive(vendor.bundle(1, model=b"\x08 this is no model")), check=passed)
    with pytest.raises(UnusableError, match="tiny 1 can't classify"):
        classify(load(device), pictures)


@pytest.mark.parametrize(
    ("python", "spec", "words"),
    [
        ((3, 8), ">=1.20", "ONNX Runtime 1.19.2 is the newest there is, so install a newer Python"),
        ((3, 10), ">=1.24", "ONNX Runtime 1.23.2 is the newest"),
        ((3, 8), ">=1.18", "^install it$"),
        ((3, 14), ">=1.24", "^install it$"),
    ],
)
def test_advice_can_be_followed(python: tuple[int, int], spec: str, words: str) -> None:
    target = Target(machines=[platform.machine()], runtimes={"onnxruntime": [spec]})
    assert re.search(words, _advice(target, python))
