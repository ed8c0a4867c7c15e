from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from rexport.deploy.container import to_rxb
from rexport.device import _install, _target
from rexport.device._container import Folder
from rexport.device._errors import AgentError, InstallError, RefusedError, UnusableError, UsageError
from rexport.device._install import collect_garbage, install, load, rehearse, roll_back
from rexport.device._keys import add_key, remove_key, trusted_keys
from rexport.device._self_check import self_check
from tests.device._vendor import write
from tests.faults.vendor import archive, passed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rexport.device._self_check import Checked, Version
    from rexport.device._state import Device
    from tests.faults.vendor import Vendor

    Agent = Callable[..., tuple[int, dict[str, Any]]]


def _tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_whole_way_with_the_real_agent(tmp_path: Path, vendor: Vendor, device: Device, agent: Agent) -> None:
    first, second = vendor.bundle(1), vendor.bundle(2)
    code, installed = agent("install", write(first, tmp_path / "one"))
    assert (code, installed["result"], installed["previous"]) == (0, "installed", None)
    assert installed["runtime"] == {"name": "onnxruntime", "version": onnxruntime.__version__}
    assert installed["check"]["same_top1"] is True
    assert installed["check"]["sqnr_db"] is None  # equal: the same runtime made them
    assert 0 < installed["check"]["latency_ms"] < 1000

    code, served = agent("serve-once", given=to_rxb(second))
    assert (code, served["result"], served["version"]) == (0, "installed", 2)
    assert served["previous"] == installed["active"]
    assert _tree(device.root / "active") == dict(second.members())

    code, back = agent("rollback")
    assert (code, back["version"], back["previous"]) == (0, 1, served["active"])
    assert _tree(device.root / "active") == dict(first.members())

    code, refused = agent(
        "install", write(vendor.bundle(1, lambda m: m.update(expires="2999-01-01T00:00:00Z")), tmp_path / "1b")
    )
    assert (code, refused["kind"], refused["active"]) == (3, "RefusedError", back["active"])
    assert "2 was installed before" in refused["error"]

    code, status = agent("status")
    assert (code, status["active"]["version"], status["previous"]["version"], status["highest"]) == (0, 1, 2, 2)
    assert status["last"]["verb"] == "rollback"
    assert status["machine"]["runtimes"]["onnxruntime"] == onnxruntime.__version__


@pytest.mark.slow
def test_a_picture_is_classified_as_the_model_does(
    tmp_path: Path, vendor: Vendor, device: Device, agent: Agent
) -> None:
    install(device, archive(vendor.bundle()), check=passed)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    (tmp_path / "x.ppm").write_bytes(b"P6 # a comment\n8 8\n255\n" + pixels.tobytes())
    code, answer = agent("run", tmp_path / "x.npy", tmp_path / "x.ppm")
    assert code == 0
    means = vendor.document["preprocessing"]
    given = (pixels.astype(np.float32) / np.float32(255) - np.float32(means["mean"])) / np.float32(means["std"])
    session = onnxruntime.InferenceSession(vendor.files["model.onnx"], providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"x": given.transpose(2, 0, 1)[np.newaxis]})[0]
    likely = np.exp(logits) / np.exp(logits).sum()
    for result in answer["results"]:
        assert [top["class"] for top in result["top"]] == list(np.argsort(-likely))
        assert [top["probability"] for top in result["top"]] == pytest.approx(sorted(likely, reverse=True), rel=1e-5)
        assert result["top"][0]["name"] == ("ant", "bee", "cat", "dog")[likely.argmax()]
    code, answer = agent("run", tmp_path / "none.jpg")
    assert (code, answer["kind"]) == (2, "UsageError")


@pytest.mark.parametrize("name", ["bundle.rxb", "bundle"])
def test_both_forms_become_the_same_folder(tmp_path: Path, vendor: Vendor, device: Device, name: str) -> None:
    contents = vendor.bundle()
    path = write(contents, tmp_path / name)
    with _open(path) as bundle:
        done = install(device, bundle, check=passed)
    assert device.active == done.manifest.id
    assert _tree(device.root / "active") == dict(contents.members())
    assert not list(device.staging.iterdir())


def _open(path: Path) -> Any:
    return Folder(path) if path.is_dir() else archive(path.read_bytes())


def test_model_sig_is_neither_read_nor_kept(tmp_path: Path, vendor: Vendor, device: Device) -> None:
    contents = vendor.bundle()
    signed = type(contents)(
        manifest=contents.manifest, signature=contents.signature, files={**contents.files, "model.sig": b"{}"}
    )
    for bundle in (archive(signed), Folder(write(signed, tmp_path / "folder"))):
        install(device, bundle, check=passed)
        assert not (device.root / "active" / "model.sig").exists()


def test_the_same_again_changes_nothing_and_needs_no_check(vendor: Vendor, device: Device) -> None:
    contents = vendor.bundle()
    install(device, archive(contents), check=passed)
    again = install(device, archive(contents), check=_never)
    assert (again.result, again.changed) == ("already active", False)


def _never(version: Version, *, quick: bool = False) -> Checked:
    raise AssertionError("this must not be checked")


def test_a_dry_run_stops_before_anything_is_written(vendor: Vendor, device: Device) -> None:
    before = sorted(device.root.rglob("*"))
    assert rehearse(device, archive(vendor.bundle())).result == "would install"
    assert sorted(device.root.rglob("*")) == before
    install(device, archive(vendor.bundle()), check=passed)
    assert rehearse(device, archive(vendor.bundle())).result == "already active"


def test_a_dry_run_fails_as_the_install_would(vendor: Vendor, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    (key,) = trusted_keys(device.keys)
    remove_key(device.keys, key.fingerprint)
    with pytest.raises(RefusedError, match="trusts no key yet"):
        rehearse(device, archive(vendor.bundle()))
    assert rehearse(device, archive(vendor.bundle()), trust=key).result == "would install"
    monkeypatch.setattr(_target, "installed_runtimes", dict)
    with pytest.raises(UnusableError, match="needs onnxruntime"):
        rehearse(device, archive(vendor.bundle()), trust=key)


def test_a_damaged_active_version_is_repaired(vendor: Vendor, device: Device) -> None:
    contents = vendor.bundle()
    install(device, archive(contents), check=passed)
    (device.root / "active" / "model.onnx").write_bytes(b"rust")
    with pytest.raises(RefusedError, match="damaged; install the bundle again"):
        load(device)
    assert install(device, archive(contents), check=passed).changed
    assert _tree(device.root / "active") == dict(contents.members())


def test_rollback_goes_there_and_back_and_keeps_the_highest(vendor: Vendor, device: Device) -> None:
    with pytest.raises(InstallError, match="no previous version"):
        roll_back(device, check=passed)
    for version in (1, 2):
        install(device, archive(vendor.bundle(version)), check=passed)
    assert [roll_back(device, check=passed).manifest.version for _ in range(3)] == [1, 2, 1]
    assert device.read()["highest"] == 2
    assert install(device, archive(vendor.bundle(2)), check=passed).manifest.version == 2


def test_garbage_is_everything_but_active_and_previous(vendor: Vendor, device: Device) -> None:
    for version in (1, 2, 3):
        done = install(device, archive(vendor.bundle(version)), check=passed)
    device.engines.mkdir()
    model = done.manifest.files["model.onnx"].sha256[:16]
    for engine in (f"rtx-1.7-86-{model}", "rtx-1.7-86-0123456789abcdef"):
        (device.engines / f"{engine}.engine").touch()
    assert [name.rsplit("-", 1)[0] for name in collect_garbage(device)] == ["tiny-1", "rtx-1.7-86"]
    assert sorted(path.name.split("-")[1] for path in device.versions.iterdir()) == ["2", "3"]
    assert len(list(device.engines.iterdir())) == 1


def test_a_lost_state_begins_anew_from_the_active_version(vendor: Vendor, device: Device) -> None:
    install(device, archive(vendor.bundle(5)), check=passed)
    (device.root / "state.json").unlink()
    with pytest.raises(RefusedError, match="5 was installed before"):
        install(device, archive(vendor.bundle(4)), check=passed)
    (device.root / "state.json").write_text("{")
    with pytest.raises(AgentError, match=r"state\.json can't be read"):
        install(device, archive(vendor.bundle(6)), check=passed)


def test_too_little_room_is_found_out_first(vendor: Vendor, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (1, 2, 3):
        install(device, archive(vendor.bundle(version)), check=passed)
    monkeypatch.setattr(_install, "_room", lambda folder: 1 << 20)
    with pytest.raises(InstallError, match="has 1 MiB of room"):
        install(device, archive(vendor.bundle(4)), check=_never)
    assert len(list(device.versions.iterdir())) == 2  # what could be spared is gone


def test_whoever_waits_too_long_says_so(agent_file: Path, device: Device) -> None:
    with device.locked(0):
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, agent_file, "gc", "--root", device.root, "--wait", "0.2"], capture_output=True, text=True
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Another agent has been at work" in done.stderr
    assert time.monotonic() - started < 10


def test_keys(tmp_path: Path, vendor: Vendor, device: Device) -> None:
    other = vendor.other(tmp_path)
    add_key(device.keys, other.key.public_pem(), "other")
    assert len(trusted_keys(device.keys)) == 2
    add_key(device.keys, other.key.public_pem(), "other")  # again
    (tmp_path / "third").mkdir()
    third = vendor.other(tmp_path / "third")
    with pytest.raises(AgentError, match="2 keys are trusted already"):
        add_key(device.keys, third.key.public_pem(), "third")
    removed = remove_key(device.keys, trusted_keys(device.keys)[0].fingerprint[:8])
    assert removed not in trusted_keys(device.keys)
    with pytest.raises(UsageError, match="0 of the trusted keys"):
        remove_key(device.keys, "zz")
    device.keys.chmod(0o777)
    with pytest.raises(AgentError, match="chmod go-w"):
        trusted_keys(device.keys)


def test_what_is_no_key_on_p256_is_refused(device: Device) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    for private in (
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
    ):
        pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(UsageError, match="not a public key on P-256"):
            add_key(device.keys, pem, "it")
    good = next(device.keys.glob("*.pem")).read_bytes()
    for bad in (b"", b"\xff", good + good, good[:-30], good.replace(b"PUBLIC", b"PRIVATE")):
        with pytest.raises(UsageError, match="not a public key on P-256"):
            add_key(device.keys, bad, "it")


def test_the_real_check_is_the_default() -> None:
    assert install.__kwdefaults__["check"] is roll_back.__kwdefaults__["check"] is self_check


def test_state_is_what_the_links_say(vendor: Vendor, device: Device) -> None:
    for version in (1, 2):
        install(device, archive(vendor.bundle(version)), check=passed)
    state = json.loads((device.root / "state.json").read_text())
    assert (state["active"], state["previous"], state["pending"]) == (device.active, device.previous, None)
    assert (device.root / "active").readlink().parts[0] == "versions"  # relative: the root may be moved


def test_a_link_that_leads_elsewhere_counts_as_none(tmp_path: Path, vendor: Vendor, device: Device) -> None:
    device.root.mkdir(exist_ok=True)
    (device.root / "active").symlink_to(tmp_path)
    assert device.active is None
    assert install(device, archive(vendor.bundle()), check=passed).manifest.id == device.active
