"""Residual networks for ImageNet and CIFAR-10: building them, their weights and their cost."""

from __future__ import annotations

from rexport.models.cifar import CifarResNet
from rexport.models.registry import Network, build, class_names, find, networks
from rexport.models.resnet import BasicBlock, Bottleneck, ResNet
from rexport.models.summary import Stage, Summary, summarize
from rexport.models.weights import load_weights, read_state_dict, state_dict_hash

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "CifarResNet",
    "Network",
    "ResNet",
    "Stage",
    "Summary",
    "build",
    "class_names",
    "find",
    "load_weights",
    "networks",
    "read_state_dict",
    "state_dict_hash",
    "summarize",
]
