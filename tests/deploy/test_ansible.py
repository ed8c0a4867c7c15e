"""The role, run by the real ansible-playbook on this machine in the place of devices.

It is no dependency of rexport: ``pip install ansible-core`` into an environment of its own, and put that one's ``bin``
into ``PATH``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rexport.deploy.agent_file import AGENT_NAME, agent_bytes
from rexport.deploy.ansible import write_role
from rexport.deploy.inventory import Device
from rexport.deploy.remote import Cargo, Shipment
from rexport.deploy.signing import load_public_key
from tests.deploy._cargo import faulty_runtime

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deploy.conftest import Supplies

_PLAYBOOK = shutil.which("ansible-playbook")


def _write(folder: Path, bundle: Path, supplies: Supplies) -> Cargo:
    cargo = Cargo.load(bundle)
    write_role(folder, Shipment(cargo=cargo, key=load_public_key(supplies.public), python=sys.executable))
    return cargo


def _play(folder: Path, *options: str) -> tuple[int, dict[str, dict[str, int]], str]:
    """Run the playbook, and return its exit code, what it counts of each host, and what it prints."""
    assert _PLAYBOOK is not None
    done = subprocess.run(
        [_PLAYBOOK, "-i", "local.yml", "deploy.yml", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "0", "ANSIBLE_HOME": str(folder)},
    )
    recap = re.findall(r"^(\S+) +: (ok=.*)$", done.stdout, re.MULTILINE)
    counts = {host: {key: int(n) for key, n in re.findall(r"(\w+)=(\d+)", text)} for host, text in recap}
    return done.returncode, counts, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(_PLAYBOOK is None, reason="no ansible-playbook in PATH; `pip install ansible-core` brings it")
def test_the_role_on_local_devices(tmp_path: Path, supplies: Supplies) -> None:
    cargo = _write(tmp_path, supplies.first, supplies)
    names = ("one", "two", "three")
    hosts = {
        name: {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "rexport_root": str(tmp_path / name),
        }
        for name in names
    }
    (tmp_path / "local.yml").write_text(json.dumps({"rexport": {"hosts": hosts}}))

    def active(name: str) -> str | None:
        link = tmp_path / name / "active"
        return link.readlink().name if link.is_symlink() else None

    code, counts, said = _play(tmp_path, "--check", "--limit", "one")
    assert (code, active("one")) == (0, None), said
    assert not (tmp_path / "one").exists()
    code, counts, said = _play(tmp_path, "--limit", "two,one", "-e", "rexport_serial=2")
    assert code == 0, said
    assert [active(name) for name in names] == [cargo.manifest.id, cargo.manifest.id, None]
    assert counts["one"]["changed"] == 4, said  # the folders, the agent, the key, the bundle
    code, counts, said = _play(tmp_path, "--limit", "one")
    assert (code, counts["one"]["changed"]) == (0, 0), said
    assert list((tmp_path / "one" / "incoming").iterdir()) == []

    # the second version fails on the second device: it stays with the first, and the third is left alone
    newer = _write(tmp_path, supplies.second, supplies)
    wrapper = tmp_path / "faulty-python"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH={faulty_runtime(tmp_path)} exec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    hosts["two"]["rexport_python"] = str(wrapper)
    (tmp_path / "local.yml").write_text(json.dumps({"rexport": {"hosts": hosts}}))
    code, counts, said = _play(tmp_path)
    assert code != 0
    assert "self-check" in said
    assert [active(name) for name in names] == [newer.manifest.id, cargo.manifest.id, None], said
    assert "three" not in counts
    assert list((tmp_path / "two" / "incoming").iterdir()) == []


def test_what_is_written(tmp_path: Path, supplies: Supplies) -> None:
    device = Device(host="camera-1", user="pi", port=2222, identity=tmp_path / "key", root="/opt/rexport")
    written = write_role(tmp_path / "out", Shipment(cargo=Cargo.load(supplies.first)), devices=(device,))
    role = tmp_path / "out" / "roles" / "rexport"
    assert set(written) == {path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert (role / "files" / "tiny-1.rxb").read_bytes() == supplies.first.read_bytes()
    assert (role / "files" / AGENT_NAME).read_bytes() == agent_bytes()
    inventory = (tmp_path / "out" / "inventory.yml").read_text().splitlines()
    assert inventory[2:] == [
        '    "pi@camera-1:2222":',
        '      ansible_host: "camera-1"',
        '      ansible_user: "pi"',
        "      ansible_port: 2222",
        f'      ansible_ssh_private_key_file: "{tmp_path / "key"}"',
        '      rexport_root: "/opt/rexport"',
    ]
