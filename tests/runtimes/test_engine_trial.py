"""Trying engines out in another process: real ones up to where a GPU is needed, crashes and hangs on the stand-in."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rexport._errors import EngineFileError, UnavailableError
from rexport.engine_file import facts_path, read_facts, read_intact
from rexport.runtimes import default_runtime, open_runtime
from rexport.runtimes.engine import TensorRtEngine
from rexport.runtimes.engine_trial import Limits, try_out
from rexport.runtimes.probes import probe
from rexport.runtimes.source import Source
from tests.runtimes._engines import change_facts, describe, tiny_images, write_stand_in
from tests.runtimes._files import on_cpu

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtimes._engines import StandIns


def _open(path: Path) -> None:
    source = Source(path=path)
    with open_runtime(default_runtime(source), source):
        pass


def _with_version(path: Path, version: tuple[int, int, int, int]) -> None:
    """Make an engine one of another version, its header and what lies beside it included."""
    import hashlib

    data = bytearray(path.read_bytes())
    data[24:28] = struct.pack("4B", *version)
    path.write_bytes(data)
    change_facts(path, version=".".join(map(str, version)), sha256=hashlib.sha256(data).hexdigest())


def test_an_engine_of_another_version(own_rtx_engine: Path) -> None:
    _with_version(own_rtx_engine, (1, 6, 0, 99))
    with pytest.raises(
        UnavailableError,
        match=r"built by TensorRT for RTX 1\.6\.0\.99, and this device has 1\.7\.\S+: "
        r"run `rexport engine float\.onnx -o m\.engine` again",
    ):
        _open(own_rtx_engine)


def test_one_changed_byte(own_rtx_engine: Path) -> None:
    data = bytearray(own_rtx_engine.read_bytes())
    data[len(data) // 2] ^= 1
    own_rtx_engine.write_bytes(data)
    with pytest.raises(EngineFileError, match=r"is not the file that m\.engine\.json describes"):
        _open(own_rtx_engine)


def test_a_cut_off_engine(own_rtx_engine: Path) -> None:
    own_rtx_engine.write_bytes(own_rtx_engine.read_bytes()[:-1])
    with pytest.raises(EngineFileError, match=r"is not the file that m\.engine\.json describes"):
        _open(own_rtx_engine)


def test_a_text_file_called_engine(tmp_path: Path, own_rtx_engine: Path) -> None:
    text = tmp_path / "text.engine"
    text.write_text("no engine at all " * 20)
    with pytest.raises(EngineFileError, match="is no engine of a known format"):
        default_runtime(Source(path=text))
    own_rtx_engine.write_bytes(text.read_bytes())
    with pytest.raises(EngineFileError, match="is not the file that"):
        _open(own_rtx_engine)
    describe(text, backend="rtx", version="1.7.1.116", inputs=_SOME, outputs=_SOME)  # even if its hash is right
    with pytest.raises(EngineFileError, match="is no engine of a known format"):
        _open(text)


_SOME = ({"name": "images", "dtype": "float", "shape": [-1, 3, 8, 8]},)


def test_nothing_beside_it_or_garbage(own_rtx_engine: Path) -> None:
    beside = facts_path(own_rtx_engine)
    for text, words in (
        (None, r"There is no .*m\.engine\.json beside the engine"),
        ("{", "is not JSON"),
        ('{"schema": "rexport.engine/1"}', "missing required field"),
        ("\x00\x01\x02", "is not JSON"),
    ):
        beside.unlink(missing_ok=True)
        if text is not None:
            beside.write_text(text)
        with pytest.raises(EngineFileError, match=words):
            _open(own_rtx_engine)


def test_a_process_without_a_gpu_says_so(rtx_engine: Path) -> None:
    if probe("tensorrt-rtx-engine").usable:
        pytest.skip("there is a GPU")
    facts = read_facts(rtx_engine)
    with pytest.raises(UnavailableError, match=r"m\.engine needs an NVIDIA GPU"):
        try_out(rtx_engine, read_intact(rtx_engine, facts), facts)


def test_an_engine_is_tried_out_and_then_run(tmp_path: Path, stand_ins: StandIns) -> None:
    path, images = write_stand_in(tmp_path), tiny_images(5)
    with TensorRtEngine(Source(path=path)) as runtime:
        np.testing.assert_allclose(runtime.run(images), on_cpu(tmp_path / "float.onnx", images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("crash", r"trying it out failed\. Its process ended by SIGSEGV.* Build it again on this device"),
        ("null", r"tensorrt 10\.13\.0\.1 can't load the engine: Serialization assertion failed\."),
    ],
)
def test_what_goes_wrong_there_is_an_error_here(fault: str, words: str, tmp_path: Path, stand_ins: StandIns) -> None:
    path = write_stand_in(tmp_path)
    stand_ins.set(fault=fault)
    with pytest.raises(UnavailableError, match=words):
        TensorRtEngine(Source(path=path))


def test_a_hang_ends_in_time(tmp_path: Path, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_stand_in(tmp_path)
    stand_ins.set(fault="hang")
    start = time.monotonic()
    with pytest.raises(UnavailableError, match=r"trying it out failed\. It did not answer for 2 s"):
        TensorRtEngine(Source(path=path), limits=Limits(seconds=2))
    assert time.monotonic() - start < 30


@pytest.mark.slow
def test_memory_ends_too(tmp_path: Path, stand_ins: StandIns) -> None:
    path = write_stand_in(tmp_path)
    stand_ins.set(fault="greedy")
    with pytest.raises(UnavailableError, match=r"trying it out failed\. It took [\d,]+ MiB of memory, more than"):
        TensorRtEngine(Source(path=path), limits=Limits(memory_mib=500))


@pytest.mark.slow
def test_another_gpu_and_another_version_are_found_before_the_engine_is_touched(
    tmp_path: Path, stand_ins: StandIns
) -> None:
    path = write_stand_in(tmp_path)
    stand_ins.set(fault="crash", capability="75")  # whoever touched it would crash
    with pytest.raises(
        UnavailableError, match=r"for GPUs of compute capability 86, and Stand-in has 75: run `rexport engine m\.onnx "
    ):
        TensorRtEngine(Source(path=path))
    stand_ins.set(version="10.3.0")
    with pytest.raises(UnavailableError, match=r"built by TensorRT 10\.13\.0\.1, and this device has 10\.3\.0: run `"):
        TensorRtEngine(Source(path=path))


def test_an_engine_that_is_not_what_lies_beside_it(tmp_path: Path, stand_ins: StandIns) -> None:
    path = write_stand_in(tmp_path)
    change_facts(path, batch=[1, 4, 16])
    with pytest.raises(EngineFileError, match="does not match the file beside it"):
        TensorRtEngine(Source(path=path))


def test_without_a_limit_it_is_minutes() -> None:
    assert Limits().seconds >= 60
