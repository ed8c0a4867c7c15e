"""A tiny classifier, its keys and its bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rexport.deploy.bundle import MadeBundle, make_bundle
from rexport.deploy.payload import BundleOptions, collect
from rexport.deploy.signing import PrivateKey, load_private_key
from rexport.device._manifest import Golden, Limits, Manifest, Target
from rexport.model_file import Metadata, save
from rexport.preprocessing import Preprocessing, Takes
from tests._graphs import convolution, graph

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

CLASSES = ("ant", "bee", "cat", "dog")
_SCORES = (
    "c = Conv <pads = [1, 1, 1, 1]> ({x}, w) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) "
    "{y} = Gemm <transB = 1> (f, m)"
)


def classifier(*, batch: str = "N", opset: int = 17) -> ir.Model:
    """Return a convolution, a mean and a matrix, of normalised pictures."""
    return _model(_SCORES.format(x="x", y="y"), batch=batch, opset=opset)


def probabilities(*, batch: str = "N") -> ir.Model:
    """Return :func:`classifier` with a softmax behind it, of which its metadata does not tell."""
    return _model(_SCORES.format(x="x", y="z") + " y = Softmax <axis = 1> (z)", batch=batch)


def raw_classifier() -> ir.Model:
    """Return the same of pixels as a camera gives them."""
    planes = "q = Cast <to = 1> (x) t = Transpose <perm = [0, 3, 1, 2]> (q) "
    model = _model(planes + _SCORES.format(x="t", y="y"), picture="uint8[N, 8, 8, 3]")
    Metadata(preprocessing=Preprocessing(size=8, takes=Takes.PIXELS)).write_to(model)
    return model


def maps(levels: int = 3) -> ir.Model:
    """Return the maps ``p3``, ``p4`` … of a backbone, each half as large as the one before."""
    body = "p3 = Conv <pads = [1, 1, 1, 1]> (x, w)"
    body += "".join(f" p{level} = MaxPool <kernel_shape = [1, 1], strides = [2, 2]> (p{level - 1})" for level in (4, 5))
    outputs = ", ".join(f"float[N, 6, {8 >> level}, {8 >> level}] p{3 + level}" for level in range(levels))
    model = graph(body, {"w": convolution(6, 3)}, inputs="float[N, 3, 8, 8] x", outputs=outputs)
    Metadata(preprocessing=Preprocessing(size=8)).write_to(model)
    return model


def saved(folder: Path, model: ir.Model | None = None) -> Path:
    """Write a model to a folder, by default :func:`classifier`."""
    path = folder / "m.onnx"
    save(classifier() if model is None else model, path)
    return path


def fixed_key(folder: Path) -> PrivateKey:
    """Return a key that is always the same."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path = folder / "test.pem"
    key = ec.derive_private_key(0x5EED, ec.SECP256R1())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return load_private_key(path)


def made(
    folder: Path, model: Path | None = None, *, name: str = "tiny", version: int = 1, **chosen: object
) -> MadeBundle:
    """Return a bundle of a model, by default of :func:`classifier`."""
    options = BundleOptions(**chosen)  # type: ignore[arg-type]
    payload = collect(model or saved(folder), options)
    return make_bundle(payload, name=name, version=version, key=fixed_key(folder), options=options)


def manifest(**changes: object) -> Manifest:
    """Return a manifest of three files whose sizes and hashes are not filled in yet."""
    usual = Manifest(
        name="tiny",
        version=1,
        expires=None,
        target=Target(machines=("x86_64",), runtimes={"onnxruntime": (">=1.20",)}),
        model="model.onnx",
        preprocessing={
            "takes": "pixels",
            "size": 8,
            "resize": None,
            "crop": "centre",
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
            "interpolation": "bilinear-antialiased",
            "color": "RGB",
            "layout": "NHWC",
            "dtype": "uint8",
            "scale": "1/255",
            "in_graph": ["normalise"],
        },
        golden=Golden(),
        limits=Limits(),
    )
    return usual._replace(**changes)


FILES = {"model.onnx": b"a model", "golden/input.npy": b"an input", "golden/logits.npy": b"logits"}


def _model(body: str, *, picture: str = "", batch: str = "N", opset: int = 17) -> ir.Model:
    matrix = np.random.default_rng((0, 1)).standard_normal((len(CLASSES), 6)).astype(np.float32)
    model = graph(
        body,
        {"w": convolution(6, 3), "m": matrix},
        inputs=f"{picture or f'float[{batch}, 3, 8, 8]'} x",
        outputs=f"float[{batch}, {len(CLASSES)}] y",
        opset=opset,
    )
    Metadata(preprocessing=Preprocessing(size=8), classes=CLASSES).write_to(model)
    return model
