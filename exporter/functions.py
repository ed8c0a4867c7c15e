"""The commands as functions: texts or paths go in, the result of the job comes out.

Each function has the settings that most calls need; ``settings`` are the others, which are attributes of the job's
request. A function raises where its command would end with an exit code (see ``rexport._errors``). It is silent unless
it is given ``note=print``, for what the user should know, and ``progress=rexport.progress_bar``.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rexport._progress import Note, Progress, silent, unsaid
from rexport._words import suggestion

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn

    from rexport.jobs.bench import BenchReport
    from rexport.jobs.bundle import BundleResult
    from rexport.jobs.deploy import DeployResult
    from rexport.jobs.engine import EngineResult
    from rexport.jobs.evaluate import EvaluateResult
    from rexport.jobs.evaluate_outputs import OutputsResult
    from rexport.jobs.export import ExportReport
    from rexport.jobs.fuse import FuseResult
    from rexport.jobs.predict import PredictResult
    from rexport.jobs.quantize import QuantizeResult
    from rexport.jobs.train import TrainResult
    from rexport.jobs.tune import TuneResult
    from rexport.quantization import Target

__all__ = [
    "bench",
    "build_engine",
    "bundle",
    "deploy_bundle",
    "evaluate",
    "export",
    "fuse",
    "predict",
    "quantize",
    "train",
    "tune",
]

Request = TypeVar("Request")


def train(
    network: str,
    *,
    data: str | Path,
    output: str | Path,
    weights: str | Path | None = None,
    epochs: int | None = None,
    progress: Progress = silent,
    note: Note = unsaid,
    say: Note = unsaid,
    **settings: Any,
) -> TrainResult:
    """Train a network, and write its weights: ``train("cifar_resnet20", data="pictures", output="best.safetensors")``.

    Args:
        network: A name of the zoo, or a reference.
        data: A folder with ``train/<class>/…`` and ``test/<class>/…``, or ``val/…``.
        output: The file of weights to write, ``.safetensors``.
        weights: What to start from; a head of other classes is drawn anew.
        epochs: How often every picture is seen; by default the recipe's.
        progress: Shows how long work goes on, such as ``rexport.progress_bar``.
        note: Called with a sentence where the user should know something, such as ``print``.
        say: Called with a sentence after each epoch.
        settings: Other attributes of :class:`rexport.jobs.train.TrainRequest`.

    Raises:
        RexportError: As :func:`rexport.jobs.train.run`.
    """
    from rexport.jobs.train import TrainRequest, run

    request = _request(
        TrainRequest, settings, network=network, data=data, output=output, weights=weights, epochs=epochs
    )
    return run(request, progress=progress, note=note, say=say)


def export(
    network: str | nn.Module,
    *,
    output: str | Path,
    weights: str | Path | None = None,
    example: str | torch.Tensor | Sequence[torch.Tensor] | dict[str, torch.Tensor] | None = None,
    size: int | tuple[int, int] | None = None,
    resize: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    progress: Progress = silent,
    note: Note = unsaid,
    **settings: Any,
) -> ExportReport:
    """Export a network to ONNX, as ``rexport onnx`` does: ``export(module, output="m.onnx", size=224)``.

    Args:
        network: A name, a spec or a reference; or a module, of which a copy is exported, in evaluation mode.
        output: The ONNX file to write.
        weights: A state dict or checkpoint, or published weights.
        example: What a network takes that takes no picture: a tensor, several, or a dictionary of keyword arguments;
            or ``module:function``, which returns one of these.
        size: Height and width of the pictures it takes, in pixels; a number for squares.
        resize: The shorter side that pictures are resized to before they are cropped, or height and width, in pixels.
        mean: Of pixels scaled to 0 … 1, for each channel.
        std: Likewise.
        progress: Shows how long work goes on, such as ``rexport.progress_bar``.
        note: Called with a sentence where the user should know something, such as ``print``.
        settings: Other attributes of :class:`rexport.jobs.export.ExportRequest`.

    Raises:
        RexportError: As :func:`rexport.jobs.export.run`.
    """
    from rexport.choices import FloatPrecision
    from rexport.jobs.export import ExportRequest, run
    from rexport.model_file import Head
    from rexport.preprocessing import PictureOptions

    for name, choice in {"head": Head, "precision": FloatPrecision}.items():
        if name in settings:
            settings[name] = choice(settings[name])
    options = _request(PictureOptions, {}, size=size, resize=resize, mean=mean, std=std)
    request = _request(
        ExportRequest, settings, network=network, output=output, weights=weights, example=example, options=options
    )
    return run(request, progress=progress, note=note)


def fuse(
    model: str | Path, *, output: str | Path, progress: Progress = silent, note: Note = unsaid, **settings: Any
) -> FuseResult:
    """Run the graph passes on an ONNX file: ``fuse("model.onnx", output="fused.onnx")``.

    The passes on a graph in memory are :func:`rexport.passes.fuse`.

    Args:
        model: Any ONNX file.
        output: The file to write.
        progress: Shows how long work goes on, such as ``rexport.progress_bar``.
        note: Called with a sentence where the user should know something, such as ``print``.
        settings: Other attributes of :class:`rexport.jobs.fuse.FuseRequest`.

    Raises:
        RexportError: As :func:`rexport.jobs.fuse.run`.
    """
    from rexport.jobs.fuse import FuseRequest, run

    return run(_request(FuseRequest, settings, model=model, output=output), progress=progress, note=note)


def quantize(
    model: str | Path,
    *,
    output: str | Path,
    data: str | Path | None = None,
    target: str | Target | None = None,
    calibrator: str = "minmax",
    eval_data: str | Path | None = None,
    max_drop: float | None = None,
    progress: Progress = silent,
    note: Note = unsaid,
    **settings: Any,
) -> QuantizeResult:
    """Quantize a float ONNX file to INT8: ``quantize("model.onnx", data="pictures", output="int8.onnx")``.

    Args:
        model: A float ONNX file.
        output: The file to write.
        data: Pictures to calibrate with: ``DIR/<class>/<picture>``, a flat folder, or an ``.npy`` or ``.npz`` file.
        target: What will run the file, such as ``x86`` or ``tensorrt``; by default this machine.
        calibrator: The choice of ranges from the statistics, such as ``percentile`` or ``mse``.
        eval_data: Labelled pictures to measure accuracy on.
        max_drop: The largest loss of top-1 on them, in percentage points; layers stay in float until it holds.
        progress: Shows how long work goes on, such as ``rexport.progress_bar``.
        note: Called with a sentence where the user should know something, such as ``print``.
        settings: Other attributes of :class:`rexport.jobs.quantize.QuantizeRequest`.

    Raises:
        RexportError: As :func:`rexport.jobs.quantize.run`; ``GateError`` too where ``max_drop`` can't be kept.
    """
    from rexport._cpu import this_cpu
    from rexport.calibration import Calibrator
    from rexport.choices import Recovery
    from rexport.jobs.quantize import QuantizeRequest, run
    from rexport.quantization import Target, target_for

    if settings.get("recovery") is not None:
        settings["recovery"] = Recovery(settings["recovery"])
    request = _request(
        QuantizeRequest,
        settings,
        model=model,
        output=output,
        data=data,
        target=target if isinstance(target, Target) else target_for(target, this_cpu()),
        calibrator=Calibrator.parse(calibrator),
        eval_data=eval_data,
        max_drop=max_drop,
    )
    result = run(request, progress=progress, note=note)
    result.require()
    return result


def predict(
    model: str | Path,
    *pictures: str | Path,
    top: int = 5,
    progress: Progress = silent,
    note: Note = unsaid,
    **settings: Any,
) -> PredictResult:
    """Classify pictures: ``predict("model.onnx", "cat.jpg")``.

    Args:
        model: An ONNX file, an engine, or the name of a network.
        pictures: Picture files, and folders of them.
        top: How many classes to name for each.
        progress: Shows how long work goes on, such as ``rexport.progress_bar``.
        note: Called with a sentence where the user should know something, such as ``print``.
        settings: Other attributes of :class:`rexport.jobs.predict.PredictRequest`.

    Raises:
        RexportError: As :func:`rexport.jobs.predict.run`.
    """
    from rexport.jobs.predict import PredictRequest, run

    request = _request(PredictRequest, settings, model=model, pictures=pictures, top=top)
    return run(request, progress=progress, note=note)


def evaluate(
    model: str | Path,
    *,
    data: str | Path,
    reference: str | Path | None = None,
    progress: Progress = silent,
    note: Note = unsaid,
    **settings: Any,
) -> EvaluateResult | OutputsResult:
    """Measure accuracy and agreement, as ``rexport eval``: ``evaluate("int8.onnx", data="test", reference="m.onnx")``.

    Args:
        model: An ONNX file, an engine, or the name of a network.
        data: Images: ``DIR/<class>/<image>``, a flat folder, or an ``.npy`` or ``.npz`` file.
        reference: An ONNX file to compare with.
        progress: Shows how long work goes on, such as ``rexport.progress_bar``.
        note: Called with a sentence where the user should know something, such as ``print``.
        settings: Other attributes of :class:`rexport.jobs.evaluate.EvaluateRequest`.

    Raises:
        RexportError: As :func:`rexport.jobs.evaluate.run`.
    """
    from rexport.jobs.evaluate import EvaluateRequest, run

    request = _request(EvaluateRequest, settings, model=model, data=data, reference=reference)
    return run(request, progress=progress, note=note)


def bench(
    *models: str | Path,
    runtimes: Sequence[str] | None = None,
    batches: Sequence[int] | None = None,
    data: str | Path | None = None,
    output: str | Path | None = None,
    progress: Progress = silent,
    note: Note = unsaid,
    **settings: Any,
) -> BenchReport:
    """Measure throughput and latency: ``bench("fp32.onnx", "int8.onnx", runtimes=["cpu", "openvino"])``.

    Args:
        models: ONNX files, engines and names of networks; the first is the baseline.
        runtimes: By default ONNX Runtime's CPU provider for files, and PyTorch for networks.
        batches: By default 1 and 8.
        data: Labelled pictures, for top-1 beside the speed.
        output: A JSON document to write.
        progress: Shows how long work goes on, such as ``rexport.progress_bar``.
        note: Called with a sentence where the user should know something, such as ``print``.
        settings: Other attributes of :class:`rexport.jobs.bench.BenchRequest`.

    Raises:
        RexportError: As :func:`rexport.jobs.bench.run`; ``UnavailableError`` too where nothing could be measured.
    """
    from rexport.jobs.bench import BenchRequest, run

    request = _request(
        BenchRequest, settings, models=models, runtimes=runtimes, batches=batches, data=data, output=output
    )
    report = run(request, progress=progress, note=note)
    report.require()
    return report


def tune(
    model: str | Path,
    *,
    output: str | Path,
    data: str | Path | None = None,
    eval_data: str | Path | None = None,
    max_drop: float | None = None,
    latency_bound_ms: float | None = None,
    progress: Progress = silent,
    note: Note = unsaid,
    **settings: Any,
) -> TuneResult:
    """Find the fastest runtime, batch and threads: ``tune("model.onnx", data="pictures", output="settings.toml")``.

    Args:
        model: An ONNX file, float or INT8.
        output: The file of settings to write.
        data: Pictures to make INT8 files of a float model with.
        eval_data: Labelled pictures to measure their accuracy on.
        max_drop: The percentage points of top-1 that they may lose.
        latency_bound_ms: The longest that 90 % of the calls may take, in milliseconds.
        progress: Shows how long work goes on, such as ``rexport.progress_bar``.
        note: Called with a sentence where the user should know something, such as ``print``.
        settings: Other attributes of :class:`rexport.jobs.tune.TuneRequest`.

    Raises:
        RexportError: As :func:`rexport.jobs.tune.run`; ``GateError`` too where nothing keeps within the bounds.
    """
    from rexport.choices import Goal, Recovery
    from rexport.jobs.tune import TuneRequest, run

    for name, choice in {"goal": Goal, "recovery": Recovery}.items():
        if settings.get(name) is not None:
            settings[name] = choice(settings[name])
    request = _request(
        TuneRequest,
        settings,
        model=model,
        output=output,
        data=data,
        eval_data=eval_data,
        max_drop=max_drop,
        latency_bound_ms=latency_bound_ms,
    )
    result = run(request, progress=progress, note=note)
    result.require()
    return result


def build_engine(
    model: str | Path,
    *,
    output: str | Path,
    backend: str = "tensorrt",
    capabilities: Sequence[int] = (),
    batch: str | None = None,
    progress: Progress = silent,
    note: Note = unsaid,
    **options: Any,
) -> EngineResult:
    """Build a TensorRT engine: ``build_engine("int8.onnx", output="int8.engine", backend="rtx", capabilities=[86])``.

    Args:
        model: An ONNX file, quantized for TensorRT or float.
        output: The engine to write; a file that describes it goes beside it.
        backend: ``tensorrt``, ``rtx`` or ``onnxruntime``.
        capabilities: The GPUs' compute capabilities times ten; by default the GPU that is here.
        batch: A batch, such as ``8``, or the least, the best and the most, such as ``1:8:32``.
        progress: Shows how long work goes on, such as ``rexport.progress_bar``.
        note: Called with a sentence where the user should know something, such as ``print``.
        options: Other attributes of :class:`rexport.engine.BuildOptions`.

    Raises:
        RexportError: As :func:`rexport.jobs.engine.run`.
    """
    from rexport.engine import BatchRange, BuildOptions
    from rexport.engine_file import BackendName
    from rexport.jobs.engine import EngineRequest, run

    build = _request(
        BuildOptions,
        options,
        backend=BackendName(backend),
        capabilities=capabilities,
        batch=None if batch is None else BatchRange.parse(batch),
    )
    request = EngineRequest(model=Path(model), output=Path(output), options=build)
    return run(request, progress=progress, note=note)


def bundle(
    model: str | Path,
    *,
    version: int,
    key: str | Path,
    output: str | Path | None = None,
    note: Note = unsaid,
    **settings: Any,
) -> BundleResult:
    """Make a signed bundle for devices: ``bundle("int8.onnx", version=1, key="private.pem")``.

    Args:
        model: An ONNX file of a classifier.
        version: From 1 on; devices refuse one that is lower than they had.
        key: The private key to sign with.
        output: The ``.rxb`` file to write; by default ``NAME-VERSION.rxb``.
        note: Called with a sentence where the user should know something, such as ``print``.
        settings: Other attributes of :class:`rexport.jobs.bundle.BundleRequest`.

    Raises:
        RexportError: As :func:`rexport.jobs.bundle.run`.
    """
    from rexport.jobs.bundle import BundleRequest, run

    return run(_request(BundleRequest, settings, model=model, version=version, key=key, output=output), note=note)


def deploy_bundle(
    bundle: str | Path,
    *devices: str,
    inventory: str | Path | None = None,
    groups: Sequence[str] = (),
    dry_run: bool = False,
    note: Note = unsaid,
    **settings: Any,
) -> DeployResult:
    """Install a bundle on devices over SSH: ``deploy_bundle("resnet50-1.rxb", "user@camera-1")``.

    Args:
        bundle: An ``.rxb`` file, or the folder of a bundle.
        devices: ``[user@]host[:port]`` each.
        inventory: A TOML file of devices; ``devices`` and ``groups`` select some of them.
        groups: Of the inventory.
        dry_run: Whether to look at the devices and change nothing.
        note: Called with a sentence where the user should know something, such as ``print``.
        settings: Other attributes of :class:`rexport.jobs.deploy.DeployRequest`.

    Raises:
        RexportError: As :func:`rexport.jobs.deploy.run`; ``DeviceError`` too where a device failed.
    """
    from rexport.deploy.inventory import DeviceSelection
    from rexport.jobs.deploy import DeployRequest, run

    selection = _request(DeviceSelection, {}, addresses=devices, inventory=inventory, groups=groups)
    result = run(_request(DeployRequest, settings, bundle=bundle, devices=selection, dry_run=dry_run), note=note)
    result.require_success()
    return result


def _request(kind: type[Request], settings: dict[str, Any], **values: Any) -> Request:
    """Return a request of a ``kind``, whose paths may be given as texts, and whose tuples as lists."""
    annotations = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type]
    given = settings | values
    for name in given:
        if name not in annotations:
            raise TypeError(f"{kind.__name__} has no {name!r}.{suggestion(name, annotations)}")
    return kind(**{name: _converted(value, annotations.get(name, "")) for name, value in given.items()})


def _converted(value: Any, annotation: str) -> Any:
    """Return a value as its attribute has it, which is annotated as ``Path``, ``tuple[Path, ...]`` and the like."""
    if isinstance(value, (list, range)):
        value = tuple(value)
    if isinstance(value, tuple):
        return tuple(_converted(item, annotation) for item in value)
    if isinstance(value, (str, Path)):
        if "Path" in annotation:
            return Path(value)
        if "str" in annotation:
            return str(value)
    return value
