"""PyTorch's exporter, asked for the plain translation of a module, and the passes and facts that every file gets."""

from __future__ import annotations

import gc
import inspect
import json
import logging
import warnings
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir
import torch

from rexport._errors import InputError, UsageError, VerificationError
from rexport.exporting._names import calls_in
from rexport.exporting._opset import lower_to_17
from rexport.model_file import Metadata, default_opset, to_bytes
from rexport.models.modules import in_one_line
from rexport.models.weights import state_dict_hash
from rexport.passes import fuse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rexport.passes import PassReport

__all__ = ["DEFAULT_OPSET", "OPSETS", "fused_at", "origin_of", "require_opset", "require_valid", "translate"]

# TensorRT 10.3, which JetPack 6 ships, reads opsets up to 20.
DEFAULT_OPSET = 20
# PyTorch's exporter writes opsets from 18 on; little changed between 17 and 18 (see _opset).
OPSETS = range(17, 24)
_DIRECT_FROM = 18
_RARELY = (100_000, 20, 100)


def require_opset(opset: int) -> None:
    """Raise :class:`UsageError` for an opset that is not one of ``OPSETS``."""
    if opset not in OPSETS:
        raise UsageError(f"Opset {opset} is not supported; choose one from {OPSETS[0]} to {OPSETS[-1]}.")


def translate(
    module: torch.nn.Module,
    arguments: tuple[torch.Tensor, ...] | dict[str, torch.Tensor],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Mapping[int, str],
    opset: int,
) -> tuple[ir.Model, dict[str, int]]:
    """Return what PyTorch's exporter makes of a module, and the calls of its modules (see :func:`calls_in`).

    Args:
        module: The module, in eval mode.
        arguments: What it takes, by position or by name.
        inputs: The names of these in the file.
        outputs: The names of the tensors that it returns.
        dynamic: The names of the axes that are open, by their index; the same of every argument.
        opset: The version of the operators, 18 or later; for 17 it is 18, see :func:`fused_at`.

    Raises:
        InputError: PyTorch can't export it.
    """
    args: tuple[torch.Tensor, ...] = ()
    kwargs: dict[str, torch.Tensor] = {}
    if isinstance(arguments, dict):
        kwargs = arguments
    else:
        args = arguments
    # optimize=False: PyTorch's own optimization folds BatchNormalization too, without a report
    with _quiet(), _collecting_rarely():
        try:
            program = torch.onnx.export(
                module,
                args,
                kwargs=kwargs,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=_axes_of(module, args, kwargs, dynamic) if dynamic else None,
                opset_version=max(opset, _DIRECT_FROM),
                dynamo=True,
                optimize=False,
                verbose=False,
            )
        except Exception as error:  # tracing and translation raise many kinds
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise InputError(
                f"PyTorch can't export the network ({in_one_line(cause)}); its control flow must not depend "
                "on the values of its inputs, and its operators must exist in ONNX."
            ) from error
    assert program is not None
    assert program.exported_program is not None
    _own_weights(program.model)
    return program.model, calls_in(program.exported_program)


def _axes_of(
    module: torch.nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor], dynamic: Mapping[int, str]
) -> dict[str, Any]:
    """Return the open axes of every argument, by the parameters of ``forward``; those of ``*args`` are a tuple."""
    axes: dict[str, Any] = {name: dict(dynamic) for name in kwargs}
    if args:
        for name, value in inspect.signature(module.forward).bind(*args).arguments.items():
            axes[name] = tuple(dict(dynamic) for _ in value) if isinstance(value, tuple) else dict(dynamic)
    return axes


def fused_at(model: ir.Model, *, opset: int, fused: bool) -> tuple[ir.Model, tuple[PassReport, ...]]:
    """Return a translated model at the opset that was asked for, after the passes if it is to be ``fused``."""
    reports: tuple[PassReport, ...] = ()
    if fused:
        result = fuse(model)
        model, reports = result.model, result.reports
    if opset < _DIRECT_FROM:
        lower_to_17(model)
    return model, reports


def origin_of(module: torch.nn.Module, network: str | None) -> Metadata:
    """Return what a file says of where it comes from."""
    return Metadata(
        network=network,
        weights_sha256=state_dict_hash(module),
        versions=json.dumps({name: version(name) for name in ("rexport", "torch", "onnx", "onnxscript", "onnx-ir")}),
    )


def require_valid(model: ir.Model, *, opset: int) -> None:
    """Raise :class:`VerificationError` for a model that is not valid ONNX, or of another opset."""
    if default_opset(model) != opset:
        raise VerificationError(f"PyTorch's exporter wrote opset {default_opset(model)} instead of {opset}.")
    try:
        onnx.checker.check_model(to_bytes(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise VerificationError(f"The exported model is not valid ONNX: {error}") from error


def _own_weights(model: ir.Model) -> None:
    """Copy the weights, which share the module's memory: training it further must not change the proven model."""
    for value in model.graph.initializers.values():
        shared = value.const_value
        if shared is not None:
            value.const_value = ir.Tensor(shared.numpy().copy(), dtype=shared.dtype, name=value.name)


@contextmanager
def _collecting_rarely() -> Iterator[None]:
    """Let Python collect garbage a hundred times less often: the exporter makes millions of objects that stay.

    Exports of 110 to 560 layers took a sixth less time so, the deepest a quarter more memory.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(*_RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings: the result is checked afterwards."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
