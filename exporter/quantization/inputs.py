"""The inputs of a model's layers: the mean and the Gram matrix of their patches, over a stream of images.

A patch is the receptive field of one output of a convolution, K = C/G · k_h · k_w numbers for each of its G groups, in
the order of its weight; for a linear layer it is the whole input. Patches are taken at a fixed pseudo-random sample of
positions, twice as many as the Gram matrix of the layer has columns. Of a matrix that would take too much memory (1 GB
for the 11,585 inputs of a linear layer, 5 GB for VGG's 25,088), only blocks on its diagonal are computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rexport._progress import Progress, silent
from rexport.feeds import by_name, examples_in, in_batches
from rexport.model_file import to_bytes
from rexport.model_inputs import inputs_of
from rexport.passes._graph import constant, contents_of, int_attribute, is_op, name_of
from rexport.quantization.rounding import Inputs
from rexport.runtimes.onnxruntime import fixed_batch, open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import onnx_ir as ir

    from rexport.feeds import Feed

__all__ = ["layers_with_patches", "observe_inputs"]

_PER_COLUMN = 2  # patches for each column of a Gram matrix
_MOST_VALUES = 2**20  # in the images that run together: six of 224 × 224 pixels
_MOST_MEMORY = 256 * 2**20  # bytes of Gram matrices at a time; the layers are observed in as many rounds as it takes
_MOST_OF_A_LAYER = 256 * 2**20  # bytes of its Gram matrices, those of 5,792 columns; ResNet-50 has 4,608
_AT_ONCE = 2**24  # entries of products that are added up at a time: 64 MB


def layers_with_patches(model: ir.Model) -> list[ir.Node]:
    """Return the convolutions and linear layers whose inputs can be observed, in order."""
    return [node for node in model.graph if is_op(node, "Conv", "Gemm") and _understood(node)]


def observe_inputs(
    model: ir.Model,
    layers: Sequence[ir.Node],
    images: Callable[[], Iterable[Feed]],
    *,
    total: int,
    threads: int | None = None,
    progress: Progress = silent,
) -> Iterator[tuple[ir.Node, Inputs]]:
    """Yield each of ``layers`` with its inputs.

    Args:
        model: A float model.
        layers: Nodes of it that :func:`layers_with_patches` returns.
        images: Starts the batches of images anew; called once a round.
        total: The number of images.
        threads: By default one per usable core.
        progress: Told of every batch.
    """
    rounds = _rounds([_Patches.of(layer, total) for layer in layers])
    with progress("observing what layers read", total * len(rounds)) as advance:
        for observed in rounds:
            copy = model.clone()
            values = {str(value.name): value for value in copy.graph.inputs}
            values |= {str(value.name): value for node in copy.graph for value in node.outputs}
            names = list(dict.fromkeys(patches.tensor for patches in observed))
            copy.graph.outputs.clear()
            copy.graph.outputs.extend(values[name] for name in names)
            session = open_session(to_bytes(copy), threads=threads, plan_memory=False)
            inputs = [str(value.name) for value in inputs_of(model)]
            for batch in images():
                remaining = examples_in(batch)
                for part in in_batches(batch, fixed_batch(session) or _at_once(batch)):
                    results = dict(zip(names, session.run(names, by_name(part, inputs)), strict=True))
                    for patches in observed:
                        patches.add(results[patches.tensor][:remaining])  # without the copies that fill up a batch
                    remaining -= examples_in(part)
                advance(examples_in(batch))
            yield from ((patches.layer, patches.inputs()) for patches in observed)


def _at_once(feed: Feed) -> int:
    """Return how many examples may run together: the inputs of all layers are in memory for all of them."""
    count = examples_in(feed)
    if not isinstance(feed, np.ndarray):
        return count
    return max(1, _MOST_VALUES // (feed.size // max(1, count)))


@dataclass
class _Patches:
    """The patches of one layer, summed up."""

    layer: ir.Node
    groups: int
    columns: int
    per_image: int
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    count: int = 0
    blocks: int = field(init=False)
    sums: np.ndarray = field(init=False)
    products: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.blocks = -(-8 * self.groups * self.columns**2 // _MOST_OF_A_LAYER)
        self.sums = np.zeros((self.groups, self.columns))

    @classmethod
    def of(cls, layer: ir.Node, images: int) -> _Patches:
        groups, columns = int_attribute(layer, "group", 1), int(np.prod(contents_of(layer.inputs[1]).shape[1:]))
        return cls(layer=layer, groups=groups, columns=columns, per_image=max(4, _PER_COLUMN * columns // images))

    @property
    def tensor(self) -> str:
        assert self.layer.inputs[0] is not None
        return str(self.layer.inputs[0].name)

    @property
    def block(self) -> int:
        return -(-self.columns // self.blocks)

    @property
    def bytes(self) -> int:
        return 8 * self.groups * self.blocks * self.block**2

    def add(self, values: np.ndarray) -> None:
        """Take the patches of a batch, of shape ``(N, C, H, W)`` or ``(N, C)``."""
        patches = self._sample(values).reshape(-1, self.groups, self.columns)
        self.sums += patches.sum(axis=0, dtype=np.float64)
        self.count += len(patches)
        beyond = self.blocks * self.block - self.columns
        if beyond:
            patches = np.pad(patches, ((0, 0), (0, 0), (0, beyond)))
        by_block = patches.reshape(len(patches), -1, self.block).transpose(1, 0, 2).astype(np.float32)
        if self.products is None:
            self.products = np.zeros((len(by_block), self.block, self.block))
        at_once = max(1, _AT_ONCE // self.block**2)
        for start in range(0, len(by_block), at_once):
            part = by_block[start : start + at_once]
            self.products[start : start + at_once] += part.transpose(0, 2, 1) @ part

    def inputs(self) -> Inputs:
        assert self.products is not None
        gram, self.products = self.products, None  # so that its memory is free for the next round
        gram /= self.count
        shape: tuple[int, ...] = (self.groups, self.columns, self.columns)
        if self.blocks > 1:
            shape = (self.groups, self.blocks, self.block, self.block)
        return Inputs(gram.reshape(shape), self.sums / self.count)

    def _sample(self, values: np.ndarray) -> np.ndarray:
        """Return patches at random positions of each image; a linear layer's whole input."""
        if is_op(self.layer, "Gemm"):
            return values
        attributes = self.layer.attributes
        pads = attributes.get_ints("pads", [0, 0, 0, 0])
        strides, dilations = attributes.get_ints("strides", [1, 1]), attributes.get_ints("dilations", [1, 1])
        kernel = contents_of(self.layer.inputs[1]).shape[2:]
        padded = np.pad(values, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
        reach = tuple(d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True))
        windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
        windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
        rows, columns = windows.shape[2:4]
        count = min(self.per_image, rows * columns)
        places = np.stack([self.random.choice(rows * columns, count, replace=False) for _ in values])
        image = np.arange(len(values))[:, None]
        patches: np.ndarray = windows.transpose(0, 2, 3, 1, 4, 5)[image, places // columns, places % columns]
        return patches.reshape(-1, *patches.shape[2:])


def _rounds(layers: Sequence[_Patches]) -> list[list[_Patches]]:
    """Return the layers in groups whose Gram matrices fit into memory together."""
    rounds: list[list[_Patches]] = []
    room = 0
    for patches in layers:
        if not rounds or patches.bytes > room:
            rounds.append([])
            room = _MOST_MEMORY
        rounds[-1].append(patches)
        room -= patches.bytes
    return rounds


def _understood(layer: ir.Node) -> bool:
    weight = constant(layer.inputs[1])
    if weight is None or name_of(layer) == "":
        return False
    if is_op(layer, "Gemm"):
        return layer.attributes.get_int("transB", 0) == 1 and layer.attributes.get_int("transA", 0) == 0
    return weight.ndim == 4 and layer.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
