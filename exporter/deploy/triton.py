"""A model repository of NVIDIA's Triton Inference Server: ``NAME/config.pbtxt`` and ``NAME/1/model.onnx``.

The configuration is a ``ModelConfig`` of Triton's ``model_config.proto`` in the text form of protocol buffers. An ONNX
file runs in the backend ``onnxruntime``, plans of TensorRT as ``tensorrt_plan``; of several plans,
``cc_model_filenames`` says which is for which compute capability. The golden input warms the model up, so that the
server is ready only once it has run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rexport._errors import EngineFileError, UsageError
from rexport.deploy.container import require_folder, write_folder
from rexport.deploy.manifest import require_name
from rexport.model_file import dtype_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rexport.deploy.payload import Payload
    from rexport.device._manifest import Engine

    _Fields = list[tuple[str, "str | _Fields"]]

__all__ = ["TritonOptions", "triton_files", "write_repository"]

_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "uint8": "TYPE_UINT8"}
_LABELS, _WARM_UP = "labels.txt", "golden"


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """How the server is to run the model.

    Attributes:
        max_batch: The most images that it puts together; ignored by a model of a fixed batch.
        queue_delay_us: How long a request waits for others, in microseconds.
        instances: Copies of the model, on each GPU or on the CPU.
        gpu: Whether to run an ONNX file on GPUs; plans of TensorRT always do.
    """

    max_batch: int = 8
    queue_delay_us: int = 500
    instances: int = 1
    gpu: bool = False


def write_repository(folder: Path, name: str, payload: Payload, options: TritonOptions) -> Path:
    """Write the model under its ``name`` into the repository ``folder``, which is made if it does not exist.

    Returns:
        The model's own folder.

    Raises:
        OutputError: It exists and is not empty, or can't be written.
        EngineFileError: As :func:`triton_files`.
    """
    require_name(name)
    files = triton_files(name, payload, options)
    target = folder / name
    require_folder(target, parents=True)
    write_folder(files, target)
    return target


def triton_files(name: str, payload: Payload, options: TritonOptions) -> dict[str, bytes]:
    """Return the files of the model's folder by their names in it.

    Raises:
        EngineFileError: An engine is for TensorRT for RTX, which Triton does not run.
        UsageError: The options make no sense.
    """
    if min(options.max_batch, options.instances) < 1 or options.queue_delay_us < 0:
        raise UsageError("The batch and the instances must be at least 1, and the delay at least 0.")
    rtx = next((engine for engine, _ in payload.engines if engine.backend != "tensorrt"), None)
    if rtx is not None:
        raise EngineFileError(
            f"The engine {rtx.file} is for TensorRT for RTX, and Triton runs TensorRT engines only; build "
            "it with `rexport engine --backend tensorrt`, or leave it out."
        )
    plans = {_plan_name(engine, len(payload.engines)): data for engine, data in payload.engines}
    models = plans or {"model.onnx": payload.model.data}
    images = payload.golden.input
    files = {
        "config.pbtxt": _text(_config(name, payload, options)).encode(),
        **{f"1/{file}": data for file, data in models.items()},
        f"warmup/{_WARM_UP}": (images[:1] if _max_batch(payload, options) else images).tobytes(),
    }
    if payload.classes:
        files[_LABELS] = "".join(f"{label}\n" for label in payload.classes).encode()
    return files


def _plan_name(engine: Engine, count: int) -> str:
    if count == 1:
        return "model.plan"
    return f"model-{'-'.join(map(str, engine.capabilities)) or 'device'}.plan"


def _text(fields: _Fields, indent: str = "") -> str:
    """Return a message in the text form: fields in order, each a scalar that is written already, or a message."""
    lines = []
    for name, value in fields:
        if isinstance(value, str):
            lines.append(f"{indent}{name}: {value}\n")
        else:
            lines.append(f"{indent}{name} {{\n{_text(value, indent + '  ')}{indent}}}\n")
    return "".join(lines)


def _config(name: str, payload: Payload, options: TritonOptions) -> _Fields:
    kind = "KIND_GPU" if options.gpu or payload.engines else "KIND_CPU"
    most = _max_batch(payload, options)
    return [
        ("name", _string(name)),
        ("platform", _string("tensorrt_plan")) if payload.engines else ("backend", _string("onnxruntime")),
        ("max_batch_size", str(most)),
        ("input", _input(payload, batched=most > 0)),
        *(("output", output) for output in _outputs(payload, batched=most > 0)),
        ("instance_group", [("kind", kind), ("count", str(options.instances))]),
        *_batching(most, options),
        *_plan_files(payload),
        ("model_warmup", _warm_up(payload, batched=most > 0)),
    ]


def _max_batch(payload: Payload, options: TritonOptions) -> int:
    """Return the most images at a time; 0 where the model's own shape has the batch in it, as Triton has it."""
    if payload.model.image.batch is not None:
        return 0
    return min([options.max_batch, *payload.engine_batches])


def _input(payload: Payload, *, batched: bool) -> _Fields:
    array, image = payload.golden.input, payload.model.image
    dims = image.shape((image.height or -1, image.width or -1), len(array))
    fields: _Fields = [("name", _string(image.name)), ("data_type", _TYPES[array.dtype.name])]
    if batched:  # the format is of pictures without their batch
        fields.append(("format", f"FORMAT_{image.layout}"))
    return [*fields, *_dims(dims, batched=batched)]


def _outputs(payload: Payload, *, batched: bool) -> list[_Fields]:
    outputs: list[_Fields] = []
    for value, array in zip(payload.model.model.graph.outputs, payload.golden.outputs, strict=True):
        dtype = "float32" if value.dtype is None else dtype_name(value)
        dims = _dims(array.shape, batched=batched)
        outputs.append([("name", _string(str(value.name))), ("data_type", _TYPES[dtype]), *dims])
    if payload.classes:
        outputs[0].append(("label_filename", _string(_LABELS)))
    return outputs


def _batching(most: int, options: TritonOptions) -> _Fields:
    """Return the field that lets Triton form batches; none for a model that takes one image at a time."""
    if most <= 1:
        return []
    powers = [2**power for power in range(1, most.bit_length()) if 2**power < most]
    sizes: _Fields = [("preferred_batch_size", str(size)) for size in [*powers, most]]
    return [("dynamic_batching", [*sizes, ("max_queue_delay_microseconds", str(options.queue_delay_us))])]


def _plan_files(payload: Payload) -> _Fields:
    if len(payload.engines) < 2:
        return []
    fields: _Fields = []
    for engine, _ in payload.engines:
        file = _string(_plan_name(engine, len(payload.engines)))
        if not engine.capabilities:
            fields.append(("default_model_filename", file))
        for capability in engine.capabilities:
            key = _string(f"{capability // 10}.{capability % 10}")
            fields.append(("cc_model_filenames", [("key", key), ("value", file)]))
    return fields


def _warm_up(payload: Payload, *, batched: bool) -> _Fields:
    array = payload.golden.input
    value: _Fields = [
        ("data_type", _TYPES[array.dtype.name]),
        *_dims(array.shape, batched=batched),
        ("input_data_file", _string(_WARM_UP)),
    ]
    inputs: _Fields = [("key", _string(payload.model.image.name)), ("value", value)]
    return [("name", _string(_WARM_UP)), ("batch_size", "1"), ("inputs", inputs)]


def _dims(shape: Sequence[int], *, batched: bool) -> _Fields:
    """Return the fields of a shape, without its batch where Triton forms the batches."""
    return [("dims", str(size)) for size in (shape[1:] if batched else shape)]


def _string(text: str) -> str:
    """Return a string literal; JSON's escapes are among those of the text form."""
    return json.dumps(text, ensure_ascii=False)
