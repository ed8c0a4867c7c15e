"""What Mender takes to the devices: an update module, the agent it calls, and how to make an artifact of a bundle."""

from __future__ import annotations

import json
import re
import shlex
from importlib import resources
from typing import TYPE_CHECKING

from rexport.deploy.agent_file import AGENT_NAME
from rexport.deploy.container import write_files
from rexport.deploy.inventory import DEFAULT_PYTHON, DEFAULT_ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from rexport.deploy.remote import Shipment

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

and upload {artifact}.mender. The module installs it with the agent, which verifies the bundle, checks it, and rolls
back automatically if that fails; a rollback by Mender returns to the previous version.
"""


def module_source(*, root: str, python: str) -> str:
    """Return the update module for devices with that root and Python."""
    text = resources.files("rexport.deploy").joinpath("_mender_module.py").read_text(encoding="utf-8")
    for name, default, value in (("ROOT", DEFAULT_ROOT, root), ("PYTHON", DEFAULT_PYTHON, python)):
        text = text.replace(f'{name} = "{default}"\n', f"{name} = {json.dumps(value)}\n", 1)
    return re.sub(r"  # noqa.*", "", text)


def write_module(folder: Path, shipment: Shipment) -> tuple[Path, ...]:
    """Write the module, the agent, the bundle, a script that makes an artifact of it, and what to do with them.

    Args:
        folder: Is made if it is missing; other files in it stay.
        shipment: What the module installs.

    Returns:
        The files that were written.

    Raises:
        OutputError: They can't be.
        UsageError: One of them is one of the shipment's inputs.
    """
    artifact, root, python = shipment.name, shipment.root, shipment.python
    words = {
        "artifact": artifact,
        "bundle": shlex.quote(f"{artifact}.rxb"),
        "modules": _MODULES,
        "agent": AGENT_NAME,
        "root": shlex.quote(root),
        "python": shlex.quote(python),
    }
    files = {
        "rexport": (module_source(root=root, python=python).encode(), 0o755),
        "make-artifact.sh": (_MAKE_ARTIFACT.format(**words).encode(), 0o755),
        "README.md": (_READ_ME.format(**words).encode(), 0o644),
        **{name: (data, 0o644) for name, data in shipment.files().items()},
    }
    return write_files(folder, files, inputs=shipment.inputs)
