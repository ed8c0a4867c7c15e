"""The first layer whose result differs between two runtimes, or two files.

A *reference*, computed by ONNX Runtime on the CPU node by node, without any optimization, has the right values of all
tensors. A *candidate*, the same or another file on any runtime, computes a few of them. They are cuts: a layer that
reads one gets the reference's values. So each part between two cuts is judged by itself, and errors do not accumulate:
after twenty layers of integers, single roundings that fell the other way have become 30 dB of noise on a runtime
without a fault, more than a wrong weight makes in its own layer.

The parts that differ by more than one layer's arithmetic explains (see ``likeness``) are cut further, the first one
first, until a part is one layer: the *first divergent layer*, all of whose inputs agree. Parts of several layers are
judged as if they were one, so their difference may turn out to be rounding, and the search goes on. If it is more than
rounding, and no layer alone differs, the result is the whole part: the runtime fuses something in it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rexport._errors import ModelFileError, UsageError
from rexport._progress import Progress, silent
from rexport.evaluation.likeness import Arithmetic, Difference, difference
from rexport.evaluation.result import finite
from rexport.model_file import Metadata
from rexport.runtimes import ENGINE_RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    import onnx_ir as ir

    from rexport.evaluation.candidate import Candidate
    from rexport.evaluation.reference import Reference
    from rexport.evaluation.tensors import Tensor

__all__ = ["Divergence", "DivergenceReport", "TensorRow", "find_divergence"]

_AT_ONCE = 8
_NUMBERS = 2**26  # of all tensors of one run: 256 MiB on either side
_TENSOR_FLOAT = {"tensorrt", *ENGINE_RUNTIMES.values()}  # they compute float32 in it
_SEVERAL_LAYERS_DB = 20.0  # what the roundings of a few layers add up to stays above, and what is wrong falls below


@dataclass(frozen=True, kw_only=True)
class TensorRow:
    """A tensor that was looked at.

    Attributes:
        tensor: Its name in the candidate.
        node: The name of the node that computes it.
        op_type: Its operator.
        layers: How many tensors lie between those that were given and it, itself included.
        difference: From the reference's.
        diverges: Whether that is more than the arithmetic explains.
    """

    tensor: str
    node: str
    op_type: str
    layers: int
    difference: Difference
    diverges: bool

    def to_json(self) -> dict[str, Any]:
        """Return it for a JSON document; a number that is not finite is ``null``."""
        off = self.difference
        return {
            "tensor": self.tensor,
            "node": self.node,
            "op_type": self.op_type,
            "layers": self.layers,
            "sqnr_db": finite(off.sqnr_db),
            "largest": finite(off.largest),
            "peak": finite(off.peak),
            "steps": off.steps,
            "other_steps": off.other_steps,
            "diverges": self.diverges,
        }


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """Where a candidate first differs from a reference.

    Attributes:
        row: The tensor, and the node that computes it.
        nodes: All nodes of the part, in order; more than one where none of them differs by itself.
        inputs: The tensors that the part reads, on which both agree or were made to.
    """

    row: TensorRow
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it for a JSON document."""
        return {**self.row.to_json(), "nodes": list(self.nodes), "inputs": list(self.inputs)}

    def __str__(self) -> str:
        """Say it in a sentence."""
        row = self.row
        if len(self.nodes) > 1:
            return (
                f"The first difference arises between {' and '.join(self.inputs)} and {row.tensor}, in what is made of "
                f"{', '.join(self.nodes)} together: no layer of it differs by itself."
            )
        if row.difference.other_steps:
            return f"The first tensor that differs is {row.tensor}: it is stored as integers of other steps."
        return f"The first layer that differs is {row.node} ({row.op_type}), which computes {row.tensor}."


@dataclass(frozen=True, kw_only=True)
class DivergenceReport:
    """The result of a search.

    Attributes:
        first: The first divergence; ``None`` if there is none.
        rows: The last comparison of each compared tensor, in topological order.
        arithmetic: The arithmetic that explains differences.
        tensors: How many tensors could be compared.
    """

    first: Divergence | None
    rows: tuple[TensorRow, ...]
    arithmetic: Arithmetic
    tensors: int

    def to_json(self) -> dict[str, Any]:
        """Return it for a JSON document."""
        return {
            "arithmetic": str(self.arithmetic),
            "least_sqnr_db": self.arithmetic.least_sqnr_db,
            "tensors": self.tensors,
            "first": self.first and self.first.to_json(),
            "rows": [row.to_json() for row in self.rows],
        }


def find_divergence(
    reference: Reference,
    candidate: Candidate,
    *,
    at_once: int = _AT_ONCE,
    progress: Progress = silent,
) -> DivergenceReport:
    """Find the first layer in which a candidate differs from a reference.

    Args:
        reference: The right values.
        candidate: The model to search. Its file must have tensors of the reference's names.
        at_once: Cuts inside a part that is searched, 1 or more: with fewer, the runtime has more of the model to fuse,
            and is started more often.
        progress: Reports every run.

    Raises:
        UsageError: They have no tensors in common, or one of another shape, or an equalized file meets a float one.
        ModelFileError: A file has no image input, or does not run.
        UnavailableError: The candidate's runtime can't be used here.
    """
    if at_once < 1:
        raise UsageError(f"Look at 1 tensor or more at once, not {at_once}.")
    arithmetic = _arithmetic(candidate, reference)
    tensors = candidate.graph.tensors(reference.graph.names)
    if not tensors:
        raise UsageError("The two models have no tensors of the same names, so there is nothing to compare.")
    with progress("comparing layers", None) as advance:
        search = _Search(
            reference=reference,
            candidate=candidate,
            arithmetic=arithmetic,
            tensors={tensor.name: tensor for tensor in tensors},
            at_once=at_once,
            advance=advance,
        )
        return search.report()


def _arithmetic(candidate: Candidate, reference: Reference) -> Arithmetic:
    if candidate.graph.is_quantized != reference.graph.is_quantized:
        if _is_equalized(candidate.model) or _is_equalized(reference.model):
            raise UsageError(
                "The INT8 file's tensors were equalized, channel by channel, so they are not those of the float file; "
                "compare it with itself on another runtime, or quantize with --recover none to compare with the float "
                "file."
            )
        return Arithmetic.EIGHT_BITS
    if candidate.graph.is_quantized:
        return Arithmetic.INT8
    halves = candidate.graph.is_half or reference.graph.is_half or candidate.runtime in _TENSOR_FLOAT
    return Arithmetic.FLOAT16 if halves else Arithmetic.FLOAT32


def _is_equalized(model: ir.Model) -> bool:
    """Say whether a file says that its tensors were scaled to be quantized."""
    recovered = str(json.loads(Metadata.of(model).quantization or "{}").get("recovered"))
    return re.match(r"0*[1-9]\d* tensors equalized", recovered) is not None


@dataclass(frozen=True, kw_only=True)
class _Search:
    """A search and the ``rows`` of its measurements; ``tensors`` are in topological order."""

    reference: Reference
    candidate: Candidate
    arithmetic: Arithmetic
    tensors: dict[str, Tensor]
    at_once: int
    advance: Callable[[int], None]
    rows: dict[str, TensorRow] = field(default_factory=dict)

    def report(self) -> DivergenceReport:
        first = self.first(list(self.tensors), frozenset())
        rows = tuple(self.rows[name] for name in self.tensors if name in self.rows)
        return DivergenceReport(first=first, rows=rows, arithmetic=self.arithmetic, tensors=len(self.tensors))

    def first(self, names: Sequence[str], cuts: frozenset[str]) -> Divergence | None:
        """Return the first divergence among tensors of one part, whose last is ``names[-1]``, between ``cuts``."""
        picked = _spread(names, self.at_once)
        cuts |= set(picked)
        for row in self._look([self.tensors[name] for name in picked], cuts):
            if not row.diverges:
                continue
            if row.layers == 1:
                return self._inside(row, cuts)
            inside = self._part(row.tensor, cuts)
            divergence = self.first([*inside, row.tensor], cuts)
            if divergence is not None:
                return divergence
            if row.difference.sqnr_db < min(_SEVERAL_LAYERS_DB, self.arithmetic.least_sqnr_db):
                nodes = tuple(self.tensors[name].node for name in (*inside, row.tensor))
                self.rows[row.tensor] = row
                return Divergence(row=row, nodes=nodes, inputs=self.candidate.graph.before([row.tensor], cuts))
        return None

    def _look(self, tensors: Sequence[Tensor], cuts: Collection[str]) -> Iterator[TensorRow]:
        """Yield the rows of tensors between cuts, in order."""
        for part in _shared_out(tensors, self.candidate.batch):
            actual = self._compute([tensor.name for tensor in part], cuts)
            expected = self.reference.values([tensor.reference for tensor in part])
            for tensor in part:
                layers = len(self._part(tensor.name, cuts)) + 1
                row = self._row(tensor, expected[tensor.reference], actual[tensor.name], layers)
                self.rows[tensor.name] = row
                yield row

    def _part(self, name: str, cuts: Collection[str]) -> list[str]:
        """Return the tensors between cuts and a tensor, without them, in topological order."""
        between = self.candidate.graph.between(name, cuts)
        return [tensor for tensor in self.tensors if tensor in between]

    def _inside(self, row: TensorRow, cuts: Collection[str]) -> Divergence:
        """Return the divergence of a tensor, at the first of its inner tensors that differs if one does."""
        tensor, inputs = self.tensors[row.tensor], self.candidate.graph.before([row.tensor], cuts)
        if tensor.inner:
            actual = self._compute(tensor.inner, cuts)
            expected = self.reference.values(tensor.inner)
            for name in tensor.inner:
                node, op_type = self.candidate.graph.layer_of(name)
                inner = replace(tensor, name=name, node=node, op_type=op_type)
                inner_row = self._row(inner, expected[name], actual[name], 1)
                if inner_row.diverges:
                    return Divergence(row=inner_row, nodes=(node,), inputs=inputs)
        return Divergence(row=row, nodes=(row.node,), inputs=inputs)

    def _compute(self, names: Sequence[str], cuts: Collection[str]) -> dict[str, np.ndarray]:
        """Return the candidate's results for the reference's values at cuts."""
        graph, batch = self.candidate.graph, self.candidate.batch
        model, starts = graph.cut_out(names, cuts, batch=batch)
        references = {name: self.tensors[name].reference for name in starts if name != graph.input}
        values = self.reference.values(list(references.values()))
        inputs = []
        for name in starts:
            array = values[references[name]] if name in references else self.candidate.images
            if array.shape != (batch, *graph.shape_of(name)):
                raise _other_shape(name, array.shape, (batch, *graph.shape_of(name)))
            inputs.append(array.reshape(batch, -1).astype(np.float32))
        flat = self.candidate.run(model, np.concatenate(inputs, axis=1))
        self.advance(1)
        shapes = [graph.shape_of(name) for name in names]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        if flat.shape != (batch, ends[-1]):
            raise ModelFileError(f"The runtime gave numbers of shape {flat.shape}, not {(batch, int(ends[-1]))}.")
        parts = np.split(flat, ends[:-1], axis=1)
        return {n: p.reshape(batch, *s) for n, p, s in zip(names, parts, shapes, strict=True)}

    def _row(self, tensor: Tensor, expected: np.ndarray, actual: np.ndarray, layers: int) -> TensorRow:
        if expected.shape != actual.shape:
            raise _other_shape(tensor.name, expected.shape, actual.shape)
        step = self.reference.graph.step(tensor.reference)
        if self.arithmetic is Arithmetic.INT8 and step is None:
            step = tensor.step  # an inner tensor has that of the integers it becomes
        elif self.arithmetic is not Arithmetic.INT8:
            step = None
        error = difference(expected, actual, step=step, actual_step=self.candidate.graph.step(tensor.name))
        return TensorRow(
            tensor=tensor.name,
            node=tensor.node,
            op_type=tensor.op_type,
            layers=layers,
            difference=error,
            diverges=not error.explained_by(self.arithmetic),
        )


def _other_shape(name: str, expected: tuple[int, ...], actual: tuple[int, ...]) -> UsageError:
    return UsageError(
        f"The tensor {name!r} has the shape {expected} in one of the models and {actual} in the other: they are not of "
        "the same network."
    )


def _spread(names: Sequence[str], count: int) -> list[str]:
    """Return so many of the names, evenly spread, and the last one."""
    parts = min(count + 1, len(names))
    return [names[(index + 1) * len(names) // parts - 1] for index in range(parts)]


def _shared_out(tensors: Sequence[Tensor], batch: int) -> Iterator[list[Tensor]]:
    """Yield tensors in parts that one run can give."""
    part: list[Tensor] = []
    numbers = 0
    for tensor in tensors:
        if part and (numbers + tensor.numbers) * batch > _NUMBERS:
            yield part
            part, numbers = [], 0
        part.append(tensor)
        numbers += tensor.numbers
    if part:
        yield part
