"""Networks of others: torchvision's, timm's, and those of the user's own modules.

    torchvision:resnet50        timm:resnet50        package.module:callable        package.module:callable[depth=20]

Arguments in brackets are Python's literals. A callable is called with them, and with ``num_classes`` where that is
requested or required; required ``pretrained`` and ``weights`` are false and ``None``. It returns a module. Weights are
never fetched here.
"""

from __future__ import annotations

import ast
import copy
import inspect
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from rexport._errors import UsageError
from rexport._user_code import import_user_module
from rexport.models.adopted import DEFAULT_CLASSES, DEFAULT_SIZE, adopted
from rexport.models.modules import in_one_line
from rexport.models.timm_networks import find_timm
from rexport.models.torchvision_networks import find_torchvision, import_torchvision
from rexport.models.zoo import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["from_module", "from_reference"]

_WITHOUT_WEIGHTS: Mapping[str, object] = {"pretrained": False, "weights": None}
_WORDS = {"true": True, "false": False, "none": None}


def from_reference(text: str) -> Network | None:
    """Return the network that ``module:name`` refers to; ``None`` if the text does not have that form.

    Raises:
        UsageError: There is no such module or name in it, or the arguments in brackets can't be read.
        WeightsError: The configuration of a repository or folder of timm's can't be read.
        UnavailableError: torchvision or timm can't be imported.
    """
    reference, bracket, brackets = text.partition("[")
    module, _, name = reference.partition(":")
    if not (module and name):
        return None
    if module == "timm" and name.startswith("local-dir:"):  # a folder, whose name may have brackets
        return find_timm(text.removeprefix("timm:"), {})
    arguments = _arguments_in(bracket + brackets, text)
    with _explained(text):
        match module:
            case "torchvision":
                network = find_torchvision(name, arguments)
            case "timm":
                network = find_timm(name, arguments)
            case "hf-hub":
                network = find_timm(reference, arguments)
            case _:
                network = _own(module, name, arguments)
    return _with_arguments(network, arguments)


def from_module(module: nn.Module) -> Network:
    """Return the network that a module is; what is built of it is a copy."""
    return _of_callable(lambda: copy.deepcopy(module), type(module).__name__, paper=type(module).__module__)


def _arguments_in(brackets: str, reference: str) -> dict[str, object]:
    """Return the keyword arguments in ``[depth=20,widths=(16,32),block=basic]``; a word is text."""
    if not brackets:
        return {}
    wrong = UsageError(f"{reference}: write arguments in brackets as [NAME=VALUE,NAME=VALUE], such as [depth=20].")
    if not brackets.endswith("]"):
        raise wrong
    try:
        call = ast.parse(f"_({brackets[1:-1]})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args:
            raise wrong
        return {str(keyword.arg): _value_of(keyword.value) for keyword in call.keywords if keyword.arg is not None}
    except (SyntaxError, ValueError) as error:
        raise wrong from error


def _value_of(expression: ast.expr) -> object:
    if isinstance(expression, ast.Name):
        return _WORDS.get(expression.id, expression.id)
    return ast.literal_eval(expression)


def _with_arguments(network: Network, arguments: Mapping[str, object]) -> Network:
    """Return ``network`` with the arguments in its name, and errors that name it."""
    if not arguments:
        return network
    name = f"{network.name}[{','.join(f'{key}={value!r}' for key, value in arguments.items())}]"

    def construct(classes: int | None) -> nn.Module:
        with _explained(name):
            return network.construct(classes)

    classes = arguments.get("num_classes")
    if not isinstance(classes, int):
        classes = network.num_classes
    return replace(network, name=name, construct=construct, num_classes=classes)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn the errors of a library's constructors into :class:`UsageError`."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise UsageError(f"{name} can't be made: {in_one_line(error)}.") from error


def _own(module_name: str, name: str, arguments: Mapping[str, object]) -> Network:
    if module_name.partition(".")[0] in ("torchvision", "timm"):
        import_torchvision()
    make = getattr(import_user_module(module_name), name, None)
    if not callable(make):
        raise UsageError(f"{module_name} has no callable {name!r} that makes a network.")
    return _of_callable(partial(make, **arguments), f"{module_name}:{name}", paper=module_name)


def _of_callable(make: Callable[..., Any], name: str, *, paper: str) -> Network:
    return Network(
        name=name,
        depth=None,
        paper=paper,
        dataset=None,
        input_size=DEFAULT_SIZE,
        num_classes=None,
        construct=lambda classes: adopted(_constructed(make, classes, name)),
        assumed_size=True,
    )


def _constructed(make: Callable[..., Any], classes: int | None, reference: str) -> nn.Module:
    try:
        network = _call(make, classes, reference)
    except UsageError:
        raise
    except Exception as error:  # whatever a callable of the user's raises
        raise UsageError(f"{reference} makes no network: {in_one_line(error)}.") from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"{reference} makes a {type(network).__name__}, and not a torch.nn.Module.")
    if classes is not None and not _may_have_outputs(network, classes):
        raise UsageError(
            f"{reference} makes a network of another number of outputs than {classes}, and takes no num_classes."
        )
    return network


def _call(make: Callable[..., Any], classes: int | None, reference: str) -> Any:
    """Call ``make`` with ``num_classes`` if it takes that, and a number is asked for or it has none by itself."""
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):  # some that are written in C have none
        return make()
    required = {
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    if missing := required - {"num_classes", *_WITHOUT_WEIGHTS}:
        listed = ",".join(f"{name}=…" for name in parameters if name in missing)
        bare = reference.partition("[")[0]
        raise UsageError(f"{reference} needs arguments; pass them in brackets: '{bare}[{listed}]'.")
    keywords = {name: value for name, value in _WITHOUT_WEIGHTS.items() if name in required}
    if "num_classes" in required or ("num_classes" in parameters and classes is not None):
        return make(**keywords, num_classes=classes or DEFAULT_CLASSES)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if classes is None or "num_classes" in parameters or not takes_any:
        return make(**keywords)
    try:
        return make(**keywords, num_classes=classes)
    except TypeError as error:
        if "num_classes" not in str(error):
            raise
        return make(**keywords)  # it passes its keywords on to a callable that does not take this one


def _may_have_outputs(module: nn.Module, count: int) -> bool:
    """Say whether any layer of ``module`` has ``count`` outputs; only a run would tell which layer is the last."""
    sizes = [getattr(layer, "out_features", getattr(layer, "out_channels", None)) for layer in module.modules()]
    return count in sizes or not any(sizes)
