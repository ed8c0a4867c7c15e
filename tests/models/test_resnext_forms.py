from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from rexport import models
from rexport._errors import WeightsError
from rexport.models import Form

_FORMS = list(Form)


def _network(form: Form, *, seed: int = 0) -> nn.Module:
    network = models.build(
        f"resnext[depth=11,stages=3,cardinality=4,base_width=6,form={form},stem_width=16]", seed=seed
    )
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if "bn" in name and tensor.is_floating_point():  # so that a BatchNorm of another channel shows
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return network.double()


@torch.inference_mode()
@pytest.mark.parametrize(("source", "target"), list(itertools.product(_FORMS, _FORMS)))
def test_all_forms_compute_the_same(source: Form, target: Form) -> None:
    first, second = _network(source), _network(target, seed=1)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert not torch.allclose(first(x), second(x))
    second.load_state_dict(models.convert_form(first.state_dict(), target, cardinality=4))
    # float64: sums in another order, a thousand terms of 1e-16
    assert torch.allclose(first(x), second(x), rtol=1e-9)


@torch.inference_mode()
def test_branches_in_another_order_are_another_network() -> None:
    first, second = _network(Form.C), _network(Form.A)
    state = models.convert_form(first.state_dict(), Form.A, cardinality=4)
    one, other = "layer1.0.branches.0.conv2.weight", "layer1.0.branches.1.conv2.weight"
    state[one], state[other] = state[other], state[one]
    second.load_state_dict(state)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert not torch.allclose(first(x), second(x), rtol=1e-4)


def test_converting_there_and_back_changes_nothing() -> None:
    state = _network(Form.C).state_dict()
    for form in (Form.A, Form.B):
        there = models.convert_form(state, form, cardinality=4)
        assert list(there) != list(state)
        back = models.convert_form(there, Form.C, cardinality=4)
        assert list(back) == list(state)
        assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_another_cardinality_is_refused() -> None:
    with pytest.raises(WeightsError, match="which 5 branches can't share"):
        models.convert_form(_network(Form.C).state_dict(), Form.A, cardinality=5)
    with pytest.raises(WeightsError, match="has 4 branches, and the network 2"):
        models.convert_form(_network(Form.A).state_dict(), Form.C, cardinality=2)


@pytest.mark.slow
def test_the_imagenet_network_has_thirty_two_branches_in_each_block() -> None:
    with torch.device("meta"):
        network = models.find("resnext[depth=50,form=a]").construct(1000)
    convolutions = [name for name, child in network.named_modules() if isinstance(child, nn.Conv2d)]
    assert len(convolutions) == 1 + 16 * 32 * 3 + 4
    same = sum(p.numel() for name, p in network.named_parameters())
    assert same == 25_028_904  # as in form (c)
