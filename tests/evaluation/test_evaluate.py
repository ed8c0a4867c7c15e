"""Models are evaluated to the same numbers, whoever runs the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rexport import Preprocessing
from rexport._errors import DataError, UsageError
from rexport.calibration import TenCrops, open_dataset
from rexport.calibration.workers import LocalWorkers, ProcessWorkers, RayWorkers, Workers
from rexport.evaluation import ClassifierFile, Evaluation, evaluate
from rexport.model_file import save
from rexport.preprocessing import Takes
from rexport.runtimes import open_runtime
from rexport.runtimes.source import Source
from tests._graphs import convolution, graph

_BODY = "a = Conv<pads = [1, 1, 1, 1]>(x, w) r = Relu(a) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, v)"
_PREPROCESSING = Preprocessing(size=16, resize=20)


@dataclass(frozen=True)
class _Case:
    folder: Path
    model: ClassifierFile
    reference: ClassifierFile


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> _Case:
    """Two networks that differ a little, and 150 pictures in six folders."""
    folder = tmp_path_factory.mktemp("evaluation")
    random = np.random.default_rng(0)
    weight, head = convolution(8, 3), random.standard_normal((8, 6)).astype(np.float32)
    for name, change in (("a", 0.0), ("b", 0.05)):
        changed = weight + change * random.standard_normal(weight.shape).astype(np.float32)
        model = graph(_BODY, {"w": changed, "v": head}, outputs="float[N, 6] y")
        save(model, folder / f"{name}.onnx")
    for index in range(150):
        path = folder / "images" / f"c{index % 6}" / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)
    return _Case(folder / "images", ClassifierFile(path=folder / "b.onnx"), ClassifierFile(path=folder / "a.onnx"))


def _evaluated(case: _Case, workers: Workers, **changes: int) -> Evaluation:
    dataset = open_dataset(case.folder, _PREPROCESSING)
    return evaluate(case.model, dataset, reference=case.reference, batch=8, workers=workers, **changes)


@pytest.mark.slow
def test_workers_make_no_difference(case: _Case) -> None:
    local = _evaluated(case, LocalWorkers(threads=1), worst=5)
    assert local.top1 == sum(row.right for row in local.classes) / 150
    assert [row.images for row in local.classes] == [25] * 6
    assert len(local.worst) == 5
    for mistake in local.worst:
        assert Path(mistake.image).parent.name == f"c{mistake.label}" != f"c{mistake.prediction}"
    assert [mistake.probability for mistake in local.worst] == sorted(
        (mistake.probability for mistake in local.worst), reverse=True
    )
    assert local.images == 150
    assert local.comparison is not None
    assert 0 < local.comparison.agreement <= 1
    assert 5 < local.comparison.sqnr_db < 60
    assert _evaluated(case, ProcessWorkers(count=3, threads=1), worst=5) == local
    dataset = open_dataset(case.folder, _PREPROCESSING)
    with (
        open_runtime("cpu", Source(path=case.model.path), threads=1) as runtime,
        open_runtime("cpu", Source(path=case.reference.path), threads=1) as reference,
    ):
        assert evaluate(runtime, dataset, reference=reference, batch=8, worst=5) == local
        crops = evaluate(runtime, dataset, reference=reference, batch=32, views=TenCrops(), samples=70)
    by_file = evaluate(
        case.model,
        dataset,
        reference=case.reference,
        batch=32,
        views=TenCrops(),
        samples=70,
        workers=ProcessWorkers(count=1, threads=1),
    )
    assert by_file == crops  # the shards are of whole batches here, too


@pytest.mark.slow
def test_what_the_reference_is_given_reaches_the_workers(case: _Case) -> None:
    pixels = Preprocessing(size=16, resize=20, takes=Takes.PIXELS)
    dataset = open_dataset(case.folder, pixels)
    prepare = _PREPROCESSING.to_input
    model, reference = (ClassifierFile(path=file.path, prepare=prepare) for file in (case.model, case.reference))
    result = evaluate(model, dataset, reference=reference, batch=8, workers=ProcessWorkers(count=2, threads=1))
    assert result == _evaluated(case, LocalWorkers(threads=1))


@pytest.mark.slow
def test_bad_images_of_all_shards_are_named(case: _Case, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for index, path in enumerate(sorted(case.folder.rglob("*.png"))):
        target = folder / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"" if index in (3, 140) else path.read_bytes())
    dataset = open_dataset(folder, _PREPROCESSING)
    workers = ProcessWorkers(count=2, threads=1)
    with pytest.raises(DataError, match="2 of 150 images can't be used"):
        evaluate(case.model, dataset, batch=8, workers=workers)
    good = evaluate(case.model, dataset, batch=8, workers=workers, skip_bad=True, worst=150)
    assert (good.images, len(good.skipped)) == (148, 2)
    assert good == evaluate(case.model, dataset, batch=8, workers=LocalWorkers(threads=1), skip_bad=True, worst=150)
    labels = [Path(mistake.image).parent.name for mistake in good.worst]
    assert labels == [f"c{mistake.label}" for mistake in good.worst]  # the names of bad images are left out


@pytest.mark.slow
def test_what_can_not_be_measured_is_said(case: _Case, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 3, 16, 16), np.float32))
    flat = open_dataset(tmp_path / "a.npy", _PREPROCESSING)
    with pytest.raises(UsageError, match="--reference MODEL"):
        evaluate(case.model, flat)
    missing = ClassifierFile(path=tmp_path / "missing.onnx")
    with pytest.raises(UsageError, match=r"missing.onnx does not exist"):
        evaluate(missing, open_dataset(case.folder, _PREPROCESSING), workers=ProcessWorkers(count=1, threads=1))


@pytest.mark.slow
def test_labels_beyond_the_outputs_are_refused(case: _Case, tmp_path: Path) -> None:
    images = np.zeros((4, 3, 16, 16), np.float32)
    for labels in ([0, 1, 2, 6], [0, 1, 2, -1]):
        np.savez(tmp_path / "a.npz", images=images, labels=np.array(labels))
        words = f"labels go from {min(labels)} to {max(labels)}, and the model has 6 outputs"
        with pytest.raises(DataError, match=words):
            evaluate(case.model, open_dataset(tmp_path / "a.npz", _PREPROCESSING))


@pytest.mark.deep  # as calibration on it, in tests/calibration/workers/test_ray.py
@pytest.mark.slow
def test_a_ray_cluster_counts_the_same(case: _Case) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'rexport[ray]'")
    assert _evaluated(case, RayWorkers(threads=1, count=2)) == _evaluated(case, LocalWorkers(threads=1))
