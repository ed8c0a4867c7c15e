"""Proof that an exported model computes what its PyTorch module computes.

Both run on the same standard-normal pictures (the scale of normalised images) at several batch sizes. Their logits
may differ by the rounding of float32 sums taken in another order, and by no more:

    max |onnx − torch|  ≤  tolerance · max |torch|
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rexport._errors import VerificationError
from rexport.exporting._names import call_name
from rexport.model_file import image_input, to_bytes
from rexport.runtimes.onnxruntime import open_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

__all__ = ["DEFAULT_TOLERANCE", "Parity", "prove_parity"]

# A float32 operation rounds by 6e-8 of its result. Over the zoo (18 to 152 layers, sums of up to 4,608 terms, random
# batch statistics) the logits were measured to differ by 3e-7 to 1.2e-6 of their scale. One weight that is off by its
# layer's standard deviation shows at 2e-3 in ResNet-20 and 5e-5 in ResNet-50 (medians over the layers); a weight that
# only meets channels which are zero for these pictures can't show at all.
DEFAULT_TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Parity:
    """A proof: at the ``batches`` tried, no logit differed by more than ``difference`` of the logits' scale."""

    batches: tuple[int, ...]
    difference: float
    tolerance: float


def prove_parity(
    module: torch.nn.Module,
    model: ir.Model,
    *,
    size: int,
    batches: Sequence[int] = (1, 2, 5),
    tolerance: float = DEFAULT_TOLERANCE,
    seed: int = 0,
) -> Parity:
    """Compare the first outputs of ``module`` (in eval mode) and ``model`` in ONNX Runtime.

    Args:
        module: Takes float32 of shape ``(N, 3, size, size)``.
        model: Its export, with one image input; a model with a fixed batch is compared at that batch only.
        size: Height and width of the pictures.
        batches: The batch sizes to try.
        tolerance: Largest difference allowed, as a fraction of the largest logit of the batch.
        seed: Of the random pictures.

    Raises:
        VerificationError: They differ; the message names the first tensor in which they do.
    """
    fixed = image_input(model).batch
    session = open_session(to_bytes(model))
    name = session.get_inputs()[0].name
    random = np.random.default_rng(seed)
    tried = tuple(batches) if fixed is None else (fixed,)
    worst = 0.0
    for batch in tried:
        images = random.standard_normal((batch, 3, size, size), dtype=np.float32)
        with torch.inference_mode():
            expected = module(torch.from_numpy(images)).numpy()
        if not np.isfinite(expected).all():
            raise VerificationError(
                f"PyTorch's own logits are not finite at batch {batch}: the weights are broken, or the network "
                "was never trained and overflows."
            )
        difference = _relative_difference(expected, session.run(None, {name: images})[0])
        if not difference <= tolerance:
            raise VerificationError(
                f"The exported model is not equal to the PyTorch module: at batch {batch} its logits differ by "
                f"{difference:.1e} of their scale, and {tolerance:.1e} is allowed. "
                + _where(module, model, images, tolerance)
            )
        worst = max(worst, difference)
    return Parity(batches=tried, difference=worst, tolerance=tolerance)


def _relative_difference(expected: np.ndarray, actual: np.ndarray) -> float:
    """Return max |actual − expected| / max |expected|; infinite for other shapes or NaN."""
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return float("inf")
    scale = float(np.abs(expected).max(initial=0.0))
    difference = float(np.abs(actual.astype(np.float64) - expected).max(initial=0.0))
    return difference / scale if scale else difference


def _where(module: torch.nn.Module, model: ir.Model, images: np.ndarray, tolerance: float) -> str:
    """Say in which tensor the two differ first."""
    expected, output = _module_results(module, images), str(model.graph.outputs[0].name)
    logits = expected.pop("")
    expected.pop(output, None)  # a layer of that name that is not the last
    expected[output] = logits
    exposed = model.clone()
    values = {str(v.name): v for node in exposed.graph for v in node.outputs if v.name in expected}
    exposed.graph.outputs.extend(v for v in values.values() if not v.is_graph_output())
    session = open_session(to_bytes(exposed))
    names = [value.name for value in session.get_outputs() if value.name in expected]
    results = session.run(names, {session.get_inputs()[0].name: images})
    actual: dict[str, np.ndarray] = dict(zip(names, results, strict=True))
    for name, reference in expected.items():
        if name in actual:
            difference = _relative_difference(reference, actual[name])
            if not difference <= tolerance:
                return f"The first tensor that differs is {name!r}, by {difference:.1e} of its scale."
    return "No layer's own result differs by more: it is the rounding, at the edge of what is allowed."


def _module_results(module: torch.nn.Module, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the result of every call of every leaf module, in the order of the calls, under its exported name.

    The module's own result is the last, under the empty name.
    """
    results: dict[str, np.ndarray] = {}
    calls: Counter[str] = Counter()

    def remember(path: str, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            # an in-place ReLU will overwrite it
            results[call_name(path, calls[path])] = output.detach().clone().numpy()
        calls[path] += 1

    hooks = [
        child.register_forward_hook(lambda _module, _inputs, output, path=path: remember(path, output))
        for path, child in module.named_modules()
        if not path or not any(child.children())
    ]
    try:
        with torch.no_grad():
            module(torch.from_numpy(images))
    finally:
        for hook in hooks:
            hook.remove()
    return results
