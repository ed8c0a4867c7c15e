"""An emulated device: a Debian for aarch64 with Python, OpenSSL, NumPy and ONNX Runtime, that one logs in to by SSH.

The kernel hands its programs to qemu, which is registered for that in namespaces of its own, as the mounts are: this
machine notices nothing of them, and all is gone with the device's first process. The server is this machine's sshd
in those namespaces, and each session is confined to the device's root. To make that root, packages are unpacked and
not set up, which emulation would take minutes for.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.deploy._openssh import OpenSsh, find_sshd, openssh

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["ONNXRUNTIME", "arm_device", "root_file_system"]

ONNXRUNTIME = "1.31.1"
_WHEELS = ("numpy==2.4.6", f"onnxruntime=={ONNXRUNTIME}", "pillow==13.0.0")
# All of them are named, since an old one alone silently gives an old ONNX Runtime.
_PLATFORMS = tuple(f"manylinux{kind}_aarch64" for kind in ("_2_28", "_2_27", "_2_17", "2014"))
_SUITE, _PYTHON = "bookworm", "3.11"
_PACKAGES = ("base-files", "coreutils", "dash", "libstdc++6", "openssl", "python3")
_USER = "pi"
_FILES = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\n"
    "sshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n"
    f"{_USER}:x:1000:1000::/home/{_USER}:/bin/sh\n",
    "etc/group": f"root:x:0:\nnogroup:x:65534:\n{_USER}:x:1000:\n",
    "etc/shadow": f"root:*:::::::\nsshd:*:::::::\n{_USER}:*:::::::\n",
    # A Raspberry Pi 4's; with this machine's, importing ONNX Runtime ends in a segmentation fault.
    "cpuinfo": "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
    "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n",
    "sys/devices/system/cpu/possible": "0\n",
    "sys/devices/system/cpu/present": "0\n",
}
_FOLDERS = ("home/pi", "var/lib/rexport")
_COMPILED_ONCE = (
    "import argparse, ctypes, hashlib, importlib.metadata, json, numpy, onnxruntime, PIL.PngImagePlugin, platform, "
    "runpy, secrets, shutil, subprocess, tempfile, zipfile; importlib.metadata.version('numpy')"
)

_BINFMT = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
_REGISTER = f"""
read -r _  # goes on once its IDs are mapped
mount -t proc proc /proc
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
cat {_BINFMT} > /proc/sys/fs/binfmt_misc/register
"""
# /run is a folder that nobody else may write to, which sshd asks of a root; the cache may be anywhere.
_BOOT = """
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd /run/device
mount --bind "$1" /run/device
shift
cd /run/device
mount -t proc proc proc
mount --bind cpuinfo proc/cpuinfo
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero random urandom; do
    touch dev/$name
    mount --bind /dev/$name dev/$name
done
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755,uid=1000,gid=1000 tmpfs var/lib/rexport
for name in passwd group shadow; do
    mount --bind etc/$name /etc/$name
done
"""
# sshd reads the key as the user, who may not look into a test's folder. The device ends with whoever holds its stdin.
_SERVE = """
install -m 644 "$1" /run/authorized_keys
shift
"$@" &
read -r _
"""


@contextmanager
def arm_device(folder: Path, *, cpu: str) -> Iterator[OpenSsh]:
    """Start a device with nothing on it yet.

    Args:
        folder: For its server's files.
        cpu: The processor, as qemu calls it.
    """
    root = root_file_system()
    settings = ["ChrootDirectory /run/device", "AuthorizedKeysFile /run/authorized_keys", f"SetEnv QEMU_CPU={cpu}"]

    def start(command: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
        return _start(_BOOT + _SERVE, root, folder / "client_key.pub", *command, **streams)

    with openssh(folder, user=_USER, settings=settings, start=start) as server:
        yield server


def root_file_system() -> Path:
    """Return the device's root, which is made if it is not in the cache; skip the test where it can't be."""
    _require_tools()
    cache = Path(os.environ.get("REXPORT_TEST_CACHE", "~/.cache/rexport-tests")).expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    recipe = repr((_SUITE, _PACKAGES, _WHEELS, _FILES, _FOLDERS, _COMPILED_ONCE))
    root = cache / f"arm64-{_SUITE}-onnxruntime-{ONNXRUNTIME}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with Path(f"{root}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            part = Path(f"{root}.part")
            shutil.rmtree(part, ignore_errors=True)
            try:
                _make(part)
                part.rename(root)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return root


def _require_tools() -> None:
    missing = [name for name in ("mmdebstrap", "unshare") if not shutil.which(name)]
    if os.geteuid() != 0:
        pytest.skip("an emulated device takes root, for mounts of its own")
    if missing or find_sshd() is None or not _BINFMT.is_file():
        pytest.skip("an emulated device takes `apt-get install mmdebstrap openssh-server qemu-user-static`")
    tried = _start("", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    _, said = tried.communicate()
    if tried.returncode != 0:  # the kernel is older than 6.7, or this is a container
        pytest.skip(f"qemu can't be registered in namespaces here: {_last_line(said)}")


def _make(root: Path) -> None:
    system = ["mmdebstrap", "--mode=root", "--variant=extract", "--architectures=arm64"]
    _or_skip([*system, f"--include={','.join(_PACKAGES)}", _SUITE, str(root)])
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, text in _FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    packages = root / "usr/local/lib" / f"python{_PYTHON}" / "dist-packages"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        f"--target={packages}",
    ]
    wheels = [f"--python-version={_PYTHON}", *(f"--platform={name}" for name in _PLATFORMS), *_WHEELS]
    _or_skip([*pip, "--implementation=cp", *wheels])
    # What sessions import is compiled now, and not each time. PYTHONDONTWRITEBYTECODE may be set here.
    python = ["chroot", "/run/device", "/usr/bin/env", "-i", "python3", "-c", _COMPILED_ONCE]
    tried = _start(f'{_BOOT}exec "$@"', root, *python, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    _, said = tried.communicate()
    assert tried.returncode == 0, said.decode()


def _or_skip(command: list[str]) -> None:
    """Run a command that downloads something."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode != 0:
        pytest.skip(f"the emulated device's root can't be made here: {command[0]}: {_last_line(done.stderr)}")


def _last_line(said: bytes) -> str:
    return (said.decode(errors="replace").strip().splitlines() or ["nothing was said"])[-1]


def _start(script: str, *words: str | Path, stdin: int, **streams: Any) -> subprocess.Popen[bytes]:
    """Run a script as the first process of new namespaces, in which qemu is registered for aarch64."""
    namespaces = ["unshare", "--user", "--mount", "--pid", "--fork", "--kill-child"]
    started = subprocess.Popen(
        [*namespaces, "sh", "-euc", _REGISTER + script, "sh", *words], stdin=stdin, start_new_session=True, **streams
    )
    own, its = (Path(f"/proc/{process}/ns/user") for process in ("self", started.pid))
    with suppress(OSError):  # it has ended, and said why
        while started.poll() is None and its.readlink() == own.readlink():
            time.sleep(0.01)
        for kind in ("uid", "gid"):
            Path(f"/proc/{started.pid}/{kind}_map").write_text("0 0 65536")
        assert started.stdin is not None
        started.stdin.write(b"\n")
        started.stdin.flush()
    return started
