"""The agent's verbs; data goes to stdout, errors to stderr, and with ``--json`` both are one document on stdout."""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import signal
import sys
from pathlib import Path
from typing import Any, Callable, NamedTuple

from . import AGENT_VERSION, _worker
from ._container import Archive, Container, open_bundle
from ._errors import AgentError, InstallError, UsageError
from ._install import Installed, collect_garbage, highest_version, install, load, rehearse, roll_back
from ._keys import MAX_KEY_BYTES, add_key, parse_key, remove_key, trusted_keys
from ._self_check import Checked, classify, self_check
from ._state import Device
from ._target import installed_runtimes, machine
from ._worker_process import own_archive

__all__ = ["main"]

_ROOT = "/var/lib/rexport"
_WAIT = 120.0  # seconds; as long as an install usually takes


class Answer(NamedTuple):
    """What a verb found out: one JSON document, or lines; and what went wrong with a part of it."""

    document: dict[str, Any]
    lines: str
    problems: tuple[str, ...] = ()


def main(arguments: list[str] | None = None) -> int:
    """Run the agent's command line.

    Args:
        arguments: Those of the process by default.

    Returns:
        The exit code.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["_worker"]:
        return _worker.main()
    options = _parser().parse_args(arguments)
    device = Device(Path(options.root).absolute())
    try:
        answer = Answer(*options.verb(device, options))
    except (AgentError, OSError) as error:
        return _fail(device, options, error)
    except KeyboardInterrupt:
        print("rexport-agent: interrupted; the active version is unchanged.", file=sys.stderr)
        return 128 + signal.SIGINT
    document, lines, problems = answer
    if device.recovered:
        document["recovered"] = device.recovered
        print(f"rexport-agent: {device.recovered}", file=sys.stderr)
    if options.json or lines:
        print(json.dumps(document, sort_keys=True) if options.json else lines)
    for problem in problems:
        print(f"rexport-agent: {problem}.", file=sys.stderr)
    return AgentError.exit_code if problems else 0


def _fail(device: Device, options: argparse.Namespace, error: AgentError | OSError) -> int:
    if not isinstance(error, AgentError):
        kind = InstallError if options.verb in (_install, _serve_once, _rollback) else AgentError
        error = kind(f"{error.filename or device.root}: {error.strerror or error}.")
    if options.json:
        document = {
            "schema": "rexport.device.error/1",
            "error": str(error),
            "kind": type(error).__name__,
            "exit_code": error.exit_code,
            "active": device.active,
        }
        if device.recovered:
            document["recovered"] = device.recovered
        print(json.dumps(document, sort_keys=True))
    print(f"rexport-agent: {error}", file=sys.stderr)
    return error.exit_code


def _install(device: Device, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    with open_bundle(Path(options.bundle)) as bundle:
        return _installed(device, bundle, options)


def _serve_once(device: Device, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    options.json = True
    with Archive(sys.stdin.fileno(), patience=options.patience) as bundle:
        return _installed(device, bundle, options)


def _installed(device: Device, bundle: Container, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    if options.dry_run:
        trust = None if options.trust is None else parse_key(_key_data(options.trust), options.trust)
        return _switched("install", device, rehearse(device, bundle, trust=trust))
    with device.locked(options.wait):
        return _switched("install", device, install(device, bundle))


def _rollback(device: Device, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    with device.locked(options.wait):
        return _switched("rollback", device, roll_back(device))


def _switched(verb: str, device: Device, installed: Installed) -> tuple[dict[str, Any], str]:
    manifest, check = installed.manifest, installed.check
    document = {
        "schema": f"rexport.device.{verb}/1",
        "result": installed.result,
        "changed": installed.changed,
        "name": manifest.name,
        "version": manifest.version,
        "active": device.active,
        "previous": device.previous,
    }
    line = f"{installed.result}: {manifest.name} {manifest.version}"
    if check is not None:
        document.update(_check_document(check))
        line += f"; {_check_line(check)}"
    return document, line


def _check_document(check: Checked) -> dict[str, Any]:
    return {
        "runtime": {"name": check.runtime, "version": check.runtime_version},
        "check": {"sqnr_db": check.sqnr_db, "same_top1": check.same_top1, "latency_ms": check.latency_ms},
    }


def _check_line(check: Checked) -> str:
    values = "outputs" if check.same_top1 is None else "logits"
    near = f"identical {values}" if check.sqnr_db is None else f"{values} with an SQNR of {check.sqnr_db:.1f} dB"
    time = "" if check.latency_ms is None else f", {check.latency_ms:.1f} ms per run"
    return f"{near} on {check.runtime} {check.runtime_version}{time}"


def _check(device: Device, _options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    device.recover_if_free()
    version = load(device)
    check = self_check(version)
    manifest = version.manifest
    document = {
        "schema": "rexport.device.check/1",
        "name": manifest.name,
        "version": manifest.version,
        "active": manifest.id,
        **_check_document(check),
    }
    return document, f"{manifest.name} {manifest.version}: {_check_line(check)}"


def _run(device: Device, options: argparse.Namespace) -> Answer:
    device.recover_if_free()
    images = [Path(image) for image in options.images]
    for image in images:
        if not image.is_file():
            raise UsageError(f"There is no picture {image}.")
    version = load(device)
    results = classify(version, images)
    manifest = version.manifest
    lines = []
    for result in (result for result in results if result["error"] is None):
        named = [f"{top['name'] or top['class']} {top['probability']:.1%}" for top in result["top"]]
        lines.append(f"{result['image']}: {', '.join(named)}")
    document = {
        "schema": "rexport.device.run/1",
        "name": manifest.name,
        "version": manifest.version,
        "results": results,
    }
    problems = tuple(result["error"] for result in results if result["error"] is not None)
    return Answer(document, "\n".join(lines), problems)


def _status(device: Device, _options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    device.recover_if_free()
    state, keys = device.read(), trusted_keys(device.keys)
    system, kind = machine()
    runtimes = installed_runtimes()
    document = {
        "schema": "rexport.device.status/1",
        "agent": AGENT_VERSION,
        "root": str(device.root),
        "name": state["name"],
        "active": _described(device, device.active),
        "previous": _described(device, device.previous),
        "highest": highest_version(device, keys),
        "pending": state["pending"],
        "failed": state["failed"],
        "keys": [key.fingerprint for key in keys],
        "runtime": state["runtime"],
        "last": state["last"],
        "machine": {"system": system, "machine": kind, "python": platform.python_version(), "runtimes": runtimes},
        "recovered": None,
    }
    last = state["last"]
    return document, "\n".join(
        [
            f"active    {device.active or 'none'}",
            f"previous  {device.previous or 'none'}",
            f"keys      {', '.join(key.fingerprint[:12] for key in keys) or 'none'}",
            f"runtimes  {', '.join(f'{name} {version}' for name, version in runtimes.items()) or 'none'}",
            f"last      {'{verb} of version {version} {result}, {time}'.format(**last) if last else 'nothing yet'}",
            *(f"failed    {failure['id']}: {failure['reason']}" for failure in state["failed"][-1:]),
        ]
    )


def _described(device: Device, version_id: str | None) -> dict[str, Any] | None:
    if version_id is None:
        return None
    manifest = device.versions / version_id / "manifest.json"
    try:
        sha256 = hashlib.sha256(manifest.read_bytes()).hexdigest()
    except OSError:
        sha256 = None
    return {"id": version_id, "version": int(version_id.rsplit("-", 2)[1]), "manifest_sha256": sha256}


def _gc(device: Device, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    with device.locked(options.wait):
        gone = collect_garbage(device)
    return {"schema": "rexport.device.gc/1", "removed": gone}, "\n".join(f"removed {name}" for name in gone) or "clean"


def _key_add(device: Device, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    data = _key_data(options.file)
    with device.locked(options.wait):
        key = add_key(device.keys, data, options.file)
    return _keys_document(device), f"trusted: {key.fingerprint}"


def _key_remove(device: Device, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    with device.locked(options.wait):
        key = remove_key(device.keys, options.fingerprint)
    line = f"removed: {key.fingerprint}; versions signed with it no longer run"
    return _keys_document(device), line


def _key_list(device: Device, _options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    document = _keys_document(device)
    return document, "\n".join(document["keys"]) or "no key is trusted yet"


def _keys_document(device: Device) -> dict[str, Any]:
    return {"schema": "rexport.device.keys/1", "keys": [key.fingerprint for key in trusted_keys(device.keys)]}


def _key_data(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(MAX_KEY_BYTES)
    try:
        with Path(file).open("rb") as opened:
            return opened.read(MAX_KEY_BYTES)
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}.") from error


def _version(_device: Device, _options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    archive = own_archive()
    sha256 = archive and hashlib.sha256(Path(archive).read_bytes()).hexdigest()
    document = {
        "schema": "rexport.device.version/1",
        "agent": AGENT_VERSION,
        "python": platform.python_version(),
        "sha256": sha256,
    }
    return document, f"rexport-agent {AGENT_VERSION}"


def _everywhere() -> argparse.ArgumentParser:
    """Return the options that may stand before the verb and after it; argparse shares them, so each gets its own."""
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--root", help=f"the device's folder (default: {_ROOT})")
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")
    parser.add_argument("--wait", type=float, help=f"seconds for another agent to finish (default: {_WAIT:.0f})")
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rexport-agent", description="Installs signed models on this device.", parents=[_everywhere()]
    )
    parser.set_defaults(root=_ROOT, json=False, wait=_WAIT)
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(group: Any, name: str, run: Callable[..., Any], help_: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = group.add_parser(name, help=help_, description=help_, parents=[_everywhere()])
        added.set_defaults(verb=run)
        return added

    install = verb(verbs, "install", _install, "verify a bundle, try it, and make it active")
    install.add_argument("bundle", metavar="BUNDLE", help="an .rxb file or a folder")
    serve_once = verb(verbs, "serve-once", _serve_once, "install the .rxb that comes on stdin, and answer in JSON")
    for installing in (install, serve_once):
        installing.add_argument("--dry-run", action="store_true", help="check the bundle, and write nothing")
        installing.add_argument("--trust", metavar="FILE", help="with --dry-run: as if this key were trusted")
    serve_once.add_argument("--patience", type=float, default=60.0, help="seconds without a byte (60)")
    verb(verbs, "status", _status, "the active version, and the outcome of the last change")
    run = verb(verbs, "run", _run, "classify pictures with the active version")
    run.add_argument("images", metavar="IMAGE", nargs="+", help="JPEG or PNG (with Pillow), .ppm or .npy")
    verb(verbs, "check", _check, "run the active version's self-check again")
    verb(verbs, "rollback", _rollback, "make the previous version active, after its self-check")
    verb(verbs, "gc", _gc, "remove all versions but the active and the previous one")
    verb(verbs, "version", _version, "this agent's version")
    keys = verb(verbs, "key", _key_list, "the keys whose bundles are installed").add_subparsers(
        metavar="add|remove|list", required=True
    )
    verb(keys, "add", _key_add, "trust a public key").add_argument("file", metavar="FILE", help="PEM; - for stdin")
    verb(keys, "remove", _key_remove, "stop trusting a key").add_argument("fingerprint", metavar="FINGERPRINT")
    verb(keys, "list", _key_list, "show the trusted keys' fingerprints")
    return parser
