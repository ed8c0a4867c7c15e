from __future__ import annotations

import pytest
import torch

from rexport import build
from rexport._errors import UsageError
from rexport.training import OneCycleRecipe, PaperRecipe, recipe_for


def _learning_rates(recipe: PaperRecipe | OneCycleRecipe, steps: int) -> list[float]:
    return [recipe.rates(step, steps).learning_rate for step in range(steps)]


def test_the_paper_divides_at_32k_and_48k_of_64k_iterations() -> None:
    recipe = recipe_for("paper", build("cifar_resnet20"), input_size=32)
    assert (recipe.batch, recipe.learning_rate, recipe.weight_decay, recipe.nesterov) == (128, 0.1, 1e-4, False)
    assert recipe.epochs == round(64_000 * 128 / 50_000)
    rates = _learning_rates(recipe, 64_000)
    assert rates[:32_000] == [0.1] * 32_000
    assert rates[32_000:48_000] == [0.01] * 16_000
    assert rates[48_000:] == [0.001] * 16_000
    assert {recipe.rates(step, 64_000).momentum for step in (0, 40_000, 63_999)} == {0.9}


def test_from_110_layers_on_the_paper_warms_up_for_400_iterations() -> None:
    recipe = recipe_for("paper", build("cifar_resnet110"), input_size=32)
    rates = _learning_rates(recipe, 64_000)
    assert rates[:400] == [0.01] * 400
    assert rates[400:32_000] == [0.1] * 31_600
    assert rates[32_000] == 0.01


def test_the_milestones_scale_with_the_epochs() -> None:
    recipe = recipe_for("paper", build("cifar_resnet8"), input_size=32, epochs=8)
    assert recipe.epochs == 8
    assert _learning_rates(recipe, 8) == [0.1] * 4 + [0.01] * 2 + [0.001] * 2


def test_imagenet_has_its_own_batch_and_milestones() -> None:
    recipe = recipe_for("paper", build("resnet18"), input_size=224)
    assert (recipe.batch, recipe.epochs) == (256, 120)  # 60 · 10⁴ iterations of 256 of 1.28 million pictures
    assert _learning_rates(recipe, 9) == [0.1] * 3 + [0.01] * 3 + [0.001] * 3


@pytest.mark.parametrize("steps", [2, 3, 10, 57, 800])
def test_one_cycle_is_pytorchs_to_the_last_bit(steps: int) -> None:
    recipe = OneCycleRecipe(learning_rate=0.2)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=steps)
    for step in range(steps):
        rates = recipe.rates(step, steps)
        (group,) = optimizer.param_groups
        assert (rates.learning_rate, rates.momentum) == (group["lr"], group["momentum"])
        optimizer.step()
        schedule.step()


def test_what_is_asked_for_takes_the_place_of_the_defaults() -> None:
    module = build("cifar_resnet8")
    recipe = recipe_for("onecycle", module, input_size=32, epochs=3, batch=5, learning_rate=0.7, seed=9)
    assert recipe == OneCycleRecipe(epochs=3, batch=5, learning_rate=0.7, seed=9)
    assert recipe_for("onecycle", module, input_size=32, fine_tuning=True).learning_rate == pytest.approx(0.01)
    tuned = recipe_for("onecycle", module, input_size=32, fine_tuning=True, learning_rate=0.1)
    assert tuned.learning_rate == 0.1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adam", {}, "no recipe 'adam'; --recipe takes paper or onecycle"),
        ("paper", {"learning_rate": 0.0}, "learning rate must be above zero"),
        ("paper", {"learning_rate": float("nan")}, "learning rate must be above zero"),
        ("onecycle", {"epochs": -1}, "epochs"),
        ("onecycle", {"seed": 2**64}, "64-bit"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recipe_for(name, build("cifar_resnet8"), input_size=32, **options)
