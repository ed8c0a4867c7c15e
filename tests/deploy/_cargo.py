"""Small signed bundles that real agents install, and a runtime that computes something else."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import numpy as np
import onnx

from rexport.deploy import container
from rexport.deploy.bundle import make_bundle, sign_files
from rexport.deploy.payload import BundleOptions, collect
from rexport.deploy.signing import load_private_key, new_key_pair
from rexport.preprocessing import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["faulty_runtime", "new_keys", "write_bundle"]

_FAULTY = """\
import sys
from pathlib import Path

sys.path.remove(str(Path(__file__).parents[1]))
del sys.modules["onnxruntime"]
import onnxruntime

right = onnxruntime.InferenceSession.run
onnxruntime.InferenceSession.run = lambda *given, **named: [-result for result in right(*given, **named)]
"""


def new_keys(folder: Path, name: str = "private") -> tuple[Path, Path]:
    """Make a key pair, and return the files of the private and the public key."""
    private = folder / f"{name}.pem"
    return private, new_key_pair(private)


def write_bundle(path: Path, *, key: Path, version: int, name: str = "tiny", ballast: int = 0) -> Path:
    """Write a bundle of a model with one layer; ``ballast`` is the size of a file that nothing reads."""
    model = path.with_suffix(".onnx")
    model.write_bytes(_model(version))
    options = BundleOptions(
        machines=(platform.machine(),),
        runtimes={"onnxruntime": ()},
        preprocessing=Preprocessing.default_for(16),
    )
    payload = collect(model, options)
    made = make_bundle(payload, name=name, version=version, key=load_private_key(key), options=options)
    table = np.random.default_rng(0).integers(32, 127, ballast, dtype=np.uint8).tobytes()
    files = {**made.contents.files, "table.json": table}
    container.write(sign_files(made.manifest._replace(table="table.json"), files, load_private_key(key)), path)
    return path


def faulty_runtime(folder: Path) -> Path:
    """Write what, in ``PYTHONPATH``, makes ONNX Runtime give wrong results, and return it."""
    package = folder / "faulty" / "onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(_FAULTY)
    return package.parent


def _model(seed: int) -> bytes:
    weight = np.random.default_rng(seed).standard_normal((768, 5)).astype(np.float32)
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> tiny (float[N, 3, 16, 16] x) => (float[N, 5] y) '
        "{ flat = Flatten(x) y = MatMul(flat, w) }"
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return proto.SerializeToString()
