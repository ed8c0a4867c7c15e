"""What the agent keeps on the device, and what it remembers of it.

    keys/*.pem           the trusted public keys, two at most
    lock                 held while anything is changed
    versions/ID/         whole bundles, ID = NAME-VERSION-<the manifest's SHA-256, 12 digits>
    staging/             what is arriving; nobody reads it
    engines/             engines that were built here
    active, previous     symbolic links into versions/; which version is active is what `active` says, nothing else
    state.json           what was done, and what is being done

While a switch is under way, ``pending`` says what the links were before it. Whoever finds it and holds the lock puts
them back; so a power cut at any moment leaves the version from before, or the new one with all of it written down.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Iterator

from ._errors import AgentError
from ._files import link_target, point, remove, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Device", "now"]

SCHEMA = "rexport.device/1"
_KEPT_FAILURES = 10
_LINK = re.compile(r"versions/([a-z0-9._-]+-\d+-[0-9a-f]{12})")
_EMPTY: dict[str, Any] = {
    "schema": SCHEMA,
    "name": None,
    "highest": 0,
    "highest_sha256": None,
    "highest_by_key": {},
    "active": None,
    "previous": None,
    "pending": None,
    "failed": [],
    "runtime": None,
    "last": None,
}


class Device:
    """The folder of one model on a device."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keys = root / "keys"
        self.versions = root / "versions"
        self.staging = root / "staging"
        self.engines = root / "engines"
        self.recovered: str | None = None

    @contextmanager
    def locked(self, wait: float) -> Iterator[None]:
        """Hold the device's lock, and first put back what an interruption left behind.

        Args:
            wait: Seconds to wait for whoever holds it.

        Raises:
            AgentError: It is still held, or the folder can't be used.
        """
        self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            until = time.monotonic() + wait
            while not _try_lock(descriptor):
                if time.monotonic() >= until:
                    raise AgentError(f"Another agent has been at work on {self.root} for {wait:g} s; try again later.")
                time.sleep(0.05)
            self._recover()
            yield
        except KeyboardInterrupt:
            self.undo()
            raise
        finally:
            os.close(descriptor)

    def recover_if_free(self) -> None:
        """Put back what an interruption left behind, unless somebody is at work or may not write here."""
        if self.read().get("pending") is None:
            return
        try:
            with self.locked(0.0):
                pass
        except (AgentError, OSError):  # the version that is active passed its self-check in any case
            pass

    def read(self) -> dict[str, Any]:
        """Return the state.

        Raises:
            AgentError: It can't be read.
        """
        path = self.root / "state.json"
        try:
            state = json.loads(path.read_bytes().decode("utf-8"))
            if not isinstance(state, dict) or state.get("schema") != SCHEMA:
                raise ValueError(f"its schema is not {SCHEMA}")
        except FileNotFoundError:
            state = {}
        except (OSError, ValueError) as error:
            raise AgentError(
                f"{path} can't be read ({error}), so the highest version that was ever installed is not known; restore "
                "it, or remove it to begin anew from the active version."
            ) from error
        return {**_EMPTY, **state}

    def write(self, **changes: Any) -> None:
        """Change the state, durably."""
        state = {**self.read(), **changes, "active": self.active, "previous": self.previous}
        self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomic(self.root / "state.json", (json.dumps(state, indent=1, sort_keys=True) + "\n").encode())

    @property
    def active(self) -> str | None:
        """The ID of the active version."""
        return _id(link_target(self.root / "active"))

    @property
    def previous(self) -> str | None:
        """The ID of the version that ``rollback`` would make active."""
        return _id(link_target(self.root / "previous"))

    def begin_switch(self, verb: str, to: str) -> None:
        """Write down what the links are, and have ``active`` point to another version.

        The version from before becomes ``previous``. The switch stands once :meth:`commit` wrote it down.
        """
        before, previous = self.active, self.previous
        self.write(pending={"verb": verb, "to": to, "active": before, "previous": previous})
        if before is not None and before != to:
            point(self.root / "previous", f"versions/{before}")
        point(self.root / "active", f"versions/{to}")

    def commit(self, **changes: Any) -> None:
        """Make the switch stand."""
        self.write(pending=None, **changes)

    def undo(self) -> str | None:
        """Put the links back to what they were before the switch that is pending, if one is.

        Returns:
            What was undone, as a sentence.
        """
        pending = self.read()["pending"]
        if pending is None:
            return None
        for link in ("active", "previous"):
            point(self.root / link, pending[link] and f"versions/{pending[link]}")
        self.write(pending=None)
        return (
            f"The {pending['verb']} of {pending['to']} had been interrupted and was undone: "
            f"{pending['active'] or 'no version'} is active."
        )

    def note_failure(self, version_id: str, version: int, manifest_sha256: str, reason: str) -> None:
        """Remember that a version failed, and why."""
        failure = {
            "id": version_id,
            "version": version,
            "manifest_sha256": manifest_sha256,
            "reason": reason,
            "time": now(),
        }
        self.write(failed=[*self.read()["failed"], failure][-_KEPT_FAILURES:])

    def leftovers(self) -> list[Path]:
        """Return the versions that are neither active nor previous."""
        in_use = {self.active, self.previous}
        return [path for path in sorted(self.versions.glob("*")) if path.name not in in_use]

    def _recover(self) -> None:
        self.recovered = self.undo() or self.recovered
        for path in list(self.staging.glob("*")):
            remove(path)  # nobody else is at work, so it is from one that was interrupted
        for path in self.root.glob(".*"):
            if path.name.startswith((".active.", ".previous.", ".state.json.")):
                remove(path)


def now() -> str:
    """Return the time in UTC, as the device believes it to be."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _id(target: str | None) -> str | None:
    """Return the version that a link points to; one that points elsewhere counts as none."""
    match = _LINK.fullmatch(target or "")
    return match.group(1) if match else None
