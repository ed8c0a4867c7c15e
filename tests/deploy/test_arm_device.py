"""``rexport deploy`` to an emulated ARM device, and what it computes there.

Everything is real but the processor: the command, OpenSSH's server, the agent in the device's own Python, and ONNX
Runtime's build for ARM. How long something takes there says nothing of any device.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from PIL import Image

from rexport.calibration import calibrate
from rexport.deploy import container
from rexport.deploy.bundle import sign_files
from rexport.deploy.golden import npy
from rexport.deploy.manifest import from_bytes
from rexport.deploy.signing import load_private_key
from rexport.model_file import Metadata, load, save, to_bytes
from rexport.quantization import ARM, quantize
from rexport.runtimes.onnxruntime import open_session
from tests._deep import deep
from tests.cli._run import run
from tests.deploy._arm_device import ONNXRUNTIME, arm_device
from tests.deploy._cargo import new_keys
from tests.quantization._tables import exported, pictures, sqnr_db

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnxruntime import InferenceSession

    from tests.deploy._openssh import OpenSsh

pytestmark = [pytest.mark.device, pytest.mark.slow]

_FIRST, _SECOND = "cifar_resnet8", "cifar_preact_resnet8"
_CONVOLUTIONS = 13  # of the second
_RUN = """
import collections, json, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.enable_profiling, options.profile_file_prefix = True, "/tmp/profile"
session = onnxruntime.InferenceSession("/tmp/model.onnx", options, providers=["CPUExecutionProvider"])
given = {session.get_inputs()[0].name: numpy.load("/tmp/images.npy")}
names = [output.name for output in session.get_outputs()]
numpy.savez("/tmp/results.npz", **dict(zip(names, session.run(names, given))))
with open(session.end_profiling()) as file:
    events = [event for event in json.load(file) if event["name"].endswith("_kernel_time")]
print(json.dumps(collections.Counter(event["args"]["op_name"] for event in events)))
"""


@dataclass(frozen=True)
class Vendor:
    """A key, and the folder of the bundles that it signed."""

    private: Path
    public: Path

    def bundle(self, version: int, network: str) -> Path:
        """Write a bundle, and its model beside it."""
        path = self.private.with_name(f"{version}.rxb")
        save(_quantized(network), path.with_suffix(".onnx"))
        run(f"bundle {path.with_suffix('.onnx')} --key {self.private} --name tiny --version {version} -o {path}")
        return path


@pytest.fixture
def vendor(tmp_path: Path) -> Vendor:
    return Vendor(*new_keys(tmp_path))


@pytest.fixture
def device(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[OpenSsh]:
    """A device that has no agent yet; by default it computes as a Raspberry Pi 4 does."""
    with arm_device(tmp_path, cpu=getattr(request, "param", "cortex-a72")) as started:
        yield started


def test_a_bundle_is_installed_and_classifies(device: OpenSsh, vendor: Vendor) -> None:
    _install(device, vendor, vendor.bundle(1, _FIRST))


@pytest.mark.deep
def test_there_and_back(device: OpenSsh, vendor: Vendor) -> None:
    first, second, wrong = vendor.bundle(1, _FIRST), vendor.bundle(2, _SECOND), vendor.bundle(3, _FIRST)
    installed, likeliest = _install(device, vendor, first)
    assert _near(device.asked("deploy", second))

    _claim_other_scores(wrong, vendor)
    failed = device.asked("deploy", wrong, exit_code=6)
    assert (failed["outcome"], failed["step"], failed["exit_code"]) == ("failed", "installing", 6)
    assert "self-check" in failed["reason"]
    status = device.asked("devices", "status")
    assert (status["active"], status["previous"]) == (failed["active"], installed["active"])
    assert status["active"].startswith("tiny-2-")
    assert status["answer"]["machine"]["machine"] == "aarch64"

    back = device.asked("devices", "rollback")
    assert (back["outcome"], back["active"], back["previous"]) == ("rolled back", installed["active"], failed["active"])
    assert _classified(device, first) == likeliest


@pytest.mark.parametrize("device", ["cortex-a72", *deep("cortex-a76", "max")], indirect=True)
def test_convolutions_give_the_integers_that_they_give_on_x86(device: OpenSsh) -> None:
    """Without dot products of int8, with them, and with everything that qemu knows of."""
    model, x = _quantized(_SECOND), pictures(4)
    ops, there = _ran(device, model, x)
    assert ops["QLinearConv"] == _CONVOLUTIONS
    assert not {"Conv", "FusedConv", "NhwcFusedConv"} & set(ops)

    # Additions are rounded by other kernels, so a tie may fall to the other side, and change what comes after it. What
    # a convolution gives is compared for the pictures of which it is given the same.
    here = _results(open_session(_exposed(model), as_on_arm=True), x)
    same = {name: (there[name] == here[name]).reshape(len(x), -1).all(axis=1) for name in here}
    convolutions = _convolutions(model)
    compared = sum(same[given].sum() for given, _ in convolutions)
    assert [name for given, name in convolutions if (same[given] & ~same[name]).any()] == []
    assert compared > len(convolutions) * len(x) / 2
    assert sqnr_db(here["logits"], there["logits"]) > 50


def test_in_float_nearly_the_same(device: OpenSsh) -> None:
    """So that what the test above looks for is seen to be absent, too."""
    model, x = exported(_FIRST), pictures(4)
    ops, there = _ran(device, model, x)
    assert "QLinearConv" not in ops
    here = _results(open_session(to_bytes(model)), x)["logits"]
    np.testing.assert_allclose(there["logits"], here, rtol=0, atol=1e-5 * np.abs(here).max())  # sums in another order


def _quantized(name: str) -> ir.Model:
    model = exported(name)
    return quantize(model, calibrate(model, [pictures(8)]), target=ARM).model


def _install(device: OpenSsh, vendor: Vendor, bundle: Path) -> tuple[dict[str, Any], int]:
    """Install the first bundle, and return what the command says and the likeliest class of a picture."""
    installed = device.asked("deploy", bundle, "--trust", vendor.public)
    assert installed["outcome"] == "installed"
    assert installed["answer"]["runtime"] == {"name": "onnxruntime", "version": ONNXRUNTIME}
    assert _near(installed)
    return installed, _classified(device, bundle)


def _claim_other_scores(bundle: Path, vendor: Vendor) -> None:
    """Have the bundle's golden scores be others than those of its model, and sign that."""
    contents = container.read(bundle)
    logits = np.load(io.BytesIO(contents.files["golden/logits.npy"]))
    files = {**contents.files, "golden/logits.npy": npy(logits[:, ::-1])}
    wrong = sign_files(from_bytes(contents.manifest), files, load_private_key(vendor.private))
    container.write(wrong, bundle)


def _classified(device: OpenSsh, bundle: Path) -> int:
    """Have the device classify a picture with a bundle, and return its likeliest class, which has to be that of x86."""
    device.run("cat > /tmp/picture.png", _PICTURE)
    printed = device.run("python3 /var/lib/rexport/rexport-agent.pyz run /tmp/picture.png --json")
    likeliest = json.loads(printed)["results"][0]["top"][0]
    model = load(bundle.with_suffix(".onnx"))
    preprocessing = Metadata.of(model).preprocessing
    assert preprocessing is not None
    with Image.open(io.BytesIO(_PICTURE)) as picture:
        x = preprocessing.to_input(preprocessing.pixels(picture)[None])
    (logits,) = _results(open_session(to_bytes(model), as_on_arm=True), x)["logits"]
    probabilities = np.exp(logits) / np.exp(logits).sum()
    assert likeliest["class"] == logits.argmax()
    assert likeliest["probability"] == pytest.approx(probabilities.max(), abs=0.005)
    return int(likeliest["class"])


def _near(found: dict[str, Any]) -> bool:
    """Say whether a self-check found the logits of x86 (no ratio), or those where a tie fell to the other side."""
    ratio = found["answer"]["check"]["sqnr_db"]
    return ratio is None or ratio > 50


def _ran(device: OpenSsh, model: ir.Model, x: np.ndarray) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """Return how often each operator really ran on the device, as its session's profile has it, and all integers."""
    device.run("cat > /tmp/model.onnx", _exposed(model))
    device.run("cat > /tmp/images.npy", npy(x))
    ops = json.loads(device.run("python3 -", _RUN.encode()))
    return ops, dict(np.load(io.BytesIO(device.run("cat /tmp/results.npz"))))


def _results(session: InferenceSession, x: np.ndarray) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: x}), strict=True))


def _exposed(model: ir.Model) -> bytes:
    """Return a model that gives the integers of its tensors, too."""
    proto = ir.to_proto(model)
    quantized = [node.output[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in quantized)
    return bytes(proto.SerializeToString())


def _convolutions(model: ir.Model) -> list[tuple[str, str]]:
    """Return the names of the integers that each convolution is given, and of those that it gives."""
    nodes = ir.to_proto(model).graph.node
    givers = {name: node for node in nodes for name in node.output}
    takers = {name: node for node in nodes for name in node.input}
    found = []
    for node in nodes:
        if node.op_type == "Conv":
            after = takers[node.output[0]]
            while after.op_type != "QuantizeLinear":
                after = takers[after.output[0]]
            found.append((givers[node.input[0]].input[0], after.output[0]))
    return found


def _picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


_PICTURE = _picture()
