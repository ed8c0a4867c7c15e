"""Files that hold only weights, told by their names."""

from __future__ import annotations

from pathlib import Path

from rexport._errors import UsageError

__all__ = ["require_not_weights"]

_SUFFIXES = frozenset({".bin", ".ckpt", ".pt", ".pth", ".safetensors", ".tar", ".th"})


def require_not_weights(name: Path | str) -> None:
    """Do nothing unless ``name`` ends like a file of weights, which is no model without its network.

    Raises:
        UsageError: It does.
    """
    path = Path(name)
    if path.suffix.lower() in _SUFFIXES:
        raise UsageError(
            f"{name} holds only weights; name their network too: `rexport onnx {name} -o {path.with_suffix('.onnx')}` "
            "makes a model file, or says which network they look like."
        )
