"""Gives changed bundles to the agent, in this process, and watches what it hands on to anyone.

    python -m tests.faults._tampering_worker ROOT BUNDLE FIRST END STEP

Case *k* of a bundle of *n* bytes is, for ``k < n``, byte *k* changed, and beyond, the first ``k - n`` bytes alone. Each
line on stdout is the JSON object of one case; ``problem`` is ``null`` where the agent refused it and nothing else saw
it.
"""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from rexport.device.command_line import main as agent
from tests.faults.agent import MAY_APPEAR, everything_below

__all__ = ["Watch", "changed", "main"]

_REFUSED = 3
_STARTED: list[str] = []
"""The programs that were started in this process, and the runtimes that were imported, since the last look."""


class Watch:
    """Has the agent install wrong bundles, and watches what it parses, starts and leaves behind.

    Args:
        root: The device's; a version is installed there.
        manifest: The only one that may be parsed, with or without bytes behind it.
    """

    def __init__(self, root: Path, manifest: bytes) -> None:
        self.root, self._manifest = root, manifest
        self._state = (root / "state.json").read_bytes().strip()
        self._before = everything_below(root, but=MAY_APPEAR)
        _listen()

    def problem_with(self, bundle: Path) -> str | None:
        """Return what the agent did with a wrong bundle but refuse it, ``None`` if nothing."""
        parsed: list[bytes] = []
        loads = json.loads

        def watched_loads(text: Any, *args: Any, **kwargs: Any) -> Any:
            parsed.append((text if isinstance(text, bytes) else str(text).encode()).strip())
            return loads(text, *args, **kwargs)

        said = io.StringIO()
        _STARTED.clear()
        with mock.patch.object(json, "loads", watched_loads), redirect_stdout(said), redirect_stderr(said):
            try:
                code: object = agent(["install", str(bundle), "--root", str(self.root), "--json"])
            except BaseException as error:
                code = repr(error)
        others = sorted(set(_STARTED) - {"openssl"})
        unknown = [text for text in parsed if not self._manifest.startswith(text) and text != self._state]
        if code != _REFUSED:
            return f"it ends with {code}: {said.getvalue()[-200:]}"
        if unknown:
            return f"it parses {unknown[0][:60]!r}"
        if others:
            return f"it starts {', '.join(others)}"
        if everything_below(self.root, but=MAY_APPEAR) != self._before:
            return "it leaves something behind"
        return None


@cache
def _listen() -> None:
    """Note what is started from now on; a hook stays for the rest of the process."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            _STARTED.append(os.path.basename(os.fsdecode(arguments[0])))  # noqa: PTH119 (called very often)
        elif event == "import" and str(arguments[0]).split(".")[0] in ("numpy", "onnxruntime", "tensorrt", "onnx"):
            _STARTED.append(str(arguments[0]))

    sys.addaudithook(hook)


def changed(good: bytes, case: int) -> bytes:
    """Return the bundle of a case."""
    if case >= len(good):
        return good[: case - len(good)]
    flip = Random(case).randrange(1, 256)
    return good[:case] + bytes([good[case] ^ flip]) + good[case + 1 :]


def main(root: str, bundle: str, first: str, end: str, step: str) -> None:
    """Run the cases ``range(first, end, step)``."""
    good, wrong = Path(bundle).read_bytes(), Path(root).with_suffix(".rxb")
    watch = Watch(Path(root), good[good.index(b"{") :])
    for case in range(int(first), int(end), int(step)):
        wrong.write_bytes(changed(good, case))
        print(json.dumps({"case": case, "problem": watch.problem_with(wrong)}))
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
