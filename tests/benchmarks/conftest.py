from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

import onnx
import pytest

from rexport.runtimes import RUNTIMES

SAMPLE = Path(__file__).parent / "reports" / "sample.json"


@pytest.fixture
def sample() -> dict[str, Any]:
    """A benchmark's document with every part that reports show."""
    document: dict[str, Any] = json.loads(SAMPLE.read_text(encoding="utf-8"))
    return document


class MakeModel(Protocol):
    def __call__(
        self, name: str, *, batch: int | str = "N", size: int | str = 8, raw: bool = False, **metadata: str
    ) -> Path: ...


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Writes an ONNX file of one convolution on images, with ``metadata`` under rexport's keys."""

    def make(name: str, *, batch: int | str = "N", size: int | str = 8, raw: bool = False, **metadata: str) -> Path:
        kind = f"uint8[{batch}, {size}, {size}, 3] pixels" if raw else f"float[{batch}, 3, {size}, {size}] images"
        front = "planes = Transpose<perm = [0, 3, 1, 2]>(pixels)  images = Cast<to = 1>(planes)" if raw else ""
        model = onnx.parser.parse_model(f"""
            <ir_version: 9, opset_import: ["": 17]>
            tiny ({kind}) => (float[{batch}, 4] logits) {{
                {front}
                shape = Constant<value_ints = [4, 3, 3, 3]>()
                weight = ConstantOfShape<value = float[1] {{0.1}}>(shape)
                sums = Conv(images, weight)
                pooled = GlobalAveragePool(sums)
                logits = Flatten(pooled)
            }}""")
        onnx.helper.set_model_props(model, {f"rexport.{key}": value for key, value in metadata.items()})
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return make


_FAKES = """
import os, signal, time
import numpy as np
from types import SimpleNamespace

class Fake:
    def __init__(self, source, *, threads):
        self.calls = 0
    def run(self, images):
        return np.zeros((len(images), 4), np.float32)

class Hangs(Fake):
    def run(self, images):
        time.sleep(60)

class Crashes(Fake):
    signal = signal.SIGSEGV
    def run(self, images):
        self.calls += 1
        if self.calls > 12:  # when it is measured
            signal.raise_signal(self.signal)
        return super().run(images)

class IsKilled(Crashes):
    signal = signal.SIGKILL

class Device(Fake):
    kept = None
    def run_phases(self, images):
        return SimpleNamespace(upload=0.001, compute=0.002, download=0.0005)
    def keep(self, images):
        assert self.kept is None
        self.kept = images
    def run_kept(self):
        return self.run(self.kept)
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives workers runtimes that hang, crash, are killed, or have a device: what no real one does on purpose."""
    folder = tmp_path / "fakes"
    folder.mkdir()
    (folder / "fake_runtimes.py").write_text(_FAKES)
    names = {"hangs": "Hangs", "crashes": "Crashes", "is killed": "IsKilled", "device": "Device"}
    fakes = {name: f"fake_runtimes:{kind}" for name, kind in names.items()}
    # what Python runs at its start, in every process
    (folder / "sitecustomize.py").write_text(f"from rexport.runtimes import RUNTIMES\nRUNTIMES.update({fakes!r})\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    for name, factory in fakes.items():
        monkeypatch.setitem(RUNTIMES, name, factory)
