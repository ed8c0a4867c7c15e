"""ONNX files: reading them with care, writing them whole, and the metadata that rexport keeps in them.

A residual network needs no external data, no native blobs and no code, so a file is refused where it names
data outside its own folder or holds ``EPContext`` nodes (compiled engines in disguise); and what could not be written
again as it was: sparse tensors, names that are no text, more weights than one file holds.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from rexport._errors import ModelFileError
from rexport._files import write_bytes
from rexport._onnx_proto import (
    LARGEST,
    TOO_LARGE,
    cause_of,
    complete_shapes,
    external_names,
    name_nodes,
    read_all_tensors,
    why_not_readable,
)
from rexport._weights_file import require_not_weights
from rexport._words import first_line
from rexport.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "Head",
    "Metadata",
    "default_opset",
    "dtype_name",
    "external_files",
    "load",
    "model_hash",
    "opset_of",
    "save",
    "tensor_in_words",
    "tensor_json",
    "to_bytes",
    "with_opset",
]

_PREFIX = "rexport."
_OTHER_FILES = {
    ".rxb": "a bundle for devices; name the ONNX file that it was made of",
    ".toml": "a file of settings; `rexport bench --settings` measures the model that it names",
}


class Head(StrEnum):
    """A classifier's output: logits z, their softmax pᵢ = exp zᵢ / Σ exp zⱼ, or the logarithm of that.

    The softmax of ``LOG_SOFTMAX`` is that of the logits, so code that needs probabilities treats both alike.
    """

    LOGITS = "logits"
    SOFTMAX = "softmax"
    LOG_SOFTMAX = "log-softmax"


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The ``metadata_props`` that rexport writes into a model, under keys that start with ``rexport.``.

    Attributes:
        network: The zoo name or ``module:callable`` that built it.
        preprocessing: How pictures become its input.
        classes: The names of its outputs, in order; empty where unknown.
        head: The output of a classifier; :func:`head_of` looks at the graph first.
        features: The modules, or the network's results, that are its outputs, in order; empty in a classifier.
        weights_sha256: Of the state dict it was exported with (see ``models.weights.state_dict_hash``).
        quantization: A JSON object that describes how the file was quantized; ``None`` in a float model.
        precision: A JSON object with the layers of a float16 model that stayed in float32; ``None`` in others.
        versions: The packages that made it.
    """

    network: str | None = None
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] = ()
    head: Head = Head.LOGITS
    features: tuple[str, ...] = ()
    weights_sha256: str | None = None
    quantization: str | None = None
    precision: str | None = None
    versions: str | None = None

    @classmethod
    def of(cls, model: ir.Model) -> Metadata:
        """Read the metadata of a model; missing entries are ``None``."""
        return cls.of_properties(model.metadata_props)

    @classmethod
    def of_properties(cls, properties: Mapping[str, str]) -> Metadata:
        """Read a model's ``metadata_props``, wherever they were stored."""
        props = {k.removeprefix(_PREFIX): v for k, v in properties.items() if k.startswith(_PREFIX)}
        return cls(
            network=props.get("network"),
            preprocessing=Preprocessing.from_json(props["preprocessing"]) if "preprocessing" in props else None,
            classes=_names("class names", props.get("classes", "[]")),
            head=_head(props.get("head", Head.LOGITS)),
            features=_names("features", props.get("features", "[]")),
            weights_sha256=props.get("weights_sha256"),
            quantization=props.get("quantization"),
            precision=props.get("precision"),
            versions=props.get("versions"),
        )

    def write_to(self, model: ir.Model) -> None:
        """Set the model's ``metadata_props``, so that :meth:`of` reads this again; remove those that are empty."""
        values: dict[str, Any] = {
            "network": self.network,
            "preprocessing": self.preprocessing and self.preprocessing.to_json(),
            "classes": self.classes and json.dumps(self.classes),
            "head": None if self.head is Head.LOGITS else str(self.head),
            "features": self.features and json.dumps(self.features),
            "weights_sha256": self.weights_sha256,
            "quantization": self.quantization,
            "precision": self.precision,
            "versions": self.versions,
        }
        for key, value in values.items():
            model.metadata_props.pop(_PREFIX + key, None)
            if value:
                model.metadata_props[_PREFIX + key] = value


def load(path: Path) -> ir.Model:
    """Read an ONNX file into memory, external data of its own folder included.

    Facts that other frameworks' exporters leave out are completed: sizes below zero become open, outputs without a
    shape get the inferred one, and every node gets a unique name.

    Raises:
        ModelFileError: No such file, not ONNX, an invalid graph, or one that rexport can't hold or read (see above).
        UsageError: It is a file of weights.
    """
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise ModelFileError(f"{path} {reason}; name an ONNX file, such as one that `rexport onnx` wrote.")
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own errors share no public base class
        require_not_weights(path)
        if path.suffix in _OTHER_FILES:
            raise ModelFileError(f"{path} is {_OTHER_FILES[path.suffix]}.") from error
        raise ModelFileError(f"{path} is not an ONNX file ({first_line(error)}).") from error
    if not proto.graph.node or not proto.opset_import:
        require_not_weights(path)
        raise ModelFileError(f"{path} is not an ONNX model: it has no nodes or names no opset.")
    defect = why_not_readable(proto)
    if defect is not None:
        raise ModelFileError(f"{path} {defect}")
    try:
        # the loader checks that external data lies in the model's folder
        onnx.load_external_data_for_model(proto, str(path.parent))
        complete_shapes(proto)
        onnx.checker.check_model(proto)
        model = ir.from_proto(proto)
        read_all_tensors(model)
    except (onnx.checker.ValidationError, ir.serde.SerdeError, ValueError, OSError, TypeError) as error:
        raise ModelFileError(f"{path} is not a valid ONNX model: {cause_of(error)}.") from error
    if "ai.onnx" in model.opset_imports:  # the long name of the standard operators
        model.opset_imports.setdefault("", model.opset_imports.pop("ai.onnx"))
    name_nodes(model)
    return model


def external_files(path: Path) -> tuple[Path, ...]:
    """Return the files of an ONNX file's external data; none if it can't be read."""
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf's own errors share no public base class
        return ()
    return tuple(path.parent / name for name in sorted(external_names(proto)))


def save(model: ir.Model, path: Path) -> None:
    """Write the model to one file, weights included, whole or not at all.

    Raises:
        ModelFileError: It is larger than the 2 GiB that one ONNX file can hold.
        OutputError: It can't be written.
    """
    write_bytes(path, to_bytes(model))


def to_bytes(model: ir.Model) -> bytes:
    """Serialize the model, weights included.

    Raises:
        ModelFileError: It is larger than the 2 GiB that one ONNX file can hold, or holds what ONNX can't say.
    """
    tensors = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
    size = sum(tensor.nbytes for tensor in tensors if tensor is not None and tensor.dtype != ir.DataType.STRING)
    if size > LARGEST:
        raise ModelFileError(f"The model has {TOO_LARGE.format(size / 2**30)}")
    try:
        data: bytes = ir.to_proto(model).SerializeToString()
    except Exception as error:  # protobuf's own errors share no public base class
        raise ModelFileError(f"The model can't be written as an ONNX file: {cause_of(error)}.") from error
    return data


def model_hash(model: ir.Model) -> str:
    """Return the SHA-256 of the serialized model, in hex."""
    return hashlib.sha256(to_bytes(model)).hexdigest()


def default_opset(model: ir.Model) -> int:
    """Return the version of the standard ONNX operators that the model imports.

    Raises:
        ModelFileError: It has none of them.
    """
    return opset_of(model.graph)


def opset_of(graph: ir.Graph) -> int:
    """Return the version of the standard ONNX operators that a graph uses; see :func:`default_opset`."""
    version = graph.opset_imports.get("")
    if version is None:
        domains = ", ".join(graph.opset_imports) or "no domain"
        raise ModelFileError(
            f"The model has no operators of ONNX itself, only of {domains}; take a network that was exported to ONNX."
        )
    return version


def with_opset(model: ir.Model, at_least: int) -> ir.Model:
    """Return the model with operators of version ``at_least`` or later: itself, or a copy that ONNX converted.

    The converter changes the meaning of some operators: :func:`rexport.passes.raise_opset.raise_opset` proves that it
    did not.

    Raises:
        ModelFileError: ONNX's version converter can't convert it.
    """
    if default_opset(model) >= at_least:
        return model
    try:
        converted = ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(model), at_least))
    except RuntimeError as error:  # what the converter raises, in C++: the place, the assertion, "failed: " and why
        raise ModelFileError(
            f"The model is of opset {default_opset(model)} and can't be converted to {at_least} "
            f"({first_line(error).rpartition('failed: ')[2]}); export it again with opset {at_least} or later."
        ) from error
    name_nodes(converted)  # the converter gives those that it adds none
    return converted


def dtype_name(value: ir.Value) -> str:
    """Return the type of a tensor's numbers by NumPy's name; ``unknown type`` where the model leaves it open."""
    if value.dtype is None or value.dtype == ir.DataType.UNDEFINED:
        return "unknown type"
    return "string" if value.dtype == ir.DataType.STRING else value.dtype.numpy().name


def tensor_json(value: ir.Value) -> dict[str, Any]:
    """Return the name, dtype and shape of a tensor for a JSON document; open sizes by their names."""
    assert value.shape is not None
    shape = [size if isinstance(size, int) else str(size) for size in value.shape]
    return {"name": value.name, "dtype": dtype_name(value), "shape": shape}


def tensor_in_words(value: ir.Value) -> str:
    """Return ``images float32 [N, 3, 224, 224]``."""
    facts = tensor_json(value)
    return f"{facts['name']} {facts['dtype']} [{', '.join(map(str, facts['shape']))}]"


def _names(entry: str, text: str) -> tuple[str, ...]:
    try:
        names = json.loads(text)
        if isinstance(names, list):
            return tuple(str(name) for name in names)
    except ValueError:
        pass
    raise ModelFileError(f"The model's {entry} in its metadata can't be read; export the model again.")


def _head(text: str) -> Head:
    try:
        return Head(text)
    except ValueError as error:
        raise ModelFileError(
            f"The model's head in its metadata can't be read ({text!r} is none of {', '.join(Head)}); export the model "
            "again."
        ) from error
