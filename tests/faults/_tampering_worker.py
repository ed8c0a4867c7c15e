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
from pathlib import Path
from random import Random
from typing import Any

from rexport.device.command_line import main as agent

__all__ = ["changed", "main"]

_REFUSED = 3


class _Spy:
    """What was given to a parser, and which programs were started, since the last look."""

    def __init__(self) -> None:
        self.parsed: list[bytes] = []
        self.started: list[str] = []
        self._loads = json.loads
        json.loads = self._watched_loads  # type: ignore[assignment]
        sys.addaudithook(self._hook)

    def reset(self) -> None:
        self.parsed, self.started = [], []

    def _watched_loads(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        self.parsed.append(text if isinstance(text, bytes) else str(text).encode())
        return self._loads(text, *args, **kwargs)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            self.started.append(os.path.basename(os.fsdecode(arguments[0])))  # noqa: PTH119 (called very often)
        elif event == "import" and str(arguments[0]).split(".")[0] in ("numpy", "onnxruntime", "tensorrt", "onnx"):
            self.started.append(str(arguments[0]))


def changed(good: bytes, case: int) -> bytes:
    """Return the bundle of a case."""
    if case >= len(good):
        return good[: case - len(good)]
    flip = Random(case).randrange(1, 256)
    return good[:case] + bytes([good[case] ^ flip]) + good[case + 1 :]


def main(root: str, bundle: str, first: str, end: str, step: str) -> None:
    """Run the cases ``range(first, end, step)``."""
    good = Path(bundle).read_bytes()
    manifest = good[good.index(b"{") :]
    state = (Path(root) / "state.json").read_bytes()
    before = _names(Path(root))
    spy = _Spy()
    wrong = Path(root).with_suffix(".rxb")
    for case in range(int(first), int(end), int(step)):
        wrong.write_bytes(changed(good, case))
        spy.reset()
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            try:
                code: object = agent(["install", str(wrong), "--root", root, "--json"])
            except BaseException as error:
                code = repr(error)
        problem = None
        parsed = [text.strip() for text in spy.parsed]
        unknown = [text for text in parsed if not manifest.startswith(text) and text != state.strip()]
        others = {name for name in spy.started if name != "openssl"}
        if code != _REFUSED:
            problem = f"it ends with {code}: {said.getvalue()[-200:]}"
        elif unknown:
            problem = f"it parses {unknown[0][:60]!r}"
        elif others:
            problem = f"it starts {', '.join(sorted(others))}"
        elif _names(Path(root)) != before or (Path(root) / "state.json").read_bytes() != state:
            problem = "it leaves something behind"
        sys.__stdout__.write(json.dumps({"case": case, "problem": problem}) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def _names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


if __name__ == "__main__":
    main(*sys.argv[1:])
