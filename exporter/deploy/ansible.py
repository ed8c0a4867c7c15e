"""An Ansible role that installs a bundle with the same agent, a playbook that goes by batches, and an inventory.

The role takes nothing but ansible-core: it copies the agent and the bundle, and calls the agent. What Ansible counts as
a change is what the agent says it changed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rexport.deploy.container import write_files
from rexport.deploy.inventory import DEFAULT_PYTHON, DEFAULT_ROOT, Device

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rexport.deploy.remote import Shipment

__all__ = ["write_role"]

_ROLE_DEFAULTS = {"rexport_root": DEFAULT_ROOT, "rexport_python": DEFAULT_PYTHON}
_PLAYBOOK = """\
# ansible-playbook -i inventory.yml deploy.yml
# Batches: -e rexport_serial=10. A batch in which more than rexport_max_fail_percentage fail is the last one.
- name: Install a bundle of rexport
  hosts: rexport
  gather_facts: false
  serial: "{{ rexport_serial | default(1) }}"
  max_fail_percentage: "{{ rexport_max_fail_percentage | default(0) }}"
  roles:
    - role: rexport
"""

_TASKS = """\
- name: Make the folder
  ansible.builtin.file:
    path: "{{ item.path }}"
    state: directory
    mode: "{{ item.mode }}"
  loop:
    - {path: "{{ rexport_root }}", mode: "0755"}
    - {path: "{{ rexport_root }}/incoming", mode: "0700"}

- name: Copy the agent
  ansible.builtin.copy:
    src: rexport-agent.pyz
    dest: "{{ rexport_root }}/rexport-agent.pyz"
    mode: "0644"

- name: Ask what is there
  ansible.builtin.command:
    argv: "{{ rexport_agent + ['status'] + rexport_options }}"
  register: rexport_status
  check_mode: false
  changed_when: false
  failed_when: rexport_status.rc != 0 and not ansible_check_mode

- name: Trust the public key
  ansible.builtin.command:
    argv: "{{ rexport_agent + ['key', 'add', '-'] + rexport_options }}"
    stdin: "{{ lookup('ansible.builtin.file', 'trusted.pem') }}"
  when:
    - rexport_trust | length > 0
    - rexport_status.rc != 0 or rexport_trust not in (rexport_status.stdout | from_json)['keys']

- name: Install the bundle
  when: rexport_status.rc != 0 or ((rexport_status.stdout | from_json).active or {}).id | default('') != rexport_version
  block:
    - name: Copy the bundle
      ansible.builtin.copy:
        src: "{{ rexport_bundle }}"
        dest: "{{ rexport_copy }}"
        mode: "0644"
      changed_when: ansible_check_mode

    - name: Have the agent install it
      ansible.builtin.command:
        argv: "{{ rexport_agent + ['install', rexport_copy] + rexport_options }}"
      register: rexport_install
      changed_when: (rexport_install.stdout | from_json).changed
  always:
    - name: Remove the copy
      ansible.builtin.file:
        path: "{{ rexport_copy }}"
        state: absent
      changed_when: false
"""

_META = """\
galaxy_info:
  role_name: rexport
  description: Installs a signed rexport bundle with its agent, which rolls back automatically if that fails.
  license: Apache-2.0
  min_ansible_version: "2.15"
dependencies: []
"""


def write_role(folder: Path, shipment: Shipment, *, devices: Sequence[Device] = ()) -> tuple[Path, ...]:
    """Write the role with the bundle and the agent in it, a playbook, and an inventory.

    Args:
        folder: Is made if it is missing; other files in it stay.
        shipment: What the role installs.
        devices: For the inventory; an example without.

    Returns:
        The files that were written.

    Raises:
        OutputError: They can't be.
        UsageError: One of them is one of the shipment's inputs.
    """
    role = "roles/rexport"
    texts = {
        "deploy.yml": _PLAYBOOK,
        "inventory.yml": _inventory(devices or (Device(host="device-1.example", user="pi"),)),
        f"{role}/defaults/main.yml": _mapping(_defaults(shipment)),
        f"{role}/meta/main.yml": _META,
        f"{role}/tasks/main.yml": _TASKS,
    }
    files = {name: text.encode() for name, text in texts.items()}
    files |= {f"{role}/files/{name}": data for name, data in shipment.files().items()}
    return write_files(folder, {name: (data, 0o644) for name, data in files.items()}, inputs=shipment.inputs)


def _defaults(shipment: Shipment) -> dict[str, Any]:
    cargo, key = shipment.cargo, shipment.key
    return {
        "rexport_root": shipment.root,
        "rexport_python": shipment.python,
        "rexport_bundle": f"{shipment.name}.rxb",
        "rexport_copy": f"{{{{ rexport_root }}}}/{cargo.place}",
        "rexport_version": cargo.manifest.id,
        "rexport_trust": key.fingerprint() if key else "",
        "rexport_agent": ["{{ rexport_python }}", "{{ rexport_root }}/rexport-agent.pyz"],
        "rexport_options": ["--root", "{{ rexport_root }}", "--json"],
    }


def _inventory(devices: Sequence[Device]) -> str:
    lines = ["rexport:", "  hosts:"]
    for device in devices:
        facts = {
            "ansible_host": device.host,
            "ansible_user": device.user,
            "ansible_port": device.port,
            "ansible_ssh_private_key_file": device.identity and str(device.identity.absolute()),
            "rexport_root": device.root,
            "rexport_python": device.python,
        }
        lines.append(f"    {json.dumps(str(device))}:")
        lines += [
            f"      {key}: {json.dumps(value)}"
            for key, value in facts.items()
            if value not in (None, _ROLE_DEFAULTS.get(key))
        ]
    return "\n".join(lines) + "\n"


def _mapping(values: Mapping[str, Any]) -> str:
    """Return YAML, of which JSON's values are a part."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())
