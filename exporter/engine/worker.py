"""The process that builds an engine: ``python -m rexport.engine.worker``, with the folder of the work as its own.

It reads one JSON object from stdin, the options, and the model from ``model.onnx``; writes ``engine``, and to stdout a
JSON object a line: those of :class:`rexport.engine.phases.Phases` as the build goes on, and at last
``{"result": {...}}`` or ``{"error": "a sentence", "kind": "UnavailableError"}``. A crash of the compiler, and Ctrl-C,
end this process alone.

TensorRT orders some of what it writes by the addresses of its objects. So that the same file gives the same bytes, the
process starts anew without randomized addresses where the system lets it, gets the same few environment variables, and
builds in a thread, whose memory (an arena of its own, in glibc) is as yet in one piece.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import threading
from typing import Any

from rexport._child import claim_stdout, end_with_parent
from rexport._errors import RexportError

__all__ = ["WORKS", "main"]

WORKS = {
    "build": "rexport.engine.trt_compiler:build",
    "refit": "rexport.engine.trt_compiler:refit",
    "build in onnxruntime": "rexport.engine.ort_compiler:build",
}
"""The works of a worker: each a function of the options and of a callback for progress."""
_FIXED_ADDRESSES = 0x0040000  # ADDR_NO_RANDOMIZE of personality(2)


def main() -> None:
    """Do what stdin asks for."""
    _start_without_random_addresses()
    replies = claim_stdout()
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process

    def say(**fields: Any) -> None:
        print(json.dumps(fields), file=replies, flush=True)

    def work(options: dict[str, Any]) -> None:
        try:
            module, _, function = WORKS[options["do"]].partition(":")
            say(result=getattr(importlib.import_module(module), function)(options, say))
        except RexportError as error:
            say(error=str(error), kind=type(error).__name__)
        except Exception as error:  # the bindings raise their own
            say(error=f"TensorRT failed: {' '.join(str(error).split())}", kind="RexportError")

    thread = threading.Thread(target=work, args=(json.loads(sys.stdin.readline()),))
    thread.start()
    thread.join()


def _start_without_random_addresses() -> None:
    if sys.platform != "linux":
        return
    personality = ctypes.CDLL(None, use_errno=True).personality
    now = personality(0xFFFFFFFF)
    if now == -1 or now & _FIXED_ADDRESSES or personality(now | _FIXED_ADDRESSES) == -1:
        return
    os.execv(sys.executable, [sys.executable, "-P", "-m", "rexport.engine.worker"])


if __name__ == "__main__":
    main()
