"""The results of named modules in place of the network's own: the backbone of a detector.

A feature is the result of a module. In-place operations behind it (a ReLU, the addition of a shortcut) overwrite its
memory in PyTorch, so it is copied while the network runs; the file holds no copies.
"""

from __future__ import annotations

import difflib
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from rexport._errors import UsageError
from rexport._words import did_you_mean
from rexport.models.modules import return_one_tensor, run_once
from rexport.passes._graph import bypass, producer_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir

__all__ = ["drop_copies", "require_features", "returning"]


@contextmanager
def returning(module: torch.nn.Module, features: Sequence[str]) -> Iterator[None]:
    """Let ``module`` return the results of its modules called ``features``, as a tuple, while the context is open.

    They must be ones that :func:`require_features` allows. Without features, ``module`` returns one tensor (see
    :func:`rexport.models.modules.return_one_tensor`).
    """
    results: dict[str, torch.Tensor] = {}

    def keep(name: str, result: torch.Tensor) -> None:
        results[name] = result.clone()

    with ExitStack() as hooks:
        for name in features:
            child = module.get_submodule(name)
            hook = child.register_forward_hook(lambda _module, _inputs, result, name=name: keep(name, result))
            hooks.callback(hook.remove)
        if features:
            hook = module.register_forward_hook(
                lambda _module, _inputs, _result: tuple(results[name] for name in features)
            )
        else:
            hook = return_one_tensor(module)
        hooks.callback(hook.remove)
        yield


def require_features(module: torch.nn.Module, features: Sequence[str], shape: Sequence[int]) -> None:
    """Make sure that each of ``features`` names a module that returns one tensor, once, for a picture.

    Its ``shape`` is ``(C, H, W)``.

    Raises:
        UsageError: The network or one of the modules does not run; the message says why, and suggests a name.
    """
    modules = dict(module.named_modules())
    for name, count in Counter(features).items():
        if name not in modules or not name:
            raise UsageError(_unknown(module, name))
        if count > 1:
            raise UsageError(f"The feature {name} is named {count} times, and outputs have different names.")
    results: dict[str, list[Any]] = {name: [] for name in features}
    with ExitStack() as hooks:
        for name in features:
            hook = modules[name].register_forward_hook(
                lambda _module, _inputs, result, name=name: results[name].append(result)
            )
            hooks.callback(hook.remove)
        run_once(module, shape)
    for name, calls in results.items():
        if len(calls) != 1:
            runs = f"runs {len(calls)} times" if calls else "does not run"
            raise UsageError(
                f"The module {name} {runs} in a forward pass, so it has no single result; name the module "
                f"around it, or one of {', '.join(child for child, _ in module.named_children())}."
            )
        if not isinstance(calls[0], torch.Tensor):
            raise UsageError(f"The module {name} returns a {type(calls[0]).__name__}, and a feature is a tensor.")


def drop_copies(model: ir.Model) -> None:
    """Remove the copies of :func:`returning` from a freshly exported model, but for a tensor with two names."""
    for copy in [producer_of(output, "Identity") for output in model.graph.outputs]:
        if copy and producer_of(copy.inputs[0]) and copy.inputs[0] not in model.graph.outputs:
            copy.metadata_props.clear()  # the node before has its own notes on its origin
            bypass(copy)


def _unknown(module: torch.nn.Module, name: str) -> str:
    names = [path for path, _ in module.named_modules() if path]
    inside = [path for path in names if name and path.endswith(f".{name}")]  # of an ensemble's members, say
    hint = did_you_mean(inside[:3] or difflib.get_close_matches(name, names, n=3))
    top = ", ".join(path for path, _ in module.named_children())
    return f"The network has no module {name!r}.{hint} At its top are {top}; names such as layer3.5 lead inside."
