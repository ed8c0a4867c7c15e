"""The reference values of every tensor: ONNX Runtime on the CPU, node by node, without optimizations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from rexport._errors import ModelFileError
from rexport.evaluation.tensors import ActivationGraph
from rexport.runtimes.onnxruntime import open_session, said

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

__all__ = ["Reference"]


class Reference:
    """A model and some pictures, for which the values of any tensor can be computed.

    Args:
        model: With one input.
        images: What it takes, ``(N, ...)``.
        threads: By default the usable cores.

    Raises:
        ModelFileError: The model has several inputs.
    """

    def __init__(self, model: ir.Model, images: np.ndarray, *, threads: int | None = None) -> None:
        self.model, self.graph = model, ActivationGraph(model)
        self._input = self.graph.input
        self._proto, self._images, self._threads = ir.to_proto(model), images, threads

    def values(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the values of tensors.

        Raises:
            ModelFileError: The model does not run on these images.
        """
        outputs = [name for name in dict.fromkeys(names) if name != self._input]
        if not outputs:
            return {self._input: self._images}
        marked = onnx.ModelProto()
        marked.CopyFrom(self._proto)
        del marked.graph.output[:]
        marked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        # without the model's own outputs, their nodes are not computed
        session = open_session(marked.SerializeToString(), threads=self._threads, optimize=False)
        try:
            results = session.run(outputs, {self._input: self._images})
        except Exception as error:  # ONNX Runtime's errors share no public base class
            raise ModelFileError(f"The reference does not run on these images: {said(error)}.") from error
        return {self._input: self._images, **dict(zip(outputs, results, strict=True))}
