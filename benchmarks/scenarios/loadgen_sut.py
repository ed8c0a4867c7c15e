"""A system under test on MLPerf's LoadGen (``mlperf_loadgen``), which issues the queries and judges the run.

LoadGen calls back from threads of its own; they only put samples in a queue. The thread beside takes them out, up to a
batch at a time and without waiting for more, as the server of this package does.
"""

from __future__ import annotations

import json
import queue
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport._errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from rexport.benchmarks.scenarios.worker import SystemUnderTest

__all__ = ["MISSING", "parse_log", "run_under_loadgen"]

MISSING = "MLPerf's LoadGen is not installed; install it with `pip install 'rexport[loadgen]'`."
_LIBRARY = 1024  # samples that LoadGen draws from; the images behind them go round
_MARK = ":::MLLOG "


def run_under_loadgen(sut: SystemUnderTest, *, scenario: str, settings: dict[str, float]) -> dict[str, Any]:
    """Let LoadGen run a scenario in performance mode.

    Args:
        sut: What answers.
        scenario: ``SingleStream``, ``Offline`` or ``Server``.
        settings: Attributes of LoadGen's ``TestSettings``.

    Returns:
        The entries of its detailed log, by key.

    Raises:
        UnavailableError: LoadGen is not installed.
        Exception: Whatever the model raised.
    """
    try:
        import mlperf_loadgen as loadgen
    except ImportError as error:
        raise UnavailableError(MISSING) from error
    test_settings = loadgen.TestSettings()
    test_settings.scenario = getattr(loadgen.TestScenario, scenario)
    test_settings.mode = loadgen.TestMode.PerformanceOnly
    for name, value in settings.items():
        setattr(test_settings, name, value)
    answering = _Answering(sut, loadgen)
    with tempfile.TemporaryDirectory(prefix="rexport-loadgen-") as folder:
        system = loadgen.ConstructSUT(answering.take, lambda: None)
        library = loadgen.ConstructQSL(_LIBRARY, _LIBRARY, lambda indices: None, lambda indices: None)  # noqa: ARG005
        no_audit = str(Path(folder) / "no-audit.config")  # none of the current folder changes the settings
        try:
            loadgen.StartTestWithLogSettings(system, library, test_settings, _logs(loadgen, folder), no_audit)
        finally:
            loadgen.DestroyQSL(library)
            loadgen.DestroySUT(system)
            answering.end()
        if answering.failure is not None:
            raise answering.failure
        return parse_log((Path(folder) / "mlperf_log_detail.txt").read_text())


def _logs(loadgen: ModuleType, folder: str) -> Any:
    logs = loadgen.LogSettings()
    logs.log_output = loadgen.LogOutputSettings()
    logs.log_output.outdir = folder
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = False
    return logs


def parse_log(text: str) -> dict[str, Any]:
    """Return the entries of ``mlperf_log_detail.txt`` by key, the last of each; errors are listed under ``errors``."""
    entries: dict[str, Any] = {"errors": []}
    for line in text.splitlines():
        if not line.startswith(_MARK):
            continue
        try:
            entry = json.loads(line.removeprefix(_MARK))
        except json.JSONDecodeError:  # messages of others, quoted without escapes
            continue
        if entry["metadata"]["is_error"]:
            entries["errors"].append(str(entry["value"]))
        else:
            entries[entry["key"]] = entry["value"]
    return entries


class _Answering:
    """The thread that answers what LoadGen issues."""

    def __init__(self, sut: SystemUnderTest, loadgen: ModuleType) -> None:
        self.failure: Exception | None = None
        self._sut = sut
        self._loadgen = loadgen
        self._waiting: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def take(self, samples: Sequence[Any]) -> None:
        """Queue what LoadGen issues: all samples of an offline run at once, single ones otherwise."""
        for sample in samples:
            self._waiting.put((sample.id, sample.index))

    def end(self) -> None:
        """Wait for the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _answer(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while len(batch) < self._sut.batch and not self._waiting.empty():
                following = self._waiting.get()
                if following is None:
                    self._waiting.put(None)
                    break
                batch.append(following)
            if self.failure is None:
                try:
                    self._sut.run_images(np.array([index for _, index in batch]))
                except Exception as error:  # each runtime raises its own; LoadGen has to be answered all the same
                    self.failure = error
            # in performance mode it looks at no answer, only at when it comes
            self._loadgen.QuerySamplesComplete([self._loadgen.QuerySampleResponse(id_, 0, 0) for id_, _ in batch])
