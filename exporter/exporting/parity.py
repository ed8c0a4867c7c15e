"""Proof that an exported model computes what its PyTorch module computes.

Both run on the same standard-normal pictures (the scale of normalised images) at several batch sizes, and at a second
height and width if the model takes any; or on an example of the user's and random inputs like it (see ``_example``). A
model that takes raw images gets random pixels, and PyTorch the same, normalised as the model's metadata says; one that
resizes pictures must do it as Pillow does (see ``_pictures``). Each output may differ by the rounding of float32 sums
taken in another order, and by no more:

    max |onnx − torch|  ≤  tolerance · max |torch|

Where the model ends in a softmax, its logits z are compared too, as one large logit would hide differences. The
probabilities p, pᵢ = exp zᵢ / Σ exp zⱼ, may differ by the effect of that rounding of z, |Δp| ≤ 2 max p · max |Δz|:

    max |onnx − torch|  ≤  tolerance · max p · max(1, 2 max |z|)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rexport._errors import VerificationError
from rexport.exporting._example import Example
from rexport.exporting._features import returning
from rexport.exporting._names import call_name
from rexport.exporting._pictures import RandomPictures
from rexport.model_file import Head, to_bytes
from rexport.model_inputs import image_input
from rexport.models.modules import in_one_line, returning_all
from rexport.passes._graph import producer_of
from rexport.runtimes.onnxruntime import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import onnx_ir as ir

    from rexport.preprocessing import Size

__all__ = ["DEFAULT_TOLERANCE", "PROBABILITIES", "Parity", "prove_example", "prove_parity"]

PROBABILITIES = "probabilities"  # the name of a softmax's output

# A float32 operation rounds by 6e-8 of its result. Over the zoo (18 to 152 layers, sums of up to 4,608 terms, random
# batch statistics) the logits were measured to differ by 3e-7 to 1.2e-6 of their scale. One weight that is off by its
# layer's standard deviation shows at 2e-3 in ResNet-20 and 5e-5 in ResNet-50 (medians over the layers); a weight that
# only meets channels which are zero for these pictures can't show at all.
DEFAULT_TOLERANCE = 1e-5
_RUNS = 8  # of a network that may be random: dropout of four scores gives the same result twice in one of 16 tries


@dataclass(frozen=True, kw_only=True)
class Parity:
    """A proof: no value of an output differed by more than ``difference`` of that output's scale.

    Attributes:
        batches: The batch sizes tried; none if an example has no batch.
        sizes: The heights and widths tried, in pixels; none if the model takes no pictures.
        outputs: The largest difference of each output, by its name.
        tolerance: The largest difference allowed.
        levels: The largest difference of a pixel from Pillow's, in levels of grey, in a model that resizes pictures.
    """

    batches: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    outputs: Mapping[str, float]
    tolerance: float
    levels: int | None = None

    @property
    def difference(self) -> float:
        """The largest difference of all outputs."""
        return max(self.outputs.values())

    def __str__(self) -> str:
        """Return the proof in a sentence."""
        tried = "at batch " + ", ".join(map(str, self.batches)) if self.batches else "on the example"
        if len(self.sizes) > 1:
            tried += f" and {' and '.join(f'{height}×{width}' for height, width in self.sizes)} pixels"
        resized = ""
        if self.levels is not None:
            resized = f"; pixels differ from Pillow's by at most {self.levels} of 255 levels"
        outputs = "features" if self.sizes else "outputs"
        if len(self.outputs) == 1:
            outputs = next(iter(self.outputs))
        return (
            f"equal to PyTorch {tried}: max relative difference of {outputs} {self.difference:.1e} "
            f"(limit {self.tolerance:.0e}){resized}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the proof for a JSON document."""
        return {
            "batches": self.batches,
            "sizes": self.sizes,
            "difference": self.difference,
            "outputs": dict(self.outputs),
            "tolerance": self.tolerance,
            "levels": self.levels,
        }


@dataclass(frozen=True)
class _Expected:
    """The expected values of a tensor, and the scale that differences are fractions of."""

    values: np.ndarray
    scale: float

    @classmethod
    def of(cls, tensor: torch.Tensor) -> _Expected:
        values = tensor.numpy()
        return cls(values, float(np.abs(values).max(initial=0.0)))

    def difference(self, actual: np.ndarray) -> float:
        """Return max |actual − values| as a fraction of the scale; infinite for other shapes or NaN."""
        if actual.shape != self.values.shape or not np.isfinite(actual).all():
            return float("inf")
        return float(np.abs(actual.astype(np.float64) - self.values).max(initial=0.0)) / (self.scale or 1.0)


def prove_parity(
    module: torch.nn.Module,
    model: ir.Model,
    *,
    size: Size,
    head: Head = Head.LOGITS,
    features: Sequence[str] = (),
    results: Sequence[str] = (),
    batches: Sequence[int] = (1, 2, 5),
    tolerance: float = DEFAULT_TOLERANCE,
    seed: int = 0,
) -> Parity:
    """Compare the outputs of ``module`` (in eval mode) and ``model`` in ONNX Runtime.

    Args:
        module: Takes float32 of shape ``(N, C, H, W)``.
        model: Its export, with one image input; a model with a fixed batch is compared at that batch only. One that
            takes raw images says in its metadata how they are normalised.
        size: Of the pictures; a model that takes any is compared at another size too.
        head: The function of the module's logits that the model computes.
        features: The modules whose results are the model's outputs, in order; without them and ``results``, its first
            output is compared with the result of ``module``.
        results: The results of ``module`` that are the model's outputs instead, in order (see
            :func:`rexport.models.modules.named_results`).
        batches: The batch sizes to try.
        tolerance: Largest difference allowed, as a fraction of the largest value of the output in the batch.
        seed: The seed of the random pictures.

    Raises:
        VerificationError: They differ; the message names the output, and the first tensor in which they do. Or the
            model does not run, or resizes pictures differently from Pillow.
    """
    image = image_input(model)
    comparison = _Comparison(
        module=module,
        model=_with_logits(model) if head is Head.SOFTMAX else model,
        outputs=tuple(features) or tuple(str(value.name) for value in model.graph.outputs),
        returning=lambda: returning_all(module, results) if results else returning(module, features),
        features=tuple(features),
        head=head,
        tolerance=tolerance,
    )
    pictures = RandomPictures(model, size=size, seed=seed)
    tried = tuple(batches) if image.batch is None else (image.batch,)
    sizes = pictures.sizes
    for batch, (height, width) in _trials(tried, sizes):
        drawn, normalised = pictures.draw(batch, height, width)
        trial, hint = f"at batch {batch}", ""
        if len(sizes) > 1:
            trial += f" of {height}×{width} pixels"
            hint = " A network that does not average over whole pictures needs one size."
        example = Example(tensors={image.name: torch.from_numpy(normalised)}, by_name=False)
        comparison.compare({image.name: drawn}, example, trial, hint)
    return Parity(batches=tried, sizes=sizes, outputs=comparison.worst, tolerance=tolerance, levels=pictures.levels)


def prove_example(
    module: torch.nn.Module,
    model: ir.Model,
    example: Example,
    *,
    results: Mapping[str, str],
    batches: Sequence[int],
    tolerance: float = DEFAULT_TOLERANCE,
    seed: int = 0,
) -> Parity:
    """Compare the outputs of ``module`` (in eval mode) and ``model`` in ONNX Runtime on an example.

    Args:
        module: The network.
        model: Its export.
        example: What both take.
        results: The result of the module that each output of the model is, by the output's name (see
            :func:`rexport.models.modules.named_results`).
        batches: Those to try the example at; none for the example as it is. Each is tried with random floats too.
        tolerance: As for :func:`prove_parity`.
        seed: The seed of the floats.

    Raises:
        VerificationError: They differ, or the model does not run.
    """
    comparison = _Comparison(
        module=module,
        model=model,
        outputs=tuple(results),
        returning=lambda: returning_all(module, tuple(results.values())),
        tolerance=tolerance,
    )
    random = torch.Generator().manual_seed(seed)
    trials = {f"at batch {batch}": example.at(batch) for batch in batches} or {"on the example": example}
    for trial, inputs in trials.items():
        comparison.compare(inputs.feed, inputs, trial)
        if inputs.varies:
            varied = inputs.varied(random)
            comparison.compare(varied.feed, varied, f"{trial}, with random floats")
    return Parity(batches=tuple(batches), sizes=(), outputs=comparison.worst, tolerance=tolerance)


def _require_numbers(name: str, values: np.ndarray, trial: str) -> None:
    if values.size == 0:
        raise VerificationError(f"PyTorch's own {name} are empty {trial}, so nothing can be compared.")
    if not np.isfinite(values).all():
        raise VerificationError(
            f"PyTorch's own {name} are not finite {trial}: the weights are broken, or the network was never trained "
            "and overflows."
        )


def _trials(batches: Sequence[int], sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield every batch at the first size, and the second batch (or the only one) at the other sizes."""
    for batch in batches:
        yield batch, sizes[0]
    for size in sizes[1:]:
        yield batches[:2][-1], size


def _with_logits(model: ir.Model) -> ir.Model:
    """Return a copy whose first output is the softmax's input, if its output is that of a softmax."""
    copy = model.clone()
    softmax = producer_of(copy.graph.outputs[0], "Softmax")
    if softmax is not None and softmax.inputs[0] is not None:
        copy.graph.outputs.insert(0, softmax.inputs[0])
    return copy


class _Comparison:
    """Compares a module and its export, input by input.

    Attributes:
        worst: The largest difference of each output so far.
    """

    def __init__(
        self,
        *,
        module: torch.nn.Module,
        model: ir.Model,
        outputs: Sequence[str],
        returning: Callable[[], AbstractContextManager[None]],
        features: Sequence[str] = (),
        head: Head = Head.LOGITS,
        tolerance: float,
    ) -> None:
        self.worst: dict[str, float] = {}
        self._module, self._model, self._outputs, self._returning = module, model, outputs, returning
        self._features, self._head, self._tolerance = features, head, tolerance
        self._session = open_session(to_bytes(model))

    def compare(self, feed: Mapping[str, np.ndarray], example: Example, trial: str, hint: str = "") -> None:
        """Compare the model's results for ``feed`` with the module's for ``example``.

        Raises:
            VerificationError: They differ, or the model does not run.
        """
        try:
            expected = self._expected(example)
        except Exception as error:  # whatever a network of the user's raises
            raise VerificationError(f"The PyTorch module does not run {trial}: {in_one_line(error)}.") from error
        try:
            results = self._session.run(list(expected), dict(feed))
        except Exception as error:  # ONNX Runtime's errors share no public base class
            raise VerificationError(f"The exported model does not run {trial}: {error}.{hint}") from error
        for (name, tensor), actual in zip(expected.items(), results, strict=True):
            _require_numbers(name, tensor.values, trial)
            difference = tensor.difference(actual)
            if not difference <= self._tolerance:
                kind = "output" if name in self._outputs else "tensor"
                raise VerificationError(
                    f"The exported model differs from the PyTorch module: {trial}, {kind} {name!r}, max "
                    f"relative difference {difference:.1e} (limit {self._tolerance:.1e}). "
                    + self._where(feed, example, expected)
                )
            if name in self._outputs:
                self.worst[name] = max(self.worst.get(name, 0.0), difference)

    def _results(self, example: Example) -> list[torch.Tensor]:
        """Return the tensors that the module gives."""
        with torch.inference_mode(), self._returning():
            result = example.given_to(self._module)
        return [result] if isinstance(result, torch.Tensor) else list(result)

    def _expected(self, example: Example) -> dict[str, _Expected]:
        """Return the expected outputs of the model, in their order."""
        results = self._results(example)
        if self._head is Head.LOGITS:
            return {name: _Expected.of(tensor) for name, tensor in zip(self._outputs, results, strict=True)}
        names = [str(value.name) for value in self._model.graph.outputs]
        logits, probabilities = _Expected.of(results[0]), torch.softmax(results[0], dim=1).numpy()
        scale = float(probabilities.max()) * max(1.0, 2 * logits.scale)
        return dict(zip(names, [logits, _Expected(probabilities, scale)][-len(names) :], strict=True))

    def _where(self, feed: Mapping[str, np.ndarray], example: Example, outputs: Mapping[str, _Expected]) -> str:
        """Say in which tensor the two differ first."""
        if self._is_random(example):
            return (
                "PyTorch's own results for the same inputs vary: something random ignores eval mode, such as "
                "F.dropout without training=self.training."
            )
        expected = _module_results(self._module, example, self._features)
        for name, output in outputs.items():
            if name not in self._features:
                expected.pop(name, None)  # a layer of that name that is not the last
                expected[name] = output
        exposed = self._model.clone()
        values = {str(v.name): v for node in exposed.graph for v in node.outputs if v.name in expected}
        exposed.graph.outputs.extend(v for v in values.values() if not v.is_graph_output())
        names = [name for name in expected if name in values]
        results = open_session(to_bytes(exposed)).run(names, dict(feed))
        for name, actual in zip(names, results, strict=True):
            difference = expected[name].difference(actual)
            if not difference <= self._tolerance:
                return f"The first tensor that differs is {name!r}: max relative difference {difference:.1e}."
        return "No single layer differs by more: this is accumulated rounding, just above the limit."

    def _is_random(self, example: Example) -> bool:
        first, *others = [self._results(example) for _ in range(_RUNS)]
        return any(
            not _Expected.of(tensor).difference(repeated.numpy()) <= self._tolerance
            for results in others
            for tensor, repeated in zip(first, results, strict=True)
        )


def _module_results(module: torch.nn.Module, example: Example, features: Collection[str]) -> dict[str, _Expected]:
    """Return the result of every call of every leaf module, and the features, in order, by their exported names."""
    results: dict[str, _Expected] = {}
    calls: Counter[str] = Counter()

    def remember(path: str, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            # an in-place ReLU will overwrite it
            results[call_name(path, calls[path])] = _Expected.of(output.detach().clone())
        calls[path] += 1

    hooks = [
        child.register_forward_hook(lambda _module, _inputs, output, path=path: remember(path, output))
        for path, child in module.named_modules()
        if path in features or (path and not any(True for _ in child.children()))
    ]
    try:
        with torch.no_grad():
            example.given_to(module)
    finally:
        for hook in hooks:
            hook.remove()
    return results
