"""ONNX files of other projects' models, with examples of their inputs; it needs nothing of rexport.

    python _foreign_models.py FOLDER PICTURES [PATTERN...]

needs torch, torchvision, torchaudio (without its ``lib/*.so``, which need CUDA), timm, segmentation-models-pytorch,
transformers, keras, onnx and onnxscript. ``PICTURES`` has a folder for each class. The networks of ``_TRAINED`` are
trained on them for a minute: with random weights they magnify rounding until nothing is left of their answers, or have
hundreds of answers that are almost equal. The weights of the others are random, and their batch normalisations have the
statistics of the examples. ``FOLDER/NAME`` gets

    model.onnx, facts.json
    calibration/, heldout/     an .npz for each example, as the model takes it
    pictures/, heldout-pictures/, calibration.npz
                               the same examples in the form that ``rexport`` is given
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper, version_converter
from PIL import Image
from torch import nn

CALIBRATION, HELD_OUT = 16, 8
_PICTURES, _STEPS, _BATCH, _LEARNING_RATE = 256, 120, 32, 2e-3
_TRAINED = (
    "tv-resnet18*", "tv-mobilenet*", "tv-shufflenet*", "tv-mnasnet*", "tv-efficientnet*", "tv-regnet*", "tv-googlenet",
    "tv-ssdlite*", "timm-mobile*", "timm-lcnet*", "timm-ghostnet*", "timm-mixnet*", "timm-tf_*", "timm-regnetz*",
    "timm-fastvit*", "timm-levit*", "timm-deit*", "timm-repvgg*", "timm-skresnet*", "timm-resnet18-oblong",
    "timm-dla34", "timm-resnetv2*", "timm-cspresnet50", "timm-res2net50*", "smp-unet-mobilenet*", "tv-fcn*",
    "tv-deeplab*",
)  # fmt: skip
_MEAN, _STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Inputs of one example each, to calibrate with and held out; pictures with their classes, to train with."""

    calibration: list[Feed]
    held_out: list[Feed]
    training: list[tuple[Feed, int]] = field(default_factory=list)

    def changed(self, change: Callable[[Feed], Feed]) -> Examples:
        """Return the examples in another form."""
        return Examples(
            calibration=[change(feed) for feed in self.calibration],
            held_out=[change(feed) for feed in self.held_out],
            training=[(change(feed), label) for feed, label in self.training],
        )


Make = Callable[[Path, Examples], None]


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """A picture of a size for an input, ``raw`` as uint8, with the ``channels`` of L, RGB or RGBA, last if ``nhwc``."""

    size: tuple[int, int]
    channels: int = 3
    raw: bool = False
    nhwc: bool = False

    def opened(self, file: Path) -> Image.Image:
        """Return a picture in the size and mode of the input; its own grey is its opacity."""
        picture = Image.open(file).convert({1: "L", 3: "RGB", 4: "RGBA"}[self.channels])
        picture = picture.resize((self.size[1], self.size[0]))
        if self.channels == 4:
            picture.putalpha(picture.convert("L"))
        return picture

    def feed(self, picture: Image.Image, name: str) -> Feed:
        pixels = np.asarray(picture, np.uint8).reshape(*self.size, self.channels)
        if not self.raw:
            mean, std = self._statistics()
            pixels = ((pixels.astype(np.float32) / 255 - mean) / std).astype(np.float32)
        return {name: np.ascontiguousarray(pixels if self.nhwc else pixels.transpose(2, 0, 1))[np.newaxis]}

    def options(self) -> list[str]:
        size = "x".join(map(str, self.size))
        options = ["--resize", size, "--size", size]
        if not self.raw:
            mean, std = self._statistics()
            options += ["--mean", ",".join(f"{x:g}" for x in mean), "--std", ",".join(f"{x:g}" for x in std)]
        return options

    def _statistics(self) -> tuple[np.ndarray, np.ndarray]:
        halves = np.full(self.channels, 0.5, np.float32)
        return (_MEAN, _STD) if self.channels == 3 else (halves, halves)


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """Arrays for inputs: an example is drawn by ``draw``; they are stacked in one .npz, or in a file each."""

    draw: Callable[[np.random.Generator], Feed]
    stacked: bool = True


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model's file is made, and what the model takes."""

    make: Make
    takes: Pictures | Tensors


RECIPES: dict[str, Recipe] = {}
_STATES: dict[tuple[str, int, float], dict[str, Any]] = {}  # of trained networks

# torchvision's wheel is built for CUDA, and its module in Python needs these to be there beside PyTorch for CPUs
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    (
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    ),
)


def _normal(**shapes: tuple[int, ...]) -> Tensors:
    """Take noise in the shapes of an example, its first axis included."""
    return Tensors(draw=lambda random: {k: random.normal(size=s).astype(np.float32) for k, s in shapes.items()})


# ---- PyTorch


def _batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def _settled(module: nn.Module, examples: list[torch.Tensor]) -> nn.Module:
    """Give a network the factors that training leaves, and normalisations the statistics of examples."""
    generator = torch.Generator().manual_seed(1)
    norms = _batch_norms(module)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 2 and not parameter.any():  # a head that training starts at zero
                parameter.normal_(0, 0.05, generator=generator)
            if name.endswith(("gamma", "layer_scale")):
                parameter.uniform_(0.5, 1, generator=generator)
        for norm in norms:
            if norm.weight is not None:
                norm.weight.uniform_(0.8, 1.2, generator=generator)
                norm.bias.normal_(0, 0.2, generator=generator)
            norm.momentum = None  # of one batch
            norm.train()
        if norms:
            module(*examples)
        module.eval()
    return module


def _trained(module: nn.Module, training: list[tuple[Feed, int]]) -> nn.Module:
    """Train a classifier, or by a linear layer over the means of its maps whatever else a network gives."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.from_numpy(np.concatenate([array for feed, _ in training for array in feed.values()]))
    labels = torch.tensor([label for _, label in training])
    key = (type(module).__name__, sum(p.numel() for p in module.parameters()), float(inputs.sum()))
    if key in _STATES:  # the same network for another exporter
        module.load_state_dict(_STATES[key])
        return module

    def features(batch: torch.Tensor) -> torch.Tensor:
        outputs = module(batch)
        maps = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
        return torch.cat([x.flatten(2).mean(2) if x.ndim > 2 else x for x in maps], dim=1)

    module.train()
    outputs = module(inputs[:2])
    is_classifier = isinstance(outputs, torch.Tensor) and outputs.ndim == 2
    width = features(inputs[:2]).shape[1]
    head = nn.Identity() if is_classifier else nn.Linear(width, 10)
    parameters = [*module.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=_STEPS)
    for _ in range(_STEPS):
        batch = torch.randint(len(inputs), (_BATCH,), generator=generator)
        loss = nn.functional.cross_entropy(head(features(inputs[batch])), labels[batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        for norm in _batch_norms(module):  # some forget so slowly that their statistics are still those of the start
            norm.reset_running_stats()
            norm.momentum = None
        for batch in torch.split(inputs, _BATCH):
            module(batch)
    _STATES[key] = module.eval().state_dict()
    return module


def _torch(
    name: str,
    network: Callable[[], nn.Module],
    example: Callable[[], tuple[torch.Tensor, ...]],
    takes: Pictures | Tensors,
    *,
    inputs: tuple[str, ...] = ("input",),
    dynamo: bool = True,
    opset: int = 18,
    open_axes: dict[int, str] | None = None,
    half: bool = False,
) -> None:
    """Add a model that PyTorch exports: its axes of ``open_axes`` are open, by default the batch."""
    axes = {0: "batch"} if open_axes is None else open_axes

    def make(file: Path, examples: Examples) -> None:
        torch.manual_seed(0)
        arguments, module = example(), network().eval()
        if any(fnmatch.fnmatch(name, pattern) for pattern in _TRAINED):
            module = _trained(module, examples.training)
        else:
            arrays = [np.concatenate([feed[key] for feed in examples.calibration]) for key in inputs]
            module = _settled(module, [torch.from_numpy(array) for array in arrays])
        if half:
            module, arguments = module.half(), tuple(x.half() for x in arguments)
        shapes: dict[str, Any] = {}
        if dynamo and axes:
            sizes = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
            shapes = {"dynamic_shapes": tuple({a: s for a, s in sizes.items() if a < x.ndim} for x in arguments)}
        elif axes:
            shapes = {"dynamic_axes": dict.fromkeys(inputs, axes)}
        torch.onnx.export(
            module,
            arguments,
            str(file),
            input_names=list(inputs),
            opset_version=opset,
            dynamo=dynamo,
            external_data=False,
            **shapes,
        )

    RECIPES[name] = Recipe(make=make, takes=takes)


def _picture_network(
    name: str, network: Callable[[], nn.Module], size: int | tuple[int, int], channels: int = 3, **settings: Any
) -> None:
    sides = (size, size) if isinstance(size, int) else size
    batch = 1 if settings.get("open_axes") == {} else 2
    _torch(
        name,
        network,
        lambda: (torch.randn(batch, channels, *sides),),
        Pictures(size=sides, channels=channels) if channels in (1, 3, 4) else _normal(input=(1, channels, *sides)),
        **settings,
    )


class _Only(nn.Module):
    """A network whose output is a part of another's."""

    def __init__(self, network: nn.Module, pick: Callable[[Any], Any]) -> None:
        super().__init__()
        self.network, self.pick = network, pick

    def forward(self, first: torch.Tensor, second: torch.Tensor | None = None) -> Any:
        return self.pick(self.network(first) if second is None else self.network(first, second))


def _torchvision() -> None:
    from torchvision import models

    def built(name: str, **settings: Any) -> Callable[[], nn.Module]:
        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        return lambda: models.get_model(name, weights=None, **extra, **settings)

    sizes = {
        "resnet18": 64, "mobilenet_v3_small": 96, "efficientnet_b0": 96, "densenet121": 64, "squeezenet1_1": 96,
        "shufflenet_v2_x0_5": 64, "convnext_tiny": 64, "regnet_y_400mf": 64, "swin_t": 64, "mnasnet0_5": 64,
    }  # fmt: skip
    for name, size in sizes.items():
        _picture_network(f"tv-{name}", built(name), size)
    for name in ("googlenet", "inception_v3"):
        size = 96 if name == "googlenet" else 299
        network = lambda name=name: built(name, aux_logits=False)()  # noqa: E731
        _picture_network(f"tv-{name}", network, size)
    _picture_network("tv-vgg11", lambda: nn.Sequential(models.vgg11().features, nn.Flatten(), nn.Linear(2048, 10)), 64)
    vit = lambda: models.VisionTransformer(64, 8, 3, 4, 128, 256, num_classes=10)  # noqa: E731
    _picture_network("tv-vit", vit, 64)
    for name, opset in (
        ("resnet18", 9), ("mobilenet_v2", 11), ("efficientnet_b0", 13), ("densenet121", 12), ("shufflenet_v2_x0_5", 17),
        ("swin_t", 17), ("regnet_x_400mf", 14), ("squeezenet1_0", 10),
    ):  # fmt: skip
        size = 96 if "squeezenet" in name else 64
        _picture_network(f"tv-{name}-old-opset{opset}", built(name), size, dynamo=False, opset=opset)
    _picture_network("tv-vit-old-opset17", vit, 64, dynamo=False, opset=17)
    _picture_network("tv-resnet18-opset21", built("resnet18"), 64, opset=21)
    _picture_network("tv-resnet18-batch1", built("resnet18"), 64, open_axes={})
    open_sides = {0: "n", 2: "h", 3: "w"}
    _picture_network("tv-mobilenet_v2-open-sides", built("mobilenet_v2"), (64, 96), open_axes=open_sides)
    _picture_network("tv-resnet18-open-sides-old", built("resnet18"), (96, 64), open_axes=open_sides, dynamo=False,
                     opset=17)  # fmt: skip
    _picture_network("tv-resnet18-fp16", built("resnet18"), 64, half=True, dynamo=False, opset=17)

    def segmenter(name: str) -> Callable[[], nn.Module]:
        build = getattr(models.segmentation, name)
        return lambda: _Only(build(weights=None, weights_backbone=None, num_classes=5), lambda out: out["out"])

    _picture_network("tv-lraspp", segmenter("lraspp_mobilenet_v3_large"), 96)
    _picture_network("tv-fcn_resnet50", segmenter("fcn_resnet50"), 32)
    _picture_network("tv-deeplabv3_resnet50-old", segmenter("deeplabv3_resnet50"), 32, dynamo=False, opset=17)
    clip = (1, 3, 4, 48, 48)
    for name in ("r3d_18", "r2plus1d_18"):
        network = lambda name=name: models.get_model(name, weights=None, num_classes=10)  # noqa: E731
        _torch(f"tv-{name}", network, lambda: (torch.randn(2, *clip[1:]),), _normal(input=clip))
    frames = ("image1", "image2")
    raft = lambda: _Only(  # noqa: E731
        models.optical_flow.raft_small(weights=None), lambda flows: flows[-1]
    )
    _torch(
        "tv-raft_small",
        raft,
        lambda: (torch.randn(1, 3, 128, 128),) * 2,
        _normal(image1=(1, 3, 128, 128), image2=(1, 3, 128, 128)),
        inputs=frames,
        dynamo=False,
        opset=17,
        open_axes={},
    )
    backbone = lambda: _Only(  # noqa: E731
        models.detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None),
        lambda maps: tuple(maps.values()),
    )
    _picture_network("tv-resnet18-fpn", backbone, 64)
    heads = lambda: _Only(  # noqa: E731
        models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5).backbone,
        lambda maps: tuple(maps.values()),
    )
    _picture_network("tv-ssdlite-backbone-old", heads, 160, dynamo=False, opset=17)


def _timm() -> None:
    import timm

    def built(name: str, **settings: Any) -> Callable[[], nn.Module]:
        return lambda: timm.create_model(name, pretrained=False, **settings)

    for name, size in {
        "resnet26": 64, "resnetv2_50": 64, "seresnet18": 64, "ecaresnet26t": 64, "resnest14d": 64,
        "mobilenetv4_conv_small": 96, "ghostnet_050": 64, "repvgg_a0": 64, "hrnet_w18_small": 64, "mixnet_s": 64,
        "tf_efficientnet_lite0": 64, "dla34": 64, "res2net50_14w_8s": 64, "edgenext_xx_small": 64, "fastvit_t8": 64,
        "mobilevit_xxs": 64, "levit_128s": 224, "convmixer_768_32": 0, "poolformer_s12": 64, "efficientformer_l1": 224,
        "skresnet18": 64, "regnetz_005": 64, "cspresnet50": 64, "lcnet_050": 64,
    }.items():  # fmt: skip
        if size:
            _picture_network(f"timm-{name}", built(name), size)
    _picture_network("timm-resnet18-grey", built("resnet18", in_chans=1), 64, 1)
    _picture_network("timm-mobilenetv3_small_050-rgba", built("mobilenetv3_small_050", in_chans=4), 64, 4)
    _picture_network("timm-resnet18-6channels", built("resnet18", in_chans=6), 64, 6)
    _picture_network("timm-resnet18-oblong", built("resnet18"), (48, 96))
    _picture_network("timm-deit_tiny-oblong", built("deit_tiny_patch16_224", img_size=(64, 96)), (64, 96))
    _picture_network("timm-mobilenetv2_050-old-opset9", built("mobilenetv2_050"), 64, dynamo=False, opset=9)
    _picture_network("timm-resnet10t-features", built("resnet10t", features_only=True), 64)


def _segmentation_models() -> None:
    import segmentation_models_pytorch as smp

    for name, build in {
        "unet": smp.Unet,
        "fpn": smp.FPN,
        "deeplabv3plus": smp.DeepLabV3Plus,
        "pspnet": smp.PSPNet,
    }.items():
        network = lambda build=build: build("resnet18", encoder_weights=None, classes=4)  # noqa: E731
        _picture_network(f"smp-{name}", network, 64)
    _picture_network(
        "smp-unet-mobilenet_v2-old",
        lambda: smp.Unet("mobilenet_v2", encoder_weights=None, classes=2),
        64,
        dynamo=False,
        opset=17,
        open_axes={0: "n", 2: "h", 3: "w"},
    )


class _Recurrent(nn.Module):
    def __init__(self, kind: type[nn.LSTM | nn.GRU], bidirectional: bool = False) -> None:
        super().__init__()
        self.recurrent = kind(20, 64, 2, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(128 if bidirectional else 64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.recurrent(x)[0][:, -1])
        return scores


class _M5(nn.Sequential):
    """The 1-D network of Dai et al. 2016 in torchaudio's tutorial."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs, kernel, stride in ((1, 32, 80, 16), (32, 32, 3, 1), (32, 64, 3, 1), (64, 64, 3, 1)):
            layers += [nn.Conv1d(inputs, outputs, kernel, stride), nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(4)]
        super().__init__(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 35))


class _TwoInputs(nn.Module):
    """Pictures and a row of numbers that goes with each."""

    def __init__(self, *, is_second_used: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()
        )
        self.numbers = nn.Sequential(nn.Linear(12, 32), nn.ReLU())
        self.head = nn.Linear(32, 10)
        self.is_second_used = is_second_used

    def forward(self, picture: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        x = self.body(picture).mean((2, 3))
        scores: torch.Tensor = self.head(x + self.numbers(numbers) if self.is_second_used else x)
        return scores


def _sequences() -> None:
    import torchaudio
    import transformers

    steps = (1, 24, 20)
    everywhere = {0: "batch", 1: "steps"}
    for name, kind, extra in (("lstm", nn.LSTM, {}), ("gru-both-ways", nn.GRU, {"bidirectional": True})):
        network = lambda kind=kind, extra=extra: _Recurrent(kind, **extra)  # noqa: E731
        for dynamo in (True, False):
            _torch(
                f"torch-{name}{'' if dynamo else '-old'}",
                network,
                lambda: (torch.randn(2, *steps[1:]),),
                _normal(input=steps),
                dynamo=dynamo,
                opset=18 if dynamo else 17,
                open_axes=everywhere if not dynamo else None,
            )
    encoder = lambda: nn.TransformerEncoder(  # noqa: E731
        nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2, enable_nested_tensor=False
    )
    _torch("torch-encoder", encoder, lambda: (torch.randn(2, 24, 32),), _normal(input=(1, 24, 32)))
    _torch("audio-m5", _M5, lambda: (torch.randn(2, 1, 8000),), _normal(input=(1, 1, 8000)))
    _torch("audio-m5-old-opset9", _M5, lambda: (torch.randn(2, 1, 8000),), _normal(input=(1, 1, 8000)), dynamo=False,
           opset=9)  # fmt: skip
    separator = lambda: torchaudio.models.ConvTasNet(  # noqa: E731
        num_sources=2, enc_kernel_size=16, enc_num_feats=64, msk_kernel_size=3, msk_num_feats=32,
        msk_num_hidden_feats=64, msk_num_layers=3, msk_num_stacks=2,
    )  # fmt: skip
    _torch("audio-conv_tasnet", separator, lambda: (torch.randn(2, 1, 4000),), _normal(input=(1, 1, 4000)))
    speech = lambda: _Only(  # noqa: E731
        torchaudio.models.wav2vec2_model(
            "group_norm", [(32, 10, 5), (32, 3, 2), (32, 3, 2)], False, 48, 0.0, 16, 4, 2, 4, 0.0, 96, 0.0, 0.0, False,
            0.0, 29,
        ),
        lambda out: out[0],
    )  # fmt: skip
    _torch("audio-wav2vec2", speech, lambda: (torch.randn(2, 4000),), _normal(input=(1, 4000)), dynamo=False, opset=17)

    class _Emformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torchaudio.models.Emformer(32, 4, 64, 2, segment_length=8, right_context_length=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            encoded: torch.Tensor = self.body(x, torch.full((x.shape[0],), 24))[0]
            return encoded

    _torch("audio-emformer", _Emformer, lambda: (torch.randn(1, 26, 32),), _normal(input=(1, 26, 32)), dynamo=False,
           opset=17, open_axes={})  # fmt: skip
    words = lambda: _Only(  # noqa: E731
        transformers.BertModel(
            transformers.BertConfig(vocab_size=200, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                                    intermediate_size=128, attn_implementation="eager")
        ),
        lambda out: out.last_hidden_state,
    )  # fmt: skip

    def tokens(random: np.random.Generator) -> Feed:
        mask = np.arange(16) < random.integers(8, 17)
        return {"input_ids": random.integers(0, 200, (1, 16)), "attention_mask": mask.astype(np.int64)[np.newaxis]}

    for dynamo in (True, False):
        _torch(
            f"bert{'' if dynamo else '-old'}",
            words,
            lambda: (torch.randint(0, 200, (2, 16)), torch.ones(2, 16, dtype=torch.int64)),
            Tensors(draw=tokens),
            inputs=("input_ids", "attention_mask"),
            dynamo=dynamo,
            opset=18 if dynamo else 17,
        )
    for is_second_used in (True, False):
        _torch(
            "two-inputs" if is_second_used else "two-inputs-second-unused",
            partial(_TwoInputs, is_second_used=is_second_used),
            lambda: (torch.randn(2, 3, 32, 32), torch.randn(2, 12)),
            _normal(picture=(1, 3, 32, 32), numbers=(1, 12)),
            inputs=("picture", "numbers"),
        )


# ---- files that are no PyTorch export as it comes


def _rewritten() -> None:
    """Files that other tools would write: pixels, channels last, without batch normalisation folded."""

    def from_pixels(file: Path, examples: Examples, *, nhwc: bool) -> None:
        """Put uint8 pixels, scaled in the graph, before the file of torchvision's ResNet-18."""
        axes = (0, 3, 1, 2) if nhwc else (0, 1, 2, 3)

        def scaled(feed: Feed) -> Feed:
            (pixels,) = feed.values()
            return {"input": pixels.astype(np.float32).transpose(axes) / 255}

        RECIPES["tv-resnet18-old-opset9"].make(file, examples.changed(scaled))
        model = version_converter.convert_version(onnx.load(file), 13)
        graph, old = model.graph, model.graph.input[0].name
        shape: list[str | int | None] = ["batch", 64, 64, 3] if nhwc else ["batch", 3, 64, 64]
        nodes = [
            helper.make_node("Cast", ["pixels"], ["as_float"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["as_float", "most"], ["scaled"]),
        ]
        nodes.append(
            helper.make_node("Transpose", ["scaled"], [old], perm=[0, 3, 1, 2])
            if nhwc
            else helper.make_node("Identity", ["scaled"], [old])
        )
        graph.initializer.append(numpy_helper.from_array(np.array(255, np.float32), "most"))
        del graph.input[:]
        graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape))
        for node in reversed(nodes):
            graph.node.insert(0, node)
        onnx.checker.check_model(model)
        onnx.save(model, file)

    for layout in ("nchw", "nhwc"):
        RECIPES[f"pixels-{layout}-resnet18"] = Recipe(
            make=partial(from_pixels, nhwc=layout == "nhwc"),
            takes=Pictures(size=(64, 64), raw=True, nhwc=layout == "nhwc"),
        )


def _keras() -> None:
    os.environ["KERAS_BACKEND"] = "torch"

    def network(name: str) -> Any:
        import keras

        keras.utils.set_random_seed(0)
        if name == "mobilenet_v2":
            return keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, classes=10)
        layers = keras.layers
        blocks = [
            layers.Conv2D(16, 3, 2, "same"), layers.BatchNormalization(), layers.ReLU(), layers.SeparableConv2D(32, 3),
            layers.LeakyReLU(), layers.MaxPooling2D(), layers.Conv2DTranspose(16, 2, 2),
            layers.GlobalAveragePooling2D(), layers.Dense(10, "softmax"),
        ]  # fmt: skip
        return keras.Sequential([layers.Input((64, 64, 3)), *blocks])

    def exported(file: Path, examples: Examples, name: str) -> None:
        model = network(name)
        for layer in model.layers:
            if "BatchNorm" in type(layer).__name__:
                layer.momentum = 0.9  # 0.99 is for longer training
        pictures = np.concatenate([x for feed, _ in examples.training for x in feed.values()])
        labels = np.array([label for _, label in examples.training])
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(pictures, labels, batch_size=_BATCH, epochs=-(-_STEPS * _BATCH // len(labels)), verbose=0)
        model.export(str(file), format="onnx", verbose=False)

    for name, side in {"mobilenet_v2": 96, "small": 64}.items():
        RECIPES[f"keras-{name}"] = Recipe(
            make=partial(exported, name=name),
            takes=Pictures(size=(side, side), nhwc=True),
        )


def _backend_tests() -> None:
    """Models in the package onnx: whole networks with constant weights, and single operators."""
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"

    def copied(source: Path) -> Make:
        def make(file: Path, _: Examples) -> None:
            shutil.copyfile(source, file)

        return make

    for name in ("squeezenet", "shufflenet", "inception_v1", "inception_v2", "resnet50", "densenet121"):
        RECIPES[f"onnx-light_{name}"] = Recipe(
            make=copied(data / "light" / f"light_{name}.onnx"), takes=Pictures(size=(224, 224))
        )
    for folder, name in (
        ("pytorch-converted", "Conv1d_groups"), ("pytorch-converted", "Conv2d_depthwise"),
        ("pytorch-converted", "Conv3d"), ("pytorch-converted", "ConvTranspose2d"), ("pytorch-converted", "Linear"),
        ("pytorch-converted", "BatchNorm2d_eval"), ("pytorch-converted", "PReLU_2d"),
        ("pytorch-converted", "PixelShuffle"), ("pytorch-converted", "Embedding"), ("pytorch-converted", "GLU"),
        ("pytorch-operator", "operator_conv"), ("pytorch-operator", "operator_convtranspose"),
        ("pytorch-operator", "operator_mm"), ("pytorch-operator", "operator_addmm"),
        ("simple", "single_relu_model"), ("simple", "sequence_model1"), ("simple", "shrink"),
    ):  # fmt: skip
        source = data / folder / f"test_{name}" / "model.onnx"
        RECIPES[f"onnx-{name}"] = Recipe(make=copied(source), takes=Tensors(draw=_drawn_for(source), stacked=False))


def _drawn_for(source: Path) -> Callable[[np.random.Generator], Feed]:
    def draw(random: np.random.Generator) -> Feed:
        graph = onnx.load(source).graph
        weights = {tensor.name for tensor in graph.initializer}
        feed = {}
        for value in graph.input:
            if value.name in weights:
                continue
            tensor = value.type.tensor_type
            shape = [dimension.dim_value or 2 for dimension in tensor.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            is_float = dtype.kind == "f"
            feed[value.name] = (random.normal(size=shape) if is_float else random.integers(0, 3, shape)).astype(dtype)
        return feed

    return draw


# ---- the folder


def _write(recipe: Recipe, folder: Path, pictures: list[Path]) -> None:
    """Write a model and its examples."""
    folder.mkdir(parents=True)
    takes, facts = recipe.takes, {"data": "calibration", "options": []}
    if isinstance(takes, Pictures):
        facts = {"data": "pictures", "options": takes.options()}
        examples = _write_pictures(takes, folder, pictures)
    else:
        random = np.random.default_rng(0)
        drawn = [takes.draw(random) for _ in range(CALIBRATION + HELD_OUT)]
        examples = Examples(calibration=drawn[:CALIBRATION], held_out=drawn[CALIBRATION:])
    recipe.make(folder / "model.onnx", examples)
    graph = onnx.load(folder / "model.onnx").graph
    weights = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name not in weights]  # an exporter may leave one out
    types = {value.name: helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type) for value in kept}

    def as_taken(feed: Feed) -> Feed:
        if isinstance(takes, Pictures):
            feed = dict(zip(types, feed.values(), strict=True))
        return {name: feed[name].astype(dtype) for name, dtype in types.items()}

    examples = examples.changed(as_taken)
    for part, feeds in (("calibration", examples.calibration), ("heldout", examples.held_out)):
        (folder / part).mkdir()
        for index, feed in enumerate(feeds):
            _save(folder / part / f"{index:03}.npz", feed)
    if isinstance(takes, Tensors) and takes.stacked:
        facts["data"] = "calibration.npz"
        feeds = examples.calibration
        _save(folder / "calibration.npz", {name: np.concatenate([feed[name] for feed in feeds]) for name in types})
        if any(not axis.HasField("dim_value") for value in kept for axis in value.type.tensor_type.shape.dim[1:]):
            facts["shapes"] = [f"{name}={'x'.join(map(str, array.shape))}" for name, array in feeds[0].items()]
    (folder / "facts.json").write_text(json.dumps(facts))


def _write_pictures(takes: Pictures, folder: Path, pictures: list[Path]) -> Examples:
    """Write pictures in the size and mode of an input, and return all of them as the model takes them."""
    classes = sorted({path.parent.name for path in pictures})
    opened = [takes.opened(path) for path in pictures]
    feeds = [takes.feed(picture, "input") for picture in opened]
    labelled = [(feed, classes.index(path.parent.name)) for feed, path in zip(feeds, pictures, strict=True)]
    held_out = slice(CALIBRATION, CALIBRATION + HELD_OUT)
    for part, chosen in (("pictures", opened[:CALIBRATION]), ("heldout-pictures", opened[held_out])):
        (folder / part).mkdir()
        for index, picture in enumerate(chosen):
            picture.save(folder / part / f"{index:03}.png")
    return Examples(
        calibration=feeds[:CALIBRATION],
        held_out=feeds[held_out],
        training=labelled[:CALIBRATION] + labelled[CALIBRATION + HELD_OUT :],
    )


def _save(file: Path, arrays: Mapping[str, Any]) -> None:
    np.savez(file, **arrays)


def main(folder: str, pictures: str, *patterns: str) -> None:
    """Make the models whose names match, but those that there are."""
    warnings.simplefilter("ignore")
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _OPERATORS:
        library.define(schema)  # type: ignore[no-untyped-call]
    for part in (
        _torchvision, _timm, _segmentation_models, _sequences, _rewritten, _keras, _backend_tests
    ):  # fmt: skip
        try:
            part()
        except ImportError as error:
            print(f"no models of {part.__name__.strip('_')}: {error}")
    files = sorted(path for path in Path(pictures).glob("*/*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    np.random.default_rng(0).shuffle(files)
    files = files[:_PICTURES]
    for name, recipe in RECIPES.items():
        target, draft = Path(folder) / name, Path(folder) / f".{name}"
        if target.exists() or not any(fnmatch.fnmatch(name, pattern) for pattern in patterns or "*"):
            continue
        shutil.rmtree(draft, ignore_errors=True)
        try:
            _write(recipe, draft, files)
        except Exception as error:  # whatever an exporter raises
            print(f"{name}: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")
            continue
        draft.rename(target)
        print(f"{name}: {(target / 'model.onnx').stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
