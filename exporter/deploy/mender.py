"""What Mender takes to the devices: an update module, the agent it calls, and how to make an artifact of a bundle."""

from __future__ import annotations

import json
import re
import shlex
from importlib import resources
from typing import TYPE_CHECKING

from rexport.deploy.agent_file import AGENT_NAME, agent_bytes
from rexport.deploy.container import write_files
from rexport.deploy.inventory import DEFAULT_PYTHON, DEFAULT_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rexport.deploy.remote import Cargo
    from rexport.deploy.signing import PublicKey

__all__ = ["module_source", "write_module"]

_MODULES = "/usr/share/mender/modules/v3"

_MAKE_ARTIFACT = """\
#!/bin/sh
# Makes a Mender artifact of the bundle: sh make-artifact.sh DEVICE_TYPE
# Takes mender-artifact (https://docs.mender.io/downloads).
set -eu
cd "$(dirname "$0")"
exec mender-artifact write module-image --type rexport --device-type "${{1:?which device type?}}" \\
    --artifact-name {artifact} --file {bundle} --output-path {artifact}.mender
"""

_READ_ME = """\
# {artifact} through Mender

Once, into the image of the devices or onto each of them:

    install -D -m 0755 rexport {modules}/rexport
    install -D -m 0644 {agent} {root}/{agent}
    {python} {root}/{agent} key add trusted.pem --root {root}

trusted.pem is the public key that the bundles are signed with. Then, for each bundle:

    sh make-artifact.sh DEVICE_TYPE

and upload {artifact}.mender. The module installs it with the agent, which verifies the bundle, tries it, and goes back
by itself where that fails; a rollback that Mender asks for goes back to the version before.
"""


def module_source(*, root: str, python: str) -> str:
    """Return the update module for devices with that root and Python."""
    text = resources.files("rexport.deploy").joinpath("_mender_module.py").read_text(encoding="utf-8")
    for name, default, value in (("ROOT", DEFAULT_ROOT, root), ("PYTHON", DEFAULT_PYTHON, python)):
        text = text.replace(f'{name} = "{default}"\n', f"{name} = {json.dumps(value)}\n", 1)
    return re.sub(r"  # noqa.*", "", text)


def write_module(
    folder: Path,
    *,
    cargo: Cargo,
    key: PublicKey | None,
    root: str = DEFAULT_ROOT,
    python: str = DEFAULT_PYTHON,
    inputs: Iterable[Path] = (),
) -> tuple[Path, ...]:
    """Write the module, the agent, the bundle, a script that makes an artifact of it, and what to do with them.

    Args:
        folder: Where; it is made if it is missing, and other files in it stay.
        cargo: The bundle.
        key: The public key that the devices are to trust, if it is to lie beside.
        root: rexport's folder on the devices.
        python: The Python there.
        inputs: The files that all this was read from, which stay as they are.

    Returns:
        The files that were written.

    Raises:
        OutputError: They can't be.
        UsageError: One of them is one of ``inputs``.
    """
    artifact = f"{cargo.manifest.name}-{cargo.manifest.version}"
    bundle = f"{artifact}.rxb"
    words = {"artifact": artifact, "bundle": shlex.quote(bundle), "modules": _MODULES, "agent": AGENT_NAME}
    paths = {"root": shlex.quote(root), "python": shlex.quote(python)}
    files = {
        "rexport": (module_source(root=root, python=python).encode(), 0o755),
        AGENT_NAME: (agent_bytes(), 0o644),
        bundle: (cargo.source.data, 0o644),
        "make-artifact.sh": (_MAKE_ARTIFACT.format(**words).encode(), 0o755),
        "README.md": (_READ_ME.format(**words, **paths).encode(), 0o644),
    }
    if key is not None:
        files["trusted.pem"] = (key.pem(), 0o644)
    return write_files(folder, files, inputs=inputs)
