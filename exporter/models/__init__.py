"""Residual networks for ImageNet and CIFAR-10: building them, their weights and their cost."""

from __future__ import annotations

from rexport.imagenet import imagenet_classes
from rexport.models.families import Family, parse_spec, plain, preact_resnet, resnet, resnext, spec_of
from rexport.models.provenance import for_channels_of, known_facts, network_preprocessing
from rexport.models.registry import build, find, networks
from rexport.models.resnext_forms import convert_form
from rexport.models.spec import Block, Downsample, Form, ResNetSpec, Shortcut, Stem, Stride
from rexport.models.summary import Stage, Summary, summarize
from rexport.models.weights import load_weights, read_state_dict, state_dict_hash
from rexport.models.weights_facts import WeightsFacts, read_weights_facts, save_weights, stored_classes
from rexport.models.zoo import Network

__all__ = [
    "Block",
    "Downsample",
    "Family",
    "Form",
    "Network",
    "ResNetSpec",
    "Shortcut",
    "Stage",
    "Stem",
    "Stride",
    "Summary",
    "WeightsFacts",
    "build",
    "convert_form",
    "find",
    "for_channels_of",
    "imagenet_classes",
    "known_facts",
    "load_weights",
    "network_preprocessing",
    "networks",
    "parse_spec",
    "plain",
    "preact_resnet",
    "read_state_dict",
    "read_weights_facts",
    "resnet",
    "resnext",
    "save_weights",
    "spec_of",
    "state_dict_hash",
    "stored_classes",
    "summarize",
]
