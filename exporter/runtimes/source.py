"""A model as named on the command line: an ONNX or engine file, or a network of the zoo, with or without weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rexport._apart import require_exists
from rexport._errors import UsageError
from rexport.engine_file import is_engine

__all__ = ["Source"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Exactly one of ``path`` (an ONNX file, or an engine file) and ``network`` (a zoo name) is set.

    ``weights`` and ``num_classes`` belong to a network; without weights it is initialised at random.
    """

    path: Path | None = None
    network: str | None = None
    weights: Path | None = None
    num_classes: int | None = None

    @classmethod
    def parse(cls, text: str, *, weights: Path | None = None) -> Source:
        """Take ``text`` for a file if it looks like one, otherwise for a network's name.

        Raises:
            UsageError: Neither such a file nor such a network exists, weights were given for a file, or the network
                is no classifier.
        """
        path = Path(text)
        if path.suffix == ".onnx" or is_engine(path) or path.exists():
            require_exists(path)
            if weights is not None:
                raise UsageError(f"--weights goes with a network's name; {text} has its weights inside.")
            return cls(path=path)
        from rexport.models import registry  # loads PyTorch, which a file does not need

        network = registry.find(text)
        if network.no_classifier:
            raise UsageError(network.no_classifier)
        return cls(network=network.name, weights=weights)

    def __str__(self) -> str:
        return str(self.path or self.network)
