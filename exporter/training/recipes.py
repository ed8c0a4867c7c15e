"""The learning rate, momentum and weight decay of SGD, step by step.

The paper's recipe divides the rate by ten twice (He et al. 2015, arXiv:1512.03385, sections 3.4 and 4.2):

    rate(t) = peak · 10^−(number of milestones m with t ≥ m · steps)

One cycle raises it to its peak over the first 30 % of the steps and lets it fall to nothing over the rest, momentum
the other way round (Smith & Topin 2018, arXiv:1708.07120):

    rate = b + (a − b) · (1 + cos π p) / 2    for p from 0 to 1 between the rates a and b
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from rexport._errors import UsageError
from rexport._words import suggestion

__all__ = ["OneCycleRecipe", "PaperRecipe", "Rates", "Recipe", "recipe_for"]

_DEEP = 110  # layers from which on the paper warms up
_CIFAR_ITERATIONS = 64_000
_LARGE = 128  # pixels, as for :class:`rexport.Preprocessing`


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What SGD uses for one step."""

    learning_rate: float
    momentum: float


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """How weights are trained: what stays the same over all steps, and :meth:`rates`, which do not.

    Attributes:
        epochs: How often every picture is seen.
        batch: Pictures to a step.
        learning_rate: The largest of all steps.
        weight_decay: The factor of ½ ‖w‖² in the loss.
        seed: What the order of the pictures and their augmentation are drawn from.
    """

    name: ClassVar[str]
    nesterov: ClassVar[bool]

    epochs: int
    batch: int
    learning_rate: float = 0.1
    weight_decay: float
    seed: int = 0

    @abstractmethod
    def rates(self, step: int, steps: int) -> Rates:
        """Return the rates of step ``step``, counted from 0, of ``steps``."""


@dataclass(frozen=True, kw_only=True)
class PaperRecipe(Recipe):
    """The recipe of the residual networks' paper; the milestones are fractions of whatever is trained for.

    The defaults are those for CIFAR-10: 64,000 iterations of 128 pictures are 164 epochs of its 50,000; the rate
    is divided by ten after 32,000 and 48,000. Networks of 110 layers and more "warm up" at 0.01 for 400 iterations.

    Example:
        >>> recipe = PaperRecipe()
        >>> [recipe.rates(step, 64_000).learning_rate for step in (0, 31_999, 32_000, 48_000)]
        [0.1, 0.1, 0.01, 0.001]
    """

    name: ClassVar[str] = "paper"
    nesterov: ClassVar[bool] = False

    epochs: int = 164
    batch: int = 128
    weight_decay: float = 1e-4
    milestones: tuple[float, ...] = (0.5, 0.75)
    warm_up: float = 0.0

    @classmethod
    def for_network(cls, module: nn.Module, *, input_size: int) -> PaperRecipe:
        """Return the recipe for a network, CIFAR's or from 128 pixels on ImageNet's.

        For ImageNet the paper divides by ten "when the error plateaus" and stops after 60 · 10⁴ iterations of 256
        pictures, which are 120 epochs; the milestones at a third and two thirds are those of the usual 90 epochs.
        """
        if input_size >= _LARGE:
            return cls(epochs=120, batch=256, milestones=(1 / 3, 2 / 3))
        return cls(warm_up=400 / _CIFAR_ITERATIONS if _layers(module) >= _DEEP else 0.0)

    def rates(self, step: int, steps: int) -> Rates:
        """See :meth:`Recipe.rates`."""
        passed = sum(step >= milestone * steps for milestone in self.milestones)
        learning_rate = self.learning_rate / 10**passed
        if step < self.warm_up * steps:
            learning_rate = self.learning_rate / 10
        return Rates(learning_rate=learning_rate, momentum=0.9)


@dataclass(frozen=True, kw_only=True)
class OneCycleRecipe(Recipe):
    """A short recipe: one cycle of the learning rate, with Nesterov's momentum between 0.85 and 0.95."""

    name: ClassVar[str] = "onecycle"
    nesterov: ClassVar[bool] = True

    epochs: int = 10
    batch: int = 64
    weight_decay: float = 5e-4

    def rates(self, step: int, steps: int) -> Rates:
        """See :meth:`Recipe.rates`; the rate starts at a 25th of its peak and ends at a 250,000th."""
        first, last = self.learning_rate / 25, self.learning_rate / 25 / 1e4
        top, end = 0.3 * steps - 1, steps - 1
        if step <= top:
            p = step / top if top else 1.0
            return Rates(learning_rate=_cosine(first, self.learning_rate, p), momentum=_cosine(0.95, 0.85, p))
        p = (step - top) / (end - top)
        return Rates(learning_rate=_cosine(self.learning_rate, last, p), momentum=_cosine(0.85, 0.95, p))


def recipe_for(
    name: str,
    module: nn.Module,
    *,
    input_size: int,
    epochs: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    fine_tuning: bool = False,
) -> Recipe:
    """Return the recipe called ``name`` for a network, with what was asked for in the place of its defaults.

    With ``fine_tuning`` the default of the learning rate is a tenth: at the whole, trained weights are soon forgotten.

    Raises:
        UsageError: There is no such recipe, or a number makes no sense.
    """
    recipe: Recipe
    if name == "paper":
        recipe = PaperRecipe.for_network(module, input_size=input_size)
    elif name == "onecycle":
        recipe = OneCycleRecipe()
    else:
        raise UsageError(
            f"There is no recipe {name!r}; --recipe takes paper or onecycle.{suggestion(name, ('paper', 'onecycle'))}"
        )
    for option, value in (("epochs", epochs), ("batch", batch), ("learning rate", learning_rate)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"The {option} must be above zero, not {value}.")
    if not -(2**63) <= seed < 2**63:
        raise UsageError(f"--seed {seed}: must be a 64-bit integer.")
    return replace(
        recipe,
        epochs=epochs or recipe.epochs,
        batch=batch or recipe.batch,
        learning_rate=learning_rate or recipe.learning_rate / (10 if fine_tuning else 1),
        seed=seed,
    )


def _cosine(start: float, end: float, p: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * p) + 1)


def _layers(module: nn.Module) -> int:
    return sum(isinstance(layer, (nn.Conv2d, nn.Linear)) for layer in module.modules())
