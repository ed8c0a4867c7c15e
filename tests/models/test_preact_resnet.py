from __future__ import annotations

import torch

from rexport import models
from tests._networks import trained_like


@torch.inference_mode()
def test_a_block_is_the_papers_equation() -> None:
    network = trained_like(models.build("preact_resnet[depth=29,stages=3,block=bottleneck]"))
    for block, width in ((network.layer1[1], 64), (network.layer2[0], 64)):
        x = torch.randn(2, width, 8, 8)
        active = block.bn1(x).relu()
        residual = block.conv3(block.bn3(block.conv2(block.bn2(block.conv1(active)).relu())).relu())
        shortcut = x if block.downsample is None else block.downsample(active)
        assert torch.equal(block(x), residual + shortcut)


@torch.inference_mode()
def test_cifar_networks_have_a_bare_stem_and_end_in_an_activation() -> None:
    network = trained_like(models.build("cifar_preact_resnet8"))
    x = torch.randn(2, 3, 32, 32)
    y = network.conv1(x)
    for stage in (network.layer1, network.layer2, network.layer3):
        y = stage(y)
    assert (y < 0).any()  # nothing comes after an addition
    y = network.fc(network.bn(y).relu().mean((2, 3)))
    assert torch.allclose(network(x), y, atol=1e-6)


@torch.inference_mode()
def test_imagenet_networks_activate_before_the_pooling_and_not_again() -> None:
    network = trained_like(models.build("preact_resnet18"))
    assert network.layer1[0].bn1 is None
    assert network.layer1[1].bn1 is not None
    x = torch.randn(1, 3, 64, 64)
    stem = network.maxpool(network.bn1(network.conv1(x)).relu())
    block = network.layer1[0]
    assert torch.equal(block(stem), block.conv2(block.bn2(block.conv1(stem)).relu()) + stem)


def test_projections_have_no_batch_norm() -> None:
    names = [name for name, _ in models.build("cifar_preact_resnet8").named_parameters() if "downsample" in name]
    assert names == ["layer2.0.downsample.0.weight", "layer3.0.downsample.0.weight"]
