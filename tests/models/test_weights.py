from __future__ import annotations

import argparse
import hashlib
import io
import os
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import nn

from rexport import models
from rexport._errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    State = dict[str, torch.Tensor]


@pytest.fixture
def network() -> nn.Module:
    return models.build("cifar_resnet8", seed=1)


@pytest.fixture
def other() -> nn.Module:
    return models.build("cifar_resnet8", seed=2)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".th", ".bin", ".PTH", ".ckpt", ".pth.tar", ""])
def test_every_format_gives_the_same_network(suffix: str, network: nn.Module, other: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    _save(network.state_dict(), path)
    models.load_weights(other, path)
    assert models.state_dict_hash(other) == models.state_dict_hash(network)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "best": 0.9},
        lambda state: {"model": state, "optimizer": {"step": 1}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {name.replace("fc.", "linear."): tensor for name, tensor in state.items()},
        lambda state: {f"module.{name.replace('fc.', 'linear.')}": tensor for name, tensor in state.items()},
        lambda state: {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")},
        lambda state: {name: t.double() if t.is_floating_point() else t for name, t in state.items()},
    ],
    ids=["state_dict", "model", "nested", "module.", "linear.", "both", "no counters", "float64"],
)
def test_checkpoints_of_every_habit_fit(
    wrap: Callable[[State], object], zipped: bool, network: nn.Module, other: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save(wrap(network.state_dict()), path, _use_new_zipfile_serialization=zipped)
    models.load_weights(other, path)
    assert models.state_dict_hash(other) == models.state_dict_hash(network)


# what trainers wrap around a network


class Small(nn.Module):
    """A network of three tensors, with a head called ``head``."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, classes, bias=False)


class Wrapping(nn.Module):
    """A network that has layers called as wrappers call what they wrap."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.ModuleDict({"net": nn.Conv2d(3, 4, 3), "ema": nn.Conv2d(3, 4, 3)})
        self.module = nn.Linear(4, 3)


class Config:
    """What a trainer keeps beside the weights."""

    def __init__(self) -> None:
        self.rate = 0.1


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def filled(network: nn.Module, content: object, tmp_path: Path) -> tuple[State, list[str]]:
    """Save ``content``, load it into ``network``, and return its tensors and what was told."""
    notes: list[str] = []
    torch.save(content, tmp_path / "checkpoint")
    models.load_weights(network, tmp_path / "checkpoint", tell=notes.append)
    return network.state_dict(), notes


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize(
    "prefix",
    [
        *("_orig_mod.", "module.", "model.", "net.", "network.", "backbone.", "ema.", "ema_model."),
        *("module._orig_mod.", "_orig_mod.module.", "model.backbone.", "model._orig_mod.net.", "ema_model.module."),
    ],
)
@pytest.mark.parametrize("make", [Small, Wrapping])
def test_prefixes_of_any_depth_are_taken_off(prefix: str, make: type[nn.Module], tmp_path: Path) -> None:
    state = make().state_dict()
    loaded, notes = filled(make(), under(prefix, state), tmp_path)
    assert same(loaded, state)
    assert notes == []


def test_names_that_the_network_has_stay(tmp_path: Path) -> None:
    state = Wrapping().state_dict()
    assert same(filled(Wrapping(), state, tmp_path)[0], state)


@pytest.mark.parametrize(
    "key",
    [
        *("state_dict", "model_state_dict", "model", "net", "network", "module", "encoder"),
        *("model_ema", "state_dict_ema", "ema_state_dict"),
    ],
)
def test_entries_that_trainers_keep_weights_under_are_read(key: str, tmp_path: Path) -> None:
    state = Small().state_dict()
    content = {key: state, "epoch": 1, "best": torch.tensor(0.9), "optimizer": {"state": {}, "param_groups": []}}
    assert same(filled(Small(), content, tmp_path)[0], state)


def test_a_lightning_checkpoint_of_a_module_with_a_loss(tmp_path: Path) -> None:
    state = Small().state_dict()
    content = {
        "state_dict": {**under("model.", state), "loss.weight": torch.ones(3)},
        "hyper_parameters": {"rate": 0.1},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9)}},
        "loops": {"fit_loop": {"state_dict": {}}},
    }
    loaded, notes = filled(Small(), content, tmp_path)
    assert same(loaded, state)
    assert notes == [f"left out of {tmp_path / 'checkpoint'}, as the network has no such thing: loss.weight."]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_of_openmmlab(prefix: str, tmp_path: Path) -> None:
    trained, network = models.build("cifar_resnet8", seed=1), models.build("cifar_resnet8", seed=2)
    weights = {
        f"{prefix}{'head' if name.startswith('fc.') else 'backbone'}.{name}": tensor
        for name, tensor in trained.state_dict().items()
    }
    torch.save({"meta": {"epoch": 100}, "state_dict": weights}, tmp_path / "epoch_100.pth")
    models.load_weights(network, tmp_path / "epoch_100.pth")
    assert models.state_dict_hash(network) == models.state_dict_hash(trained)


def test_an_averaged_model(tmp_path: Path) -> None:
    network = Small()
    state = torch.optim.swa_utils.AveragedModel(network).state_dict()
    assert "n_averaged" in state
    loaded, notes = filled(Small(), state, tmp_path)
    assert same(loaded, network.state_dict())
    assert notes == []


@pytest.mark.parametrize("wrapped", [True, False])
def test_of_plain_and_averaged_weights_the_plain_ones_are_taken_and_that_is_said(wrapped: bool, tmp_path: Path) -> None:
    plain, averaged = Small().state_dict(), Small().state_dict()
    content: dict[str, Any] = {"model_ema": averaged, "model": plain}
    if wrapped:
        content = {"state_dict": {**under("ema_model.module.", averaged), **under("model.", plain)}}
    loaded, (note,) = filled(Small(), content, tmp_path)
    assert same(loaded, plain)
    assert f"has averaged (EMA) weights too, under {'ema_model' if wrapped else 'model_ema'}" in note


def test_wrappers_within_names_are_taken_out(tmp_path: Path) -> None:
    state = Small().state_dict()
    inside = {name.replace("stem.", "stem._orig_mod.").replace("head.", "head.module."): t for name, t in state.items()}
    assert same(filled(Small(), inside, tmp_path)[0], state)
    with pytest.raises(WeightsError, match=r"two tensors for stem\.weight; stem\._orig_mod\.weight is the second"):
        filled(Small(), state | inside, tmp_path)


@pytest.mark.parametrize("head", ["fc", "linear", "classifier", "last_linear"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_head_of_any_usual_name_is_the_networks_head(head: str, prefix: str, tmp_path: Path) -> None:
    state = Small().state_dict()
    renamed = {name.replace("head.", f"{head}."): tensor for name, tensor in state.items()}
    assert same(filled(Small(), under(prefix, renamed), tmp_path)[0], state)


def test_a_layer_of_an_own_network_may_be_called_linear(tmp_path: Path) -> None:
    def network() -> nn.Module:
        return nn.ModuleDict({"linear": nn.Linear(4, 4), "fc": nn.Linear(4, 3)})

    state = network().state_dict()
    assert same(filled(network(), state, tmp_path)[0], state)


@pytest.mark.parametrize("zipped", [True, False])
def test_configurations_beside_the_weights_are_passed_over(zipped: bool, tmp_path: Path) -> None:
    state = Small().state_dict()
    content = {"args": argparse.Namespace(lr=0.1), "config": Config(), "path": tmp_path, "model": state}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    network = Small()
    models.load_weights(network, tmp_path / "w.pth")
    assert same(network.state_dict(), state)


def test_weights_that_cannot_be_understood_name_both_sides(tmp_path: Path) -> None:
    torch.save({"layer.a": torch.ones(2), "layer.b": torch.ones(3)}, tmp_path / "w.pth")
    message = _refusal(Small(), tmp_path / "w.pth")
    assert "missing: stem.weight 4×3×3×3, stem.bias 4, head.weight 3×4." in message
    assert "unexpected: layer.a 2, layer.b 3." in message


def test_a_network_on_the_meta_device_gets_memory(tmp_path: Path) -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    state = {name: tensor for name, tensor in network().state_dict().items() if "num_batches" not in name}
    with torch.device("meta"):
        empty = network()
    loaded, _ = filled(empty, state, tmp_path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert loaded["1.num_batches_tracked"].item() == 0


def test_a_buffer_on_the_meta_device_that_no_state_dict_has_is_told(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = nn.Linear(4, 3)
        network.register_buffer("scale", torch.ones(1), persistent=False)
    with pytest.raises(WeightsError, match="made on the meta device, and its buffer scale is in no state dict"):
        filled(network, nn.Linear(4, 3).state_dict(), tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_half_precision_becomes_float32(dtype: torch.dtype, suffix: str, network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / f"half{suffix}"
    _save({name: t.to(dtype) if t.is_floating_point() else t for name, t in network.state_dict().items()}, path)
    state = models.read_state_dict(path)
    assert {t.dtype for t in state.values()} == {torch.float32, torch.int64}
    assert torch.equal(state["conv1.weight"], network.conv1.weight.to(dtype).float())


def test_the_public_checkpoint_and_a_safetensors_copy_are_one(data_dir: Path, tmp_path: Path) -> None:
    first = models.build("cifar_resnet20", weights=data_dir / "weights" / "cifar_resnet20.th")
    _save(first.state_dict(), tmp_path / "copy.safetensors")
    second = models.build("cifar_resnet20", weights=str(tmp_path / "copy.safetensors"))
    assert models.state_dict_hash(first) == models.state_dict_hash(second)


def test_weights_for_other_classes_name_the_option(network: nn.Module, tmp_path: Path) -> None:
    _save(models.build("cifar_resnet8", num_classes=100).state_dict(), tmp_path / "w.pth")
    assert _refusal(network, tmp_path / "w.pth") == (
        f"{tmp_path / 'w.pth'} does not fit the network. 2 of another shape or kind: fc.weight (got 100×64, "
        "expected 10×64), fc.bias (got 100, expected 10). Only the head differs: the weights are for 100 classes and "
        "the network has 10 outputs; give it as many (--num-classes, if it takes that), or other weights."
    )


def test_missing_tensors_are_listed_and_nothing_is_loaded(network: nn.Module, tmp_path: Path) -> None:
    state = network.state_dict()
    dropped = [name for name in state if name.startswith("layer3") and not name.endswith("tracked")]
    _save({name: 2 * tensor for name, tensor in state.items() if name not in dropped}, tmp_path / "w.pth")
    before = models.state_dict_hash(network)
    message = _refusal(network, tmp_path / "w.pth")
    assert f"{len(dropped)} missing: layer3.0.conv1.weight 64×32×3×3, " in message
    assert f" and {len(dropped) - 5} more. " in message
    assert dropped[4] in message
    assert dropped[5] not in message
    assert "rexport models" in message
    assert models.state_dict_hash(network) == before


def test_unexpected_tensors_are_listed(network: nn.Module, tmp_path: Path) -> None:
    _save(models.build("cifar_resnet14").state_dict(), tmp_path / "w.pth")
    assert "36 unexpected: layer1.1.conv1.weight 16×16×3×3, " in _refusal(network, tmp_path / "w.pth")


def test_weights_of_another_kind_of_network_are_told(network: nn.Module, tmp_path: Path) -> None:
    _save(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8, 10)).state_dict(), tmp_path / "w.pth")
    message = _refusal(network, tmp_path / "w.pth")
    assert "Nearly everything is missing: these are weights of another network" in message
    assert "4 unexpected: 0.weight 8×3×3×3, " in message


def test_integers_in_the_place_of_weights_are_refused(network: nn.Module, tmp_path: Path) -> None:
    state = network.state_dict()
    _save(state | {"conv1.weight": torch.ones(16, 3, 3, 3, dtype=torch.int8)}, tmp_path / "w.safetensors")
    message = _refusal(network, tmp_path / "w.safetensors")
    assert "1 of another shape or kind: conv1.weight (got 16×3×3×3 of torch.int8, expected 16×3×3×3)" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused_by_name(value: float, network: nn.Module, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state["layer2.0.bn1.running_var"][3] = value
    _save(state, tmp_path / "w.safetensors")
    message = _refusal(network, tmp_path / "w.safetensors")
    assert "layer2.0.bn1.running_var has 1 of 32 values that are NaN or infinite" in message


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(WeightsError, match=r"There is no file .*none\.pth\."):
        models.read_state_dict(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match=r"folder\.pth is a folder, not a file\."):
        models.read_state_dict(tmp_path / "folder.pth")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("model.onnx", "is an ONNX model, not weights"),
        ("weights", "is not a file written by torch.save"),
        ("weights.h5", "is not a file written by torch.save"),
    ],
)
def test_files_of_other_kinds_are_refused(name: str, why: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(WeightsError, match=why):
        models.read_state_dict(tmp_path / name)


def test_code_in_a_pickle_is_named_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {"conv1.weight": _Code(tmp_path / "ran")}}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"running code that it names \(\w+\.mkdir\).*safetensors\.torch\.save_file"):
        models.read_state_dict(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("wrap", [lambda network: network, lambda network: {"epoch": 1, "model": network}])
def test_a_pickled_network_is_not_unpickled(
    wrap: Callable[[nn.Module], object], network: nn.Module, tmp_path: Path
) -> None:
    torch.save(wrap(network), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"running code that it names \(rexport\.models\.resnet\.ResNet\)"):
        models.read_state_dict(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_told(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="is a TorchScript program, not a state dict"):
        models.read_state_dict(tmp_path / "w.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html><body>404</body></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        pickle.dumps({"conv1.weight": 1}),
    ],
    ids=["empty", "web page", "LFS pointer", "plain pickle"],
)
def test_files_that_are_no_weights_are_told(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"is damaged, or is not .*; get it again\."):
        models.read_state_dict(path)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@settings(max_examples=60)
@given(data=st.data())
def test_no_truncated_file_is_taken_or_shows_a_traceback(
    kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = _WHOLE[kind]
    path = tmp_path_factory.getbasetemp() / f"cut.{'safetensors' if kind == 'safetensors' else 'pth'}"
    path.write_bytes(whole)
    assert list(models.read_state_dict(path)) == ["a", "b"]
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    # cut within a function's name, the older format reads as if it named another
    with pytest.raises(WeightsError, match="damaged|without running code" if kind == "legacy" else "damaged"):
        models.read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds a value of type list, not a state dict"),
        (torch.ones(1), "holds a value of type Tensor, not a state dict"),
        ({}, "holds no tensors"),
        ({"state_dict": {}}, "holds no tensors"),
        ({"conv1.weight": 3.0}, "has 'conv1.weight' of type float, and a state dict has tensors only"),
        ({"epoch": 3, "optimizer": {"state": {}}}, "has 'epoch' of type int"),
        ({"epoch": 3, "G": {"a": torch.ones(1)}, "D": {"a": torch.ones(1)}}, r"holds several state dicts \(G, D\)"),
        ({"a": torch.ones(2, 2).to_sparse()}, "no plain numbers for a"),
        ({"a": torch.ones(2, device="meta")}, "no plain numbers for a"),
    ],
)
def test_other_content_is_told(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=message):
        models.read_state_dict(tmp_path / "w.pth")


def test_the_hash_is_what_its_docstring_says() -> None:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0]]))
        layer.bias.fill_(0.5)
    text = b"bias float32 [1]\n\x00\x00\x00\x3fweight float32 [1, 2]\n\x00\x00\x80\x3f\x00\x00\x00\xc0"
    assert models.state_dict_hash(layer) == hashlib.sha256(text).hexdigest()


def test_the_hash_sees_the_last_bit_of_any_tensor_but_not_the_counter(network: nn.Module) -> None:
    seen = {models.state_dict_hash(network)}
    counters = 0
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            flat = tensor.view(-1)
            flat[-1] = flat[-1].nextafter(torch.tensor(2.0))
            seen.add(models.state_dict_hash(network))
        else:
            assert name.endswith("num_batches_tracked")
            tensor += 1
            counters += 1
            assert models.state_dict_hash(network) in seen
    assert len(seen) == 1 + len(network.state_dict()) - counters


def test_the_hash_does_not_depend_on_the_memory_layout(network: nn.Module) -> None:
    before = models.state_dict_hash(network)
    assert models.state_dict_hash(network.to(memory_format=torch.channels_last)) == before


class _Code:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _whole_files() -> dict[str, bytes]:
    state = {"a": torch.ones(7), "b": torch.zeros(2, 3)}
    files = {"safetensors": save(state)}
    for kind in ("zip", "legacy"):
        buffer = io.BytesIO()
        torch.save(state, buffer, _use_new_zipfile_serialization=kind == "zip")
        files[kind] = buffer.getvalue()
    return files


_WHOLE = _whole_files()


def _save(state: State, path: Path) -> None:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)


def _refusal(network: nn.Module, path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        models.load_weights(network, path)
    return str(caught.value)
