"""Making files wrong: bytes, the structure of ONNX's protobuf messages, JSON documents, TOML lines.

Every mutator is a function of a file's bytes and a ``random.Random``, and of nothing else: a case is its seed.
"""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto
from onnx.external_data_helper import set_external_data

from rexport.deploy.container import Contents, read, to_rxb

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
    from google.protobuf.message import Message

__all__ = ["OUTSIDE", "mutate_bundle", "mutate_bytes", "mutate_json", "mutate_onnx", "mutate_toml"]

# where a file must not reach: the runner puts a file of each of these names where the relative ones lead
OUTSIDE = (
    "../secret.bin",
    "../../secret.bin",
    "/etc/passwd",
    "./../secret.bin",
    "sub/../../secret.bin",
    "link.bin",
    "weights.bin/../../secret.bin",
    "..",
    ".",
    "",
    "/dev/zero",
    "/proc/self/mem",
    "secret\0.bin",
)
_INTEGERS = (0, 1, -1, 2, 3, 7, 255, 65536, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -1.0, 1e-45, 1e38, float("nan"), float("inf"), float("-inf"))
_TEXTS = (
    "", "x", "y", "Conv", "Loop", "EPContext", "NOTSET", "ä\u202e\n", "\0", "a" * 5000, "../../etc/passwd", "{}", "[[[",
)  # fmt: skip
_OPERATORS = (
    "Conv", "Gemm", "MatMul", "Relu", "Add", "Mul", "BatchNormalization", "MaxPool", "AveragePool", "GlobalAveragePool",
    "ReduceMean", "Flatten", "Reshape", "Identity", "Concat", "Slice", "Pad", "Split", "Clip", "Transpose", "Resize",
    "QuantizeLinear", "DequantizeLinear", "QLinearConv", "Cast", "Constant", "Shape", "Gather", "If", "Loop", "Scan",
    "Expand", "ConstantOfShape", "Range", "Tile", "NonZero", "EPContext", "Dropout", "Softmax", "ConvTranspose", "Nope",
)  # fmt: skip


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """Return the bytes with some flipped, cut out, cut off, doubled, filled or moved."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        if not changed:
            break
        at = random.randrange(len(changed))
        end = min(len(changed), at + random.choice((1, 2, 4, 8, 64, 512)))
        kind = random.randrange(7)
        if kind == 0:
            changed[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            changed[at:end] = random.randbytes(end - at)
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            del changed[at:end]
        elif kind == 4:
            changed[at:at] = changed[at:end] * random.choice((1, 2, 50))
        elif kind == 5:
            changed[at:end] = bytes([random.choice((0, 0xFF, 0x7F, 0x80))]) * (end - at)
        else:
            other = random.randrange(len(changed))
            changed[at:end] = changed[other : other + end - at]
    return bytes(changed)


# ONNX


def mutate_onnx(data: bytes, random: Random) -> bytes:
    """Return an ONNX file with a few fields of its messages changed, one kind of change in five its bytes."""
    if random.random() < 0.2:
        return mutate_bytes(data, random)
    model = ModelProto.FromString(data)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        change = random.choice((_any_field, _any_field, _any_field, *_ONNX_CHANGES))
        with suppress(DecodeError):  # copying what is nested deeper than protobuf reads
            change(model, random)
    changed: bytes = model.SerializeToString()
    return changed


def _any_field(model: ModelProto, random: Random) -> None:
    """Change a field anywhere in the tree of messages, the deeper the likelier."""
    message: Message = model
    while True:
        inner = [value for field, value in message.ListFields() if _is_message(field)]
        children = [child for value in inner for child in (value if _is_repeated_value(value) else [value])]
        if not children or (message is not model and random.random() < 0.25):
            break
        message = random.choice(children)
    field = random.choice(message.DESCRIPTOR.fields)
    if random.random() < 0.15:
        message.ClearField(field.name)
    elif _is_message(field):
        _change_messages(message, field, random)
    else:
        _change_scalars(message, field, random)


def _is_message(field: FieldDescriptor) -> bool:
    return field.message_type is not None


def _is_repeated_value(value: Any) -> bool:
    return not hasattr(value, "ListFields")


def _change_messages(message: Message, field: FieldDescriptor, random: Random) -> None:
    value = getattr(message, field.name)
    if not _is_repeated_value(value):
        value.SetInParent()
    elif not value or random.random() < 0.3:
        value.add()
    elif random.random() < 0.5:
        value.add().CopyFrom(random.choice(value))
    else:
        del value[random.randrange(len(value))]


def _change_scalars(message: Message, field: FieldDescriptor, random: Random) -> None:
    new, value = _scalar(field, random), getattr(message, field.name)
    if isinstance(value, str | bytes | int | float) or not hasattr(value, "append"):
        if isinstance(value, bytes) and value and random.random() < 0.7:
            new = mutate_bytes(value, random)
        setattr(message, field.name, new)
    elif value and random.random() < 0.7:
        at = random.randrange(len(value))
        if random.random() < 0.2:
            del value[at]
        else:
            value[at] = new
    else:
        value.append(new)


def _scalar(field: FieldDescriptor, random: Random) -> Any:
    kind = field.cpp_type
    if kind == field.CPPTYPE_STRING:
        text = random.choice(_TEXTS)
        return text.encode() if field.type == field.TYPE_BYTES else text
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return random.choice(_FLOATS)
    if kind == field.CPPTYPE_ENUM:
        return random.choice(field.enum_type.values).number
    low, high = {
        field.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
        field.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
        field.CPPTYPE_UINT32: (0, 2**32 - 1),
        field.CPPTYPE_UINT64: (0, 2**64 - 1),
        field.CPPTYPE_BOOL: (0, 1),
    }[kind]
    return max(low, min(high, random.choice((*_INTEGERS, random.randrange(12)))))


def _other_operator(model: ModelProto, random: Random) -> None:
    if model.graph.node:
        random.choice(model.graph.node).op_type = random.choice(_OPERATORS)


def _other_domain(model: ModelProto, random: Random) -> None:
    if model.graph.node:
        node = random.choice(model.graph.node)
        node.domain = random.choice(("com.microsoft", "ai.onnx.ml", "evil", "ai.onnx", "com.ms.internal.nhwc"))
        if random.random() < 0.7:
            model.opset_import.add(domain=node.domain, version=random.choice((1, 1, 3, 99)))


def _other_edge(model: ModelProto, random: Random) -> None:
    names = [name for node in model.graph.node for name in (*node.input, *node.output)] or ["x"]
    node = random.choice(model.graph.node) if model.graph.node else model.graph.node.add()
    ends = node.input if random.random() < 0.7 else node.output
    if ends:
        ends[random.randrange(len(ends))] = random.choice((*names, "", "nowhere"))


def _other_order(model: ModelProto, random: Random) -> None:
    nodes = list(model.graph.node)
    random.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _external_data(model: ModelProto, random: Random) -> None:
    if not model.graph.initializer:
        return
    tensor = random.choice(model.graph.initializer)
    if not tensor.HasField("raw_data"):
        tensor.raw_data = b"\0" * 16
    offset, length = (random.choice((None, None, *_INTEGERS)) for _ in range(2))
    set_external_data(tensor, random.choice((*OUTSIDE, "weights.bin", "model.onnx")), offset, length)
    if random.random() < 0.8:
        tensor.ClearField("raw_data")
    if random.random() < 0.2:
        tensor.external_data.add(key=random.choice(("location", "basepath", "__class__", "offset")), value="../x")


def _other_dimensions(model: ModelProto, random: Random) -> None:
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if values and random.random() < 0.5:
        sizes = random.choice(values).type.tensor_type.shape.dim
        if sizes:
            random.choice(sizes).dim_value = random.choice(_INTEGERS)
    elif model.graph.initializer:
        tensor = random.choice(model.graph.initializer)
        if tensor.dims:
            tensor.dims[random.randrange(len(tensor.dims))] = random.choice(_INTEGERS)


def _other_metadata(model: ModelProto, random: Random) -> None:
    entries = [entry for entry in model.metadata_props if entry.value.startswith(("{", "["))]
    if entries:
        entry = random.choice(entries)
        entry.value = mutate_json(entry.value.encode(), random).decode(errors="replace")
    else:
        model.metadata_props.add(key="rexport.preprocessing", value=random.choice(_TEXTS))


def _nested(model: ModelProto, random: Random) -> None:
    """Put a graph into a graph into a graph, as deep as no network is."""
    if not model.graph.node:
        return
    graph = model.graph.node.add(op_type="If", input=["x"], output=["deep"]).attribute.add(name="then_branch", type=5).g
    for _ in range(random.choice((1, 10, 40, 95))):
        graph.name = "deep"
        graph.output.add(name="deep")
        graph = graph.node.add(op_type="If", input=["x"], output=["deep"]).attribute.add(name="then_branch", type=5).g
    graph.node.add(op_type="Identity", input=["x"], output=["deep"])


_ONNX_CHANGES: tuple[Callable[[ModelProto, Random], None], ...] = (
    _other_operator, _other_domain, _other_edge, _other_order, _external_data, _other_dimensions, _other_metadata,
    _nested,
)  # fmt: skip


# text


def mutate_json(data: bytes, random: Random) -> bytes:
    """Return a JSON document with values replaced, keys gone or doubled, or the bytes changed."""
    if random.random() < 0.25:
        return mutate_bytes(data, random)
    try:
        document = json.loads(data)
    except ValueError:  # an earlier change has left no JSON of it
        return mutate_bytes(data, random)
    for _ in range(random.choice((1, 1, 2, 3))):
        document = _changed(document, random)
    text = json.dumps(document)
    if random.random() < 0.1:  # the same key twice, which json.dumps can't write
        text = re.sub(r'"(\w+)":', lambda found: f'"{found[1]}": null, "{found[1]}":', text, count=1)
    return text.encode()


def mutate_bundle(data: bytes, random: Random) -> bytes:
    """Return an ``.rxb`` with its bytes changed, or packed anew around another manifest."""
    if random.random() < 0.4:
        return mutate_bytes(data, random)
    with tempfile.NamedTemporaryFile(suffix=".rxb") as file:
        file.write(data)
        file.flush()
        good = read(Path(file.name))
    manifest = mutate_json(good.manifest, random)
    return to_rxb(Contents(manifest=manifest, signature=good.signature, files=good.files))


def _changed(document: Any, random: Random) -> Any:
    """Return the document with one value, anywhere in it, changed."""
    children: list[Any] = list(document) if isinstance(document, dict) else []
    if isinstance(document, list):
        children = list(range(len(document)))
    if not children or random.random() < 0.15:
        return _odd(document, random)
    key = random.choice(children)
    if random.random() < 0.1:
        del document[key]
    elif isinstance(document, dict) and random.random() < 0.1:
        document[random.choice(_TEXTS)] = document.pop(key)
    else:
        document[key] = _changed(document[key], random)
    return document


def _odd(value: Any, random: Random) -> Any:
    deep: Any = value
    for _ in range(random.choice((1, 5, 900))):
        deep = [deep]
    odd: tuple[Any, ...] = (
        None, True, *_INTEGERS, 2**70, *_FLOATS, 1e308, *_TEXTS, [], {}, [value] * 3, {"a": value}, deep,
    )  # fmt: skip
    if isinstance(value, str) and value and random.random() < 0.4:
        return value[: random.randrange(len(value))] + random.choice(_TEXTS)
    if isinstance(value, int | float) and random.random() < 0.4:
        return value + random.choice((1, -1, 0.5))
    return random.choice(odd)


def mutate_toml(data: bytes, random: Random) -> bytes:
    """Return a TOML document with lines moved, gone or doubled, values replaced, or the bytes changed."""
    if random.random() < 0.3:
        return mutate_bytes(data, random)
    lines = data.decode().splitlines()
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(lines))
        key, equals, _ = lines[at].partition("=")
        if random.random() < 0.15:
            del lines[at]
        elif random.random() < 0.15:
            lines.insert(random.randrange(len(lines)), lines[at])
        elif equals:
            lines[at] = f"{key}= {_toml_value(random)}"
        else:
            lines[at] = random.choice(("[model]", "[run", "[[run]]", "[a.b.c]", "= 1", "\0", '"' * 3))
        lines = lines or [""]
    return "\n".join(lines).encode(errors="replace")


def _toml_value(random: Random) -> str:
    texts = (
        '"../../etc/passwd"', '"/etc/passwd"', '"a\\u0000b"', "[" * 900, "{}", "[]", "true", "1979-05-27", "nan",
        "-inf",
    )  # fmt: skip
    return random.choice((*texts, *map(str, _INTEGERS), "9" * 5000, json.dumps(random.choice(_TEXTS))))
