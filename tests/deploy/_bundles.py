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


def classifier(*, seed: int = 0, batch: str = "N", size: int = 8, opset: int = 17) -> ir.Model:
    """Return a convolution, a mean and a matrix, of normalised pictures."""
    model = graph(
        "c = Conv <pads = [1, 1, 1, 1]> (x, w)\n r = Relu(c)\n p = GlobalAveragePool(r)\n f = Flatten(p)\n"
        "y = Gemm <transB = 1> (f, m)",
        {"w": convolution(6, 3, seed=seed), "m": _matrix(seed)},
        inputs=f"float[{batch}, 3, {size}, {size}] x",
        outputs=f"float[{batch}, {len(CLASSES)}] y",
        opset=opset,
    )
    Metadata(preprocessing=Preprocessing(size=size), classes=CLASSES).write_to(model)
    return model


def probabilities(*, batch: str = "N") -> ir.Model:
    """Return :func:`classifier` with a softmax behind it, of which its metadata does not tell."""
    model = graph(
        "c = Conv <pads = [1, 1, 1, 1]> (x, w)\n r = Relu(c)\n p = GlobalAveragePool(r)\n f = Flatten(p)\n"
        "z = Gemm <transB = 1> (f, m)\n y = Softmax <axis = 1> (z)",
        {"w": convolution(6, 3), "m": _matrix(0)},
        inputs=f"float[{batch}, 3, 8, 8] x",
        outputs=f"float[{batch}, {len(CLASSES)}] y",
    )
    Metadata(preprocessing=Preprocessing(size=8), classes=CLASSES).write_to(model)
    return model


def raw_classifier(*, size: int = 8) -> ir.Model:
    """Return the same of pixels as a camera gives them."""
    model = graph(
        "q = Cast <to = 1> (x)\n t = Transpose <perm = [0, 3, 1, 2]> (q)\n"
        "c = Conv <pads = [1, 1, 1, 1]> (t, w)\n r = Relu(c)\n p = GlobalAveragePool(r)\n f = Flatten(p)\n"
        "y = Gemm <transB = 1> (f, m)",
        {"w": convolution(6, 3), "m": _matrix(0)},
        inputs=f"uint8[N, {size}, {size}, 3] x",
        outputs=f"float[N, {len(CLASSES)}] y",
    )
    Metadata(preprocessing=Preprocessing(size=size, takes=Takes.PIXELS)).write_to(model)
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


def _matrix(seed: int) -> np.ndarray:
    return np.random.default_rng((seed, 1)).standard_normal((len(CLASSES), 6)).astype(np.float32)
