"""The good files that are made wrong: small networks in every form rexport writes, and what lies beside them."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rexport._files import file_sha256
from rexport.deploy.bundle import make_bundle
from rexport.deploy.container import to_rxb
from rexport.deploy.payload import BundleOptions, collect
from rexport.deploy.signing import load_private_key, new_key_pair
from rexport.engine_file import BackendName, EngineFacts, EngineTensor
from rexport.preprocessing import Preprocessing
from tests._settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Seed", "make_seeds", "small_network"]

_SIZE = 16


@dataclass(frozen=True, kw_only=True)
class Seed:
    """A file to make wrong, and the commands to give it to.

    Attributes:
        kind: What it is: ``onnx``, ``table``, ``engine``, ``settings``, ``bundle``.
        name: The name that the wrong file gets; the files of ``beside`` lie next to it.
        data: The good bytes.
        beside: The other files of the folder.
        commands: Command lines of ``rexport``, run in that folder.
        mutator: How it is made wrong: ``onnx``, ``json``, ``toml`` or ``bytes``.
    """

    kind: str
    name: str
    data: bytes
    beside: Mapping[str, bytes]
    commands: tuple[tuple[str, ...], ...]
    mutator: str


def small_network(*, blocks: int = 1, seed: int = 0) -> onnx.ModelProto:
    """Return a residual network of 8 channels with BatchNormalization, for pictures of 16 × 16 pixels, 10 KB large."""
    random = np.random.default_rng(seed)
    weights = {"stem": _weights(random, 8, 3), "fc": (random.standard_normal((10, 8)) / 3).astype(np.float32)}
    nodes = [helper.make_node("Conv", ["x", "stem"], ["c0"], name="stem", pads=[1] * 4, strides=[2, 2])]
    nodes += _norm("c0", "n0", weights, random)
    nodes.append(helper.make_node("Relu", ["n0"], ["r0"], name="relu0"))
    for block in range(blocks):
        first, second = f"conv{block}a", f"conv{block}b"
        weights |= {first: _weights(random, 8, 8), second: _weights(random, 8, 8)}
        nodes.append(helper.make_node("Conv", [f"r{block}", first], [f"a{block}"], name=first, pads=[1] * 4))
        nodes += _norm(f"a{block}", f"an{block}", weights, random)
        nodes.append(helper.make_node("Relu", [f"an{block}"], [f"ar{block}"], name=f"relu{block}a"))
        nodes.append(helper.make_node("Conv", [f"ar{block}", second], [f"b{block}"], name=second, pads=[1] * 4))
        nodes.append(helper.make_node("Add", [f"b{block}", f"r{block}"], [f"s{block}"], name=f"add{block}"))
        nodes.append(helper.make_node("Relu", [f"s{block}"], [f"r{block + 1}"], name=f"relu{block}b"))
    nodes += [
        helper.make_node("GlobalAveragePool", [f"r{blocks}"], ["pool"], name="pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "fc"], ["y"], name="fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, _SIZE, _SIZE])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(
        model,
        {
            "rexport.preprocessing": Preprocessing(size=_SIZE).to_json(),
            "rexport.classes": json.dumps([f"class {index}" for index in range(10)]),
        },
    )
    return model


def _weights(random: np.random.Generator, out: int, into: int) -> np.ndarray:
    weights: np.ndarray = (random.standard_normal((out, into, 3, 3)) / np.sqrt(9 * into)).astype(np.float32)
    return weights


def _norm(before: str, after: str, weights: dict[str, np.ndarray], random: np.random.Generator) -> list[onnx.NodeProto]:
    names = [f"{after}.{part}" for part in ("scale", "bias", "mean", "var")]
    for name in names:
        weights[name] = (random.random(8) + 0.5).astype(np.float32)
    return [helper.make_node("BatchNormalization", [before, *names], [after], name=f"norm.{after}")]


def make_seeds(folder: Path) -> tuple[Seed, ...]:
    """Make the good files in ``folder`` with rexport's own commands."""
    (folder / "model.onnx").write_bytes(small_network().SerializeToString())
    images = np.random.default_rng(0).standard_normal((4, 3, _SIZE, _SIZE)).astype(np.float32)
    np.save(folder / "images.npy", images)
    quantize = ("quantize", "model.onnx", "--target", "x86", "-o")
    _rexport(folder, "fuse", "model.onnx", "-o", "fused.onnx", "--no-verify")
    _rexport(folder, "fuse", "model.onnx", "-o", "raw.onnx", "--raw-image")
    _rexport(folder, *quantize, "int8.onnx", "--data", "images.npy", "--save-table", "table.json")
    read = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    data = {"images.npy": read["images.npy"]}
    inspect, fuse = ("inspect", "model.onnx", "--json"), ("fuse", "model.onnx", "-o", "out.onnx", "--json")
    by_table = (*quantize, "out.onnx", "--table", "table.json", "--json")
    by_data = (*quantize, "out.onnx", "--data", "images.npy", "--json")
    as_raw = (*fuse, "--raw-image")
    table = {"table.json": read["table.json"]}
    model = {"model.onnx": read["model.onnx"]}
    engine = _engine()
    bundle, unpacked, key = _bundle(folder)
    look, look_in = (("inspect", name, "--json") for name in ("small.rxb", "bundle"))
    return (
        Seed(kind="bundle", name="small.rxb", data=bundle, beside=key, mutator="bundle",
             commands=(look, look, (*look, "--public-key", "key.pub.pem"))),
        Seed(kind="bundle folder", name="bundle/manifest.json", data=unpacked.pop("bundle/manifest.json"),
             beside=unpacked | key, mutator="json",
             commands=(look_in, look_in, (*look_in, "--public-key", "key.pub.pem"))),
        _onnx("float", read["model.onnx"], data | table, inspect, fuse, as_raw, by_table, by_data),
        _onnx("fused", read["fused.onnx"], data, inspect, fuse, by_data),
        _onnx("raw", read["raw.onnx"], data, inspect, fuse),
        _onnx("int8", read["int8.onnx"], data, inspect, fuse, by_data),
        _onnx("external", *_external(read["model.onnx"]), inspect, fuse, by_data),
        Seed(kind="table", name="table.json", data=read["table.json"], beside=model, mutator="json",
             commands=(("inspect", "table.json", "--json"), by_table)),
        Seed(kind="engine", name="model.engine.json", data=_engine_facts(engine), beside={"model.engine": engine},
             commands=(("inspect", "model.engine", "--json"),), mutator="json"),
        Seed(kind="engine", name="model.engine", data=engine, beside={"model.engine.json": _engine_facts(engine)},
             commands=(("inspect", "model.engine", "--json"),), mutator="bytes"),
        Seed(kind="settings", name="settings.toml", data=_settings(folder), beside=model,
             commands=(("inspect", "settings.toml", "--json"),), mutator="toml"),
        Seed(kind="array", name="images.npy", data=data["images.npy"], beside=model | table, mutator="bytes",
             commands=(by_data,)),
    )  # fmt: skip


def _rexport(folder: Path, *arguments: str) -> None:
    """Run a command in this process: to start three takes longer than all that they do."""
    from rexport.cli import app

    said = io.StringIO()
    with chdir(folder), redirect_stdout(said), redirect_stderr(said):
        app(arguments, standalone_mode=False)


def _onnx(kind: str, data: bytes, beside: Mapping[str, bytes], *commands: tuple[str, ...]) -> Seed:
    return Seed(kind=f"onnx {kind}", name="model.onnx", data=data, beside=beside, commands=commands, mutator="onnx")


def _external(data: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Return the model with its larger weights in a file of their own, and that file."""
    model, outside = onnx.ModelProto.FromString(data), b""
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > 512:
            onnx.external_data_helper.set_external_data(tensor, "weights.bin", len(outside), len(tensor.raw_data))
            outside += tensor.raw_data
            tensor.ClearField("raw_data")
    return model.SerializeToString(), {"weights.bin": outside}


def _bundle(folder: Path) -> tuple[bytes, dict[str, bytes], dict[str, bytes]]:
    """Return a signed bundle in both forms, and the public key, under their names."""
    public = new_key_pair(folder / "key.pem")
    options = BundleOptions()
    payload, key = collect(folder / "model.onnx", options), load_private_key(folder / "key.pem")
    contents = make_bundle(payload, name="small", version=1, key=key, options=options).contents
    unpacked = {f"bundle/{name}": data for name, data in contents.members()}
    return to_rxb(contents), unpacked, {"key.pub.pem": public.read_bytes()}


def _engine() -> bytes:
    """Return what has the header of an engine of TensorRT for RTX, and noise; nobody loads it."""
    body = np.random.default_rng(0).bytes(256)
    head = struct.pack("<4sIQQ4sII", b"vtrt", 0, 2, 64 + len(body), bytes((1, 7, 1, 116)), 0, 4)
    return head.ljust(64, b"\0") + body


def _engine_facts(engine: bytes) -> bytes:
    tensor: EngineTensor = {"name": "x", "dtype": "float32", "shape": [-1, 3, _SIZE, _SIZE]}
    facts = EngineFacts(
        backend=BackendName.RTX, version="1.7.1.116", capabilities=(86,), device=None, cuda=None, batch=(1, 8, 8),
        inputs=(tensor,), outputs=(tensor,), layers=({"name": "conv", "op_type": "Conv", "precision": "int8"},),
        sha256=hashlib.sha256(engine).hexdigest(), bytes=len(engine), onnx="model.onnx", onnx_sha256="0" * 64,
        repairs=(), warnings=(), seconds=1.5, command="rexport engine model.onnx", rexport="0.1.0",
    )  # fmt: skip
    return json.dumps(facts.to_json()).encode()


def _settings(folder: Path) -> bytes:
    model = replace(SETTINGS.model, file="model.onnx", sha256=file_sha256(folder / "model.onnx"))
    return replace(SETTINGS, model=model).to_toml().encode()
