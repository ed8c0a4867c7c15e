"""A model's layers and what each costs on a runtime: ``profile_layers``.

    share of a layer = its seconds / seconds of all layers
    GMAC/s           = its multiply-accumulates per picture · pictures per call / its seconds / 10⁹

A layer is what the runtime executes, under the name of the node that it computes: ReLUs, additions and conversions that
a convolution took up are in its time. What the runtime adds itself, such as changes of a tensor's layout, has lines of
its own. Profiling costs some microseconds a layer, so the seconds are for comparing layers, not models.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rexport._child import Child, ChildError
from rexport._cpu import this_cpu
from rexport._errors import ModelFileError, UnavailableError, UsageError
from rexport.benchmarks.affinity import choose_cores, sibling_groups, usable_cores
from rexport.benchmarks.profiling.advice import Conditions, advise, remarks
from rexport.benchmarks.profiling.join import joined
from rexport.benchmarks.profiling.lines import Measured
from rexport.benchmarks.profiling.profiled import LayerProfile
from rexport.benchmarks.profiling.tags import tagged
from rexport.benchmarks.profiling.worker import PROFILERS
from rexport.model_file import load
from rexport.model_inputs import image_input, preprocessing_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["profile_layers"]

_WARM_UP = 5
_TIMEOUT = 300.0


def profile_layers(
    path: Path, *, runtime: str = "cpu", batch: int = 1, threads: int | None = None, calls: int = 20
) -> LayerProfile:
    """Measure what each layer of a model costs, in a process of its own.

    Args:
        path: An ONNX file.
        runtime: ``cpu``, which is ONNX Runtime, or ``openvino``.
        batch: Pictures per call; random ones.
        threads: By default one per usable core.
        calls: That are measured, 10 or more, after 5 to warm up.

    Raises:
        UsageError: A number is too small, or the file takes another batch.
        UnavailableError: The runtime has no profile, is not installed, or its process died.
        ModelFileError: The file is not a model of images, or the runtime refuses it.
    """
    if runtime not in PROFILERS:
        raise UnavailableError(f"Layers of {runtime} can't be profiled; choose from {', '.join(PROFILERS)}.")
    if batch < 1 or (threads is not None and threads < 1) or calls < 10:
        raise UsageError("A profile needs at least 1 picture, 1 thread and 10 calls.")
    model = load(path)
    image = image_input(model, path)
    if image.batch not in (None, batch):
        raise UsageError(f"{path} takes batches of {image.batch} only; profile it with `--batch {image.batch}`.")
    threads = threads or this_cpu().cores
    request = {"runtime": runtime, "threads": threads, "calls": calls, **_images(model, batch)}
    measured = _measured(tagged(model), path, request)
    layers = joined(model, measured.lines, batch=batch)
    conditions = Conditions.of(layers, runtime=runtime, batch=batch)
    return LayerProfile(
        model=str(path),
        runtime=runtime,
        batch=batch,
        threads=threads,
        call_seconds=measured.call_seconds,
        layers=tuple(replace(layer, advice=advise(layer, conditions)) for layer in layers),
        remarks=remarks(layers, conditions),
    )


def _images(model: ir.Model, batch: int) -> dict[str, Any]:
    """Return the shape and the type of what a model takes."""
    preprocessing = preprocessing_of(model)
    return {"shape": (batch, *preprocessing.trial_shape), "dtype": preprocessing.dtype}


def _measured(model: bytes, path: Path, request: dict[str, Any]) -> Measured:
    """Profile a serialized model in a process of its own; ``path`` is what messages call it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(model)
        request = {**request, "path": str(file), "warm_up": _WARM_UP}
        cores = choose_cores(request["threads"], sibling_groups(usable_cores()))
        try:
            with Child("rexport.benchmarks.profiling.worker", cores=cores) as child:
                return Measured.from_json(child.ask("profile", limit=_TIMEOUT, **request))
        except ChildError as error:
            kind = ModelFileError if error.kind == ModelFileError.__name__ else UnavailableError
            reason = str(error).replace(str(file), str(path))
            raise kind(f"{path} can't be profiled on {request['runtime']}: {reason}") from error
