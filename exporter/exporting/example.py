"""Exporting a network that takes no picture, from an example of its inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rexport._errors import InputError, UsageError, VerificationError
from rexport.exporting._example import Example
from rexport.exporting._names import name_after_modules, name_tensors, output_names
from rexport.exporting._translation import (
    DEFAULT_OPSET,
    fused_at,
    origin_of,
    require_opset,
    require_valid,
    translate,
)
from rexport.exporting.export import ExportResult
from rexport.exporting.parity import DEFAULT_TOLERANCE, prove_example
from rexport.model_inputs import fixed_batch
from rexport.models.modules import in_one_line, named_results, returning_all, unwrapped
from rexport.passes import FoldConstants

if TYPE_CHECKING:
    from torch import nn

__all__ = ["export_example"]


def export_example(
    module: nn.Module,
    example: object,
    *,
    network: str | None = None,
    result: str | None = None,
    batch: int | None = None,
    opset: int = DEFAULT_OPSET,
    fused: bool = True,
    tolerance: float = DEFAULT_TOLERANCE,
) -> ExportResult:
    """Export ``module`` as it is in eval mode, with the inputs of an example, and prove the result.

    Inputs are called as the keys of a dictionary or the parameters of ``forward``, outputs as
    :func:`rexport.models.modules.named_results` calls them. The first axis is open if all tensors of the example share
    its length. The proof is on the example at its own batch and at two others, its items repeated or cut, and on random
    floats of the same shapes; integers stay as they are.

    Args:
        module: The network. It is put into eval mode, and unwrapped from ``torch.compile`` or DataParallel.
        example: What it takes: a tensor, a tuple of tensors, or a dictionary of keyword arguments.
        network: The name to store in the file, from which later commands can build the network again.
        result: The one result to export; by default all of them.
        batch: A fixed length of the first axis.
        opset: The version of the standard ONNX operators, one of :data:`rexport.exporting.export.OPSETS`.
        fused: Whether to run the passes of :data:`rexport.passes.DEFAULT_PASSES`.
        tolerance: See :func:`rexport.exporting.prove_parity`.

    Raises:
        UsageError: The opset is not supported; the network does not run on the example, or returns no tensor or none
            called ``result``; or the batch is to be fixed, and there is none.
        InputError: PyTorch can't export the network.
        VerificationError: The result is not valid ONNX, not of the opset, or not equal to the module.
    """
    require_opset(opset)
    module = unwrapped(module)
    module.eval()
    inputs = Example.of(module, example)
    if batch is not None:
        inputs = _at(inputs, batch)
    names = _results(module, inputs, result)
    dynamic = batch is None and inputs.batch is not None
    batches = _batches(inputs.batch, dynamic=dynamic)
    for other in batches[1:]:
        _run(module, inputs.at(other), f" If the first axis is no batch, pass --batch {inputs.batch}.")
    # a length of 1 would be taken for a constant
    traced = inputs.at(2) if dynamic and inputs.batch == 1 else inputs
    results = output_names(names, {*inputs.tensors, *module.state_dict()})
    with returning_all(module, names):
        try:
            model, calls = translate(
                module,
                traced.arguments,
                inputs=list(inputs.tensors),
                outputs=list(results),
                dynamic={0: "batch"} if dynamic else {},
                opset=opset,
            )
        except InputError as error:
            if not dynamic:
                raise
            raise InputError(f"{error} If the first axis is no batch, pass --batch {inputs.batch}.") from error
    name_tensors(model.graph, list(inputs.tensors), list(results))
    FoldConstants()(model)
    name_after_modules(model, module, calls)
    model, reports = fused_at(model, opset=opset, fused=fused)
    origin_of(module, network).write_to(model)
    require_valid(model, opset=opset)
    if dynamic and fixed_batch(model) is not None:
        raise VerificationError(
            f"PyTorch's exporter fixed the first axis to the example's; pass --batch {inputs.batch}."
        )
    parity = prove_example(module, model, inputs, results=results, batches=batches, tolerance=tolerance)
    return ExportResult(model=model, parity=parity, reports=reports, feed=inputs.feed)


def _at(example: Example, batch: int) -> Example:
    if example.batch is None:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in example.tensors.items())
        raise UsageError(
            f"--batch {batch}: the example's tensors have no first axis of one length ({shapes}), so the file takes "
            "them as they are; leave it out."
        )
    return example.at(batch)


def _results(module: nn.Module, example: Example, result: str | None) -> list[str]:
    """Run the network, and return the names of its results, or the one that is wanted."""
    names = list(named_results(_run(module, example)))
    if result is None:
        return names
    if result not in names:
        raise UsageError(f"--result {result}: the network returns {', '.join(names)}.")
    return [result]


def _run(module: nn.Module, example: Example, hint: str = "") -> object:
    try:
        with torch.inference_mode():
            return example.given_to(module.forward)  # not the module itself, whose hooks may leave one result
    except UsageError:
        raise
    except Exception as error:  # whatever a network of the user's raises
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in example.tensors.items())
        raise UsageError(f"The network does not run on the example, {shapes} ({in_one_line(error)}).{hint}") from error


def _batches(own: int | None, *, dynamic: bool) -> tuple[int, ...]:
    """Return the batches to try: the example's own, and if others will do a larger and a smaller one."""
    if own is None:
        return ()
    if not dynamic:
        return (own,)
    return (own, own + 1, 3 if own == 1 else 1)
