"""``rexport train``: the same weights however often it was stopped, and one sentence for whatever a user gets wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from rexport.model_file import Metadata, load
from rexport.models import build, load_weights
from rexport.preprocessing import Preprocessing
from tests.cli._run import interrupted, invoke
from tests.training._images import write_images

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

_TRAIN = ["train", "cifar_resnet8", "--data", "data", "-o", "w.safetensors", "--threads", "1", "--batch", "8"]


# rexport, killed when the seventh checkpoint of its 20 is in its place
_KILLED = """
import os, signal, sys
from rexport.cli import main
checkpoints = []

def hook(event, arguments):
    if event == "os.remove" and ".resume." in str(arguments[0]):
        checkpoints.append(arguments[0])
        if len(checkpoints) == 7:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
main()
"""


def _train(*options: str) -> Result:
    return invoke(*_TRAIN, *options)


@pytest.mark.slow
def test_weights_classes_and_the_document(workshop: Path) -> None:
    done = _train("--epochs", "3", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["schema"] == "rexport.train/1"
    assert (document["network"], document["classes"]) == ("cifar_resnet8", ["blue", "red"])
    assert (document["images"], document["test_images"], document["weights"]) == (40, 10, "w.safetensors")
    assert [epoch["epoch"] for epoch in document["epochs"]] == [1, 2, 3]
    assert {"loss", "top1", "seconds"} <= set(document["epochs"][0])
    assert document["top1"] == document["epochs"][-1]["top1"] == 1.0
    assert [line[:14] for line in done.stderr.splitlines()[1:]] == [f"epoch   {epoch} of 3" for epoch in (1, 2, 3)]
    with safe_open("w.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["classes"]) == ["blue", "red"]
    assert Preprocessing.from_json(metadata["preprocessing"]) == Preprocessing(size=32)
    load_weights(build("cifar_resnet8", num_classes=2), "w.safetensors")
    assert sorted(path.name for path in workshop.iterdir()) == ["data", "w.safetensors"]


@pytest.mark.slow
def test_what_it_writes_is_what_the_other_commands_take(workshop: Path) -> None:
    assert _train("--epochs", "2").exit_code == 0
    exported = ["onnx", "cifar_resnet8", "--weights", "w.safetensors", "--num-classes", "2", "-o", "w.onnx"]
    assert invoke(*exported).exit_code == 0
    evaluated = invoke("eval", "w.onnx", "--data", "data/test", "--json")
    assert json.loads(evaluated.stdout)["top1"] == 1.0


@pytest.mark.slow
def test_with_qat_the_int8_file_is_what_the_weights_would_give(workshop: Path) -> None:
    assert _train("--epochs", "2").exit_code == 0
    qat = ["--weights", "w.safetensors", "--qat", "data/train", "-o", "q.safetensors"]
    done = _train("--epochs", "2", *qat, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["int8"] == "q.int8.onnx"
    assert not (workshop / "q.safetensors.resume").exists()
    exported = ["onnx", "cifar_resnet8", "--weights", "q.safetensors", "--num-classes", "2", "-o", "q.onnx"]
    assert invoke(*exported).exit_code == 0
    evaluated = invoke("eval", "q.int8.onnx", "--data", "data/test", "--reference", "q.onnx", "--json")
    assert evaluated.exit_code == 0, evaluated.output
    document = json.loads(evaluated.stdout)
    assert document["sqnr_db"] > 20  # INT8's own error; of other weights it would be below zero
    assert document["top1"] == 1.0


@pytest.mark.slow
def test_how_it_prepared_pictures_is_what_the_exported_file_states(workshop: Path) -> None:
    assert _train("--epochs", "1", "--mean", "0,0,0", "--std", "0.1,0.1,0.1", "--resize", "36").exit_code == 0
    exported = invoke("onnx", "cifar_resnet8", "--weights", "w.safetensors", "-o", "w.onnx")
    assert (exported.exit_code, exported.stderr) == (0, "")
    metadata = Metadata.of(load(workshop / "w.onnx"))
    stated = Preprocessing(size=32, resize=36, mean=(0, 0, 0), std=(0.1, 0.1, 0.1))
    assert metadata.preprocessing == stated
    assert not metadata.preprocessing.assumed
    assert metadata.classes == ("blue", "red")
    again = _train(*["--epochs", "1", "--weights", "w.safetensors", "--std", "0.2,0.2,0.2", "-o", "v.safetensors"])
    assert "w.safetensors states std 0.1,0.1,0.1; taking --std 0.2,0.2,0.2 instead." in again.stderr
    invoke("onnx", "cifar_resnet8", "--weights", "v.safetensors", "-o", "v.onnx")
    found = Metadata.of(load(workshop / "v.onnx")).preprocessing
    assert found == replace(stated, std=(0.2, 0.2, 0.2))  # fine-tuned as it was trained, but for what was said


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_killed_twice_it_ends_with_the_same_bytes(workshop: Path) -> None:
    options = ["--epochs", "4", "--checkpoint-every", "1"]
    assert _train(*options).exit_code == 0
    expected = (workshop / "w.safetensors").read_bytes()
    (workshop / "w.safetensors").unlink()
    command = [sys.executable, "-c", _KILLED, *_TRAIN, *options]
    for _ in range(2):
        assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    assert not (workshop / "w.safetensors").exists()
    resumed = _train(*options)
    assert resumed.exit_code == 0
    assert "resuming from w.safetensors.resume, after " in resumed.stderr
    assert (workshop / "w.safetensors").read_bytes() == expected
    assert sorted(path.name for path in workshop.iterdir()) == ["data", "w.safetensors"]


@pytest.fixture
def stopped(workshop: Path) -> Path:
    """The workshop with a training that was stopped by Ctrl-C in its second epoch."""
    command = [sys.executable, "-m", "rexport", *_TRAIN, "--epochs", "400"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "epoch   1" not in process.stderr.readline():
            assert process.poll() is None
        while not (workshop / "w.safetensors.resume").exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        _, errors = interrupted(process)
    assert "run the same command again to resume from w.safetensors.resume" in errors
    return workshop


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_other_options_do_not_go_on_and_restart_begins_anew(stopped: Path) -> None:
    for options, difference in (
        (["--epochs", "2"], "epochs was 400 and is now 2"),
        (["--epochs", "400", "--lr", "0.5"], "learning rate was 0.1 and is now 0.5"),
        (["--epochs", "400", "--no-augment"], "augment was True and is now False"),
        (["--epochs", "400", "--seed", "1"], "the weights have changed; seed was 0 and is now 1"),
    ):
        refused = _train(*options)
        assert refused.exit_code == 2
        assert difference in refused.stderr
        assert "--restart" in refused.stderr
    (stopped / "data" / "train" / "red" / "000.png").unlink()
    assert "the images have changed" in _train("--epochs", "400").stderr
    begun = _train("--epochs", "1", "--restart")
    assert begun.exit_code == 0
    assert "going on" not in begun.stderr
    assert not (stopped / "w.safetensors.resume").exists()


@pytest.mark.slow
def test_a_new_head_on_frozen_weights(workshop: Path) -> None:
    assert _train("--epochs", "1").exit_code == 0
    os.replace("w.safetensors", "old.safetensors")  # noqa: PTH105
    write_images(workshop / "data" / "train", ("green",), count=10)
    done = _train("--weights", "old.safetensors", "--freeze-backbone", "--epochs", "2")
    assert done.exit_code == 0, done.stderr
    assert "new head with 3 outputs" in done.stderr
    old, new = load_file("old.safetensors"), load_file("w.safetensors")
    assert new["fc.weight"].shape == (3, 64)
    assert [name for name in old if not name.startswith("fc.") and not torch.equal(old[name], new[name])] == []


@pytest.mark.slow
def test_fine_tuning_starts_at_a_tenth_of_the_learning_rate(workshop: Path) -> None:
    assert _train("--epochs", "1").exit_code == 0
    os.replace("w.safetensors", "old.safetensors")  # noqa: PTH105
    done = _train("--weights", "old.safetensors", "--epochs", "1", "--recipe", "paper", "--json")
    document = json.loads(done.stdout)
    assert (document["recipe"], document["learning_rate"]) == ("paper", pytest.approx(0.01))
    assert "new head" not in done.stderr


_TABLE = [
    ("--data missing", 2, "missing does not exist"),
    ("--data one --test one", 1, "one class only (red, 1 in all)"),
    ("--data broken", 1, "broken/train/blue/000.png"),
    ("--data large", 1, "is 40×40 pixels"),
    ("--weights missing.pth", 2, "missing.pth does not exist"),
    ("--weights other.safetensors", 1, "other.safetensors does not fit the network"),
    ("-o nowhere/w.safetensors", 1, "mkdir -p nowhere"),
    ("--recipe adam", 2, "no recipe 'adam'"),
    ("--epochs 0", 2, "--epochs"),
    ("--device cpu --precision fp16", 2, "fp16 is for CUDA"),
    ("--recipe paper --lr 1e30 --epochs 1", 1, "The training diverged: at step 2 of epoch 1"),
]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("seven", "outputs than 2, and takes no num_classes"),
        ("two_and_three", "gives 3 outputs for a picture, and --data"),
    ],
)
def test_a_network_of_another_number_of_outputs_is_not_trained(workshop: Path, network: str, message: str) -> None:
    done = invoke("train", f"tests.cli._own:{network}", "--data", "data", "-o", "w.safetensors")
    assert message in " ".join(done.stderr.split())
    assert done.exit_code == 2
    assert not (workshop / "w.safetensors").exists()


@pytest.mark.parametrize(("options", "exit_code", "message"), _TABLE, ids=[row[0] for row in _TABLE])
def test_one_sentence_and_no_file(workshop: Path, options: str, exit_code: int, message: str) -> None:
    from safetensors.torch import save_file

    write_images(workshop / "one", ("red",), count=1)
    for part in ("train", "test"):
        write_images(workshop / "broken" / part, count=2)
        write_images(workshop / "large" / part, count=1, size=40)
    (workshop / "broken" / "train" / "blue" / "000.png").write_bytes(b"no picture")
    save_file(build("cifar_resnet14").state_dict(), workshop / "other.safetensors")
    before = sorted(workshop.rglob("*"))
    refused = _train(*options.split())
    assert message in " ".join(refused.stderr.split())
    assert refused.exit_code == exit_code, refused.stderr
    assert "Traceback" not in refused.output
    assert refused.stdout == ""
    assert sorted(workshop.rglob("*")) == before


def test_bad_images_are_skipped_when_asked(workshop: Path) -> None:
    (workshop / "data" / "train" / "blue" / "000.png").write_bytes(b"no picture")
    done = _train("--epochs", "1", "--skip-bad")
    assert done.exit_code == 0
    assert "skipped data/train/blue/000.png" in done.stderr
    assert "on 39 images of 2 classes" in done.stderr


@pytest.mark.slow
def test_a_real_network_learns_two_new_classes(data_dir: Path, tmp_path: Path) -> None:
    for part, folder in (("train", "calibration"), ("test", "test")):
        for name in ("cat", "dog"):
            (tmp_path / part).mkdir(exist_ok=True)
            (tmp_path / part / name).symlink_to(data_dir / "cifar10" / folder / name)
    weights = str(data_dir / "weights" / "cifar_resnet20.th")
    options = ["--weights", weights, "--freeze-backbone", "--epochs", "4", "--threads", "1", "--json"]
    command = ["train", "cifar_resnet20", "--data", str(tmp_path), "-o", str(tmp_path / "w.safetensors"), *options]
    done = invoke(*command)
    assert done.exit_code == 0, done.stderr
    assert "new head with 2 outputs" in done.stderr
    document = json.loads(done.stdout)
    assert document["classes"] == ["cat", "dog"]
    assert document["top1"] >= 0.85  # 148 of 163 when this was written, of CIFAR-10's hardest pair
