"""What runs on a device to take files over SSH: ``python3 -I -c SOURCE VERB ROOT ARGUMENTS``.

It is sent as text, before anything of rexport is there: the standard library alone, of Python 3.8. Each call prints one
JSON object. A file arrives as ``incoming/SHA256.part`` below the root, gets its place by a rename once all of it is
there with that hash, and stays if the connection is cut, so that the next call goes on where it ended. Two senders of
one file write the same bytes to the same places.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20
_STALE_SECONDS = 24 * 3600


def sha256(path: Path) -> str | None:
    """Return the SHA-256 of a file in hex, or None if there is no such file."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for block in iter(lambda: file.read(_BLOCK), b""):
                digest.update(block)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return digest.hexdigest()


def probe(root: Path, digest: str) -> dict[str, Any]:
    """Say what is there, and change nothing."""
    part = _part(root, digest)
    existing = next(folder for folder in (root, *root.parents) if folder.is_dir())
    return {
        "agent": sha256(root / "rexport-agent.pyz"),
        "keys": len(list(root.glob("keys/*.pem"))),
        "received": part.stat().st_size if part.is_file() else 0,
        "whole": sha256(root / "incoming" / (digest + ".rxb")) == digest,
        "free": shutil.disk_usage(str(existing)).free,
        "writable": os.access(str(existing), os.W_OK | os.X_OK),
    }


def receive(root: Path, name: str, digest: str, offset: int, size: int) -> dict[str, Any]:
    """Take ``size - offset`` bytes from stdin, and put the file in its place if it is whole."""
    part = _part(root, digest)
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    part.parent.mkdir(mode=0o700, exist_ok=True)
    _remove_stale(part)
    descriptor = os.open(str(part), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        at = min(offset, os.fstat(descriptor).st_size)
        if at != offset:
            return {"received": at, "done": False}
        file.seek(at)
        while at < size:
            block = os.read(sys.stdin.fileno(), min(_BLOCK, size - at))
            if not block:  # the connection was cut
                return {"received": at, "done": False}
            file.write(block)
            at += len(block)
        file.truncate(size)
        file.flush()
        os.fsync(descriptor)
    if sha256(part) != digest:
        part.unlink()
        return {"received": 0, "done": False}
    part.chmod(0o644)
    part.replace(root / name)
    _sync(root)
    _sync(part.parent)
    return {"received": size, "done": True}


def rehearse(root: Path, sizes: list[int]) -> dict[str, Any]:
    """Run the agent on stdin, which the key and the start of the bundle follow, with ``--dry-run``; keep nothing."""
    with tempfile.TemporaryDirectory(prefix="rexport-") as folder:
        paths = [Path(folder, name) for name in ("rexport-agent.pyz", "key.pem", "bundle.rxb")]
        for path, size in zip(paths, sizes):  # noqa: B905 - Python 3.8
            path.write_bytes(sys.stdin.buffer.read(size))
        agent, key, bundle = map(str, paths)
        command = [sys.executable, agent, "install", bundle, "--dry-run", "--json", "--root", str(root)]
        if sizes[1]:
            command += ["--trust", key]
        finished = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return {"exit_code": finished.returncode, "stdout": finished.stdout, "stderr": finished.stderr}


def discard(root: Path, names: list[str]) -> dict[str, Any]:
    """Remove files that were received, whether they are there or not."""
    for name in names:
        with suppress(FileNotFoundError):
            (root / "incoming" / name).unlink()
    return {"done": True}


def main() -> None:
    """Run the verb of the command line."""
    verb, root, arguments = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    try:
        if verb == "probe":
            answer = probe(root, *arguments)
        elif verb == "receive":
            answer = receive(root, arguments[0], arguments[1], int(arguments[2]), int(arguments[3]))
        elif verb == "rehearse":
            answer = rehearse(root, [int(size) for size in arguments])
        else:
            answer = discard(root, arguments)
    except OSError as error:
        answer = {"error": error.strerror or str(error), "errno": errno.errorcode.get(error.errno or 0, "")}
    print(json.dumps(answer), flush=True)
    sys.exit(int("error" in answer))


def _part(root: Path, digest: str) -> Path:
    return root / "incoming" / (digest + ".part")


def _remove_stale(part: Path) -> None:
    """Remove what was begun and given up: files that nothing was added to for a day."""
    for path in part.parent.iterdir():
        with suppress(OSError):
            if path != part and path.stat().st_mtime < time.time() - _STALE_SECONDS:
                path.unlink()


def _sync(folder: Path) -> None:
    """Make a rename in a folder last."""
    descriptor = os.open(str(folder), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
