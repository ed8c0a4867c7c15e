"""Filling the weights of an ONNX file into an engine that was built without them.

A stripped engine is small, and secret weights can travel apart; it computes nothing before they are filled in, which
takes the GPU that it is for. Written against NVIDIA's documentation (``IRefitter``, ``IParserRefitter``); not run on a
GPU yet.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rexport._errors import ModelFileError, UsageError
from rexport._files import file_sha256
from rexport._onnx_proto import name_nodes
from rexport._progress import Progress, silent
from rexport.engine.build import BuiltEngine
from rexport.engine.process import run_worker
from rexport.engine.rules import follow_rules
from rexport.engine_file import read_facts, read_intact
from rexport.model_file import load, to_bytes

if TYPE_CHECKING:
    from rexport.engine_file import EngineFacts

__all__ = ["refit_engine"]


def refit_engine(engine: Path, model: Path, *, command: str = "", progress: Progress = silent) -> BuiltEngine:
    """Return a stripped engine with the weights of the ONNX file that it was built from.

    Args:
        engine: The stripped engine, with the file beside it.
        model: The ONNX file.
        command: The command to record in the facts.
        progress: Shows that work goes on.

    Raises:
        EngineFileError: The engine is damaged, or there is no file beside it.
        UsageError: The engine has its weights.
        ModelFileError: It was built from another ONNX file.
        UnavailableError: There is no GPU, or TensorRT is missing, of another version, or does not take the weights.
    """
    facts = read_facts(engine)
    stripped = read_intact(engine, facts)
    _require_source(engine, facts, model)
    prepared, _ = follow_rules(load(model))  # as it was built
    name_nodes(prepared)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(to_bytes(prepared))
        (folder / "stripped").write_bytes(stripped)
        start = time.perf_counter()
        options = {"backend": facts.backend, "version": facts.version}
        run_worker(folder, "refit", options, progress, doing="filling in weights")
        data = (folder / "engine").read_bytes()
        filled = replace(
            facts,
            sha256=hashlib.sha256(data).hexdigest(),
            bytes=len(data),
            seconds=time.perf_counter() - start,
            command=command,
            stripped=False,
        )
        return BuiltEngine(data=data, facts=filled)


def _require_source(engine: Path, facts: EngineFacts, model: Path) -> None:
    if not facts.stripped:
        raise UsageError(f"{engine} has its weights; --refit takes an engine that was built with --strip.")
    try:
        sha256 = file_sha256(model)
    except OSError as error:
        raise ModelFileError(f"{model} can't be read: {error.strerror}.") from error
    if sha256 != facts.onnx_sha256:
        raise ModelFileError(
            f"{engine} was built from {facts.onnx} (sha256 {facts.onnx_sha256[:12]}…), and {model} is another file "
            f"({sha256[:12]}…); give the one that it was built from, or build it again."
        )
