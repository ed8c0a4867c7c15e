"""The agent under test: the file that devices get, roots with a version installed, and what is true of a root.

What is checked is read from the disk by this module alone, not asked of the agent: which version ``active`` points to,
and whether every file of it is the one that its manifest states.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rexport.deploy.signing import PrivateKey
    from rexport.device._manifest import Limits

__all__ = ["MAY_APPEAR", "Agent", "Done", "Workshop", "active_version", "complaint", "everything_below", "fault_in"]

MAY_APPEAR = ("lock", "staging", "versions")
"""What may be new after a refusal: the lock, and folders as long as they stay empty."""
_CODES = (0, 1, 2, 3, 4, 5, 6)


@dataclass(frozen=True, kw_only=True)
class Done:
    """A finished run of the agent: its exit code (negative for a signal), and what it printed."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Agent:
    """The agent as a command; its last word is the file's path."""

    command: tuple[str, ...]

    @classmethod
    def in_file(cls, folder: Path) -> Agent:
        """Return today's agent, written to ``folder``."""
        from rexport.deploy.agent_file import agent_bytes

        path = folder / "rexport-agent.pyz"
        path.write_bytes(agent_bytes())
        return cls((sys.executable, "-B", str(path)))

    def run(self, *arguments: str | Path, root: Path, before: Sequence[str] = (), seconds: float = 300.0) -> Done:
        """Run a verb on a root, ``before`` being the words of a command that runs the agent.

        Raises:
            subprocess.TimeoutExpired: It hangs.
        """
        command = [*before, *self.command, *map(str, arguments), "--root", str(root), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=self.environment())
        return Done(code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def start(self, *arguments: str | Path, root: Path) -> subprocess.Popen[str]:
        """Start a verb on a root."""
        command = [*self.command, *map(str, arguments), "--root", str(root), "--json"]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment()
        )

    @staticmethod
    def environment() -> dict[str, str]:
        """Return the environment: the same numbers of system calls every time."""
        return {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """An agent, a key, and bundles of small networks signed with it."""

    folder: Path
    agent: Agent
    key: PrivateKey
    public: Path

    @classmethod
    def set_up(cls, folder: Path) -> Workshop:
        """Make a key pair and the agent's file."""
        from rexport.deploy.signing import load_private_key, new_key_pair

        folder.mkdir(parents=True, exist_ok=True)
        public = new_key_pair(folder / "key.pem")
        return cls(folder=folder, agent=Agent.in_file(folder), key=load_private_key(folder / "key.pem"), public=public)

    def bundle(
        self,
        version: int,
        *,
        limits: Limits | None = None,
        name: str | None = None,
        model: bytes | None = None,
        files: Mapping[str, bytes] | None = None,
        golden_sqnr_db: float = 30.0,
    ) -> Path:
        """Return the ``.rxb`` of a network that is another for every version.

        Args:
            version: In the manifest.
            limits: Of its self-check.
            name: Of the file.
            model: The ONNX file whose golden logits are stated; by default a new network.
            files: What takes the place of files after that, signed as if it had been so from the start.
            golden_sqnr_db: How close the device's logits have to be.
        """
        from rexport.deploy.bundle import make_bundle, sign_files
        from rexport.deploy.container import to_rxb
        from rexport.deploy.manifest import from_bytes
        from rexport.deploy.payload import BundleOptions, collect
        from rexport.device._manifest import Limits
        from tests.faults.seeds import small_network

        source = self.folder / f"model{version}.onnx"
        source.write_bytes(small_network(seed=version).SerializeToString() if model is None else model)
        options = BundleOptions(min_sqnr_db=golden_sqnr_db, limits=limits or Limits(seconds=60))
        payload = collect(source, options)
        contents = make_bundle(payload, name="small", version=version, key=self.key, options=options).contents
        if files is not None:
            contents = sign_files(from_bytes(contents.manifest), {**contents.files, **files}, self.key)
        path = self.folder / f"{name or version}.rxb"
        path.write_bytes(to_rxb(contents))
        return path

    def root(self, *bundles: Path, name: str = "root") -> Path:
        """Return a new root that trusts the key and has the bundles installed, one after the other."""
        root = self.folder / name
        self.furnish(root, *bundles)
        return root

    def furnish(self, root: Path, *bundles: Path) -> None:
        """Have a root trust the key, and install the bundles."""
        for arguments in (("key", "add", self.public), *(("install", bundle) for bundle in bundles)):
            done = self.agent.run(*arguments, root=root)
            if done.code:
                raise RuntimeError(f"The agent's {arguments[0]} failed without a fault: {done.stderr or done.stdout}")

    @staticmethod
    def copy_of(root: Path, place: Path) -> Path:
        """Return a copy of a root at ``place``, links as links."""
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(root, place, symlinks=True)
        return place


def active_version(root: Path, name: str = "active") -> int | None:
    """Return the version that ``active``, or the link of another name, points to, ``None`` without one.

    Raises:
        ValueError: It points to nothing, or to what is no version, or to one that is not whole.
    """
    link = root / name
    if not link.is_symlink():
        return None
    fault, manifest = _read_version(link)
    if fault is not None:
        raise ValueError(f"{name} points to {link.readlink()}, and {fault}")
    return int(manifest["version"])


def fault_in(root: Path, *, allowed: Sequence[int | None]) -> str | None:
    """Return what is wrong with a root: no active version, another than is ``allowed``, or one that is not whole."""
    try:
        version = active_version(root)
    except ValueError as error:
        return str(error)
    if version not in allowed:
        return f"version {version} is active instead of {' or '.join(map(str, allowed))}"
    return None


def everything_below(folder: Path, *, but: Sequence[str] = ()) -> dict[str, str]:
    """Return what lies in a folder, by its path there: the mode, and the SHA-256 of a file or the target of a link.

    Args:
        folder: That may not exist, which is not the same as an empty one.
        but: Paths to leave out.
    """
    found = {"": f"{folder.lstat().st_mode:o}"} if folder.exists() else {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        what = str(path.readlink()) if path.is_symlink() else ""
        if stat.S_ISREG(mode):
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = f"{mode:o} {what}"
    return {name: what for name, what in found.items() if name not in but}


def complaint(done: Done) -> str | None:
    """Return what is wrong with how the agent ended: a traceback, a signal, an exit code of its own."""
    if "Traceback (most recent call last)" in done.stderr:
        return f"it ended in a traceback: {done.stderr.strip().splitlines()[-1]}"
    if done.code not in _CODES:
        return f"it ended with {done.code}"
    try:
        json.loads(done.stdout)
    except ValueError:
        return f"it printed no JSON document but {done.stdout[:80]!r}"
    return None


def _read_version(folder: Path) -> tuple[str | None, dict[str, Any]]:
    """Return what is wrong with an installed version, and its manifest."""
    try:
        data = (folder / "manifest.json").read_bytes()
        manifest: dict[str, Any] = json.loads(data)
        digest = hashlib.sha256(data).hexdigest()[:12]
        if folder.resolve().name != f"{manifest['name']}-{manifest['version']}-{digest}":
            return "its name is not that of its manifest", {}
        for name, stated in manifest["files"].items():
            found = (folder / name).read_bytes()
            if (len(found), hashlib.sha256(found).hexdigest()) != (stated["bytes"], stated["sha256"]):
                return f"{name} has {len(found)} bytes that are not those of the manifest", {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"it can't be read ({type(error).__name__}: {error})", {}
    return None, manifest
