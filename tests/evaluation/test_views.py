"""Ten crops and several scales, against torchvision and PyTorch used as their manuals say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from rexport._errors import DataError, ModelFileError, UsageError
from rexport.calibration import CenterCrop, TenCrops, WholePictures, open_dataset
from rexport.calibration.dataset import spread
from rexport.calibration.image_folder import ImageFolder
from rexport.calibration.views import RESNET_SCALES
from rexport.evaluation import Classifier, evaluate
from rexport.exporting import export
from rexport.model_file import Head, save
from rexport.models import build
from rexport.preprocessing import Preprocessing
from rexport.runtimes import open_runtime
from rexport.runtimes.source import Source
from tests._networks import export_once, trained_like

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from rexport.calibration import Views
    from tests._products import Products

_TEN = Preprocessing(size=32, resize=40)
# of float32 networks, compared by their float64 averages
_CLOSE = 1e-5


class Recorder:
    """A runtime of a PyTorch module that remembers what it was given."""

    def __init__(self, module: torch.nn.Module, head: Head = Head.LOGITS) -> None:
        self.module, self.head = module, head
        self.shapes: list[tuple[int, ...]] = []
        self.results: list[np.ndarray] = []

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None: ...

    def run(self, images: np.ndarray) -> np.ndarray:
        self.shapes.append(images.shape)
        with torch.inference_mode():
            logits = self.module(torch.from_numpy(images))
        return (logits if self.head is Head.LOGITS else logits.softmax(1)).numpy()


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    module = trained_like(build("cifar_resnet8", seed=0))
    with torch.no_grad():
        module.fc.weight *= 20  # as sure of itself as a trained one
    return module


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of three pictures of different sizes."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for label in range(10):
        (folder / str(label)).mkdir()
        for index, (width, height) in enumerate([(60, 44), (44, 60), (50, 50)]):
            coarse = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((width, height)).save(folder / str(label) / f"{index}.png")
    return folder


def expected_scores(
    network: torch.nn.Module, paths: Iterable[Path], views: Callable[[Image.Image], Sequence[Image.Image]], tv: Any
) -> np.ndarray:
    """Return the average of the softmax over the views of each picture, one view at a time."""
    steps = tv.transforms.Compose(
        [tv.transforms.ToTensor(), tv.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    )
    scores = []
    for path in paths:
        with torch.inference_mode(), Image.open(path) as image:
            ones = [network(steps(view)[None])[0].double().softmax(0) for view in views(image.convert("RGB"))]
        scores.append(torch.stack(ones).mean(0).numpy())
    return np.stack(scores)


def views_of(views: Views, tv: Any) -> Callable[[Image.Image], Sequence[Image.Image]]:
    if isinstance(views, TenCrops):
        return tv.transforms.Compose([tv.transforms.Resize(_TEN.resize), tv.transforms.TenCrop(_TEN.size)])
    assert isinstance(views, WholePictures)
    return lambda image: [tv.transforms.Resize(scale)(image) for scale in views.scales]


@pytest.mark.slow
@pytest.mark.parametrize("views", [TenCrops(), WholePictures((32, 40, 57))], ids=["ten crops", "scales"])
@pytest.mark.parametrize("batch", [1, 32, 1000])
def test_scores_are_those_of_torchvision(
    views: Views, batch: int, network: torch.nn.Module, pictures: Path, torchvision: Any
) -> None:
    dataset = open_dataset(pictures, _TEN)
    expected = expected_scores(network, sorted(pictures.rglob("*.png")), views_of(views, torchvision), torchvision)
    classifier = Classifier(runtime=Recorder(network))
    found = [
        classifier.scores(images, batch=batch, probabilities=True) for images in dataset.view_batches(views, batch)
    ]
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=0, atol=_CLOSE)
    labels = np.repeat(np.arange(10), 3)
    result = evaluate(Recorder(network), dataset, views=views, batch=batch)
    assert result.images == 30
    assert result.top1 == (expected.argmax(1) == labels).mean()
    best = np.argsort(-expected, axis=1)[:, :5]
    assert result.top5 == (best == labels[:, None]).any(1).mean()


@pytest.mark.slow
def test_an_average_of_logits_would_be_seen(network: torch.nn.Module, pictures: Path, torchvision: Any) -> None:
    expected = expected_scores(network, sorted(pictures.rglob("*.png")), views_of(TenCrops(), torchvision), torchvision)
    wrong = Classifier(runtime=Recorder(network), head=Head.SOFTMAX)  # its logits taken as they are
    (images,) = open_dataset(pictures, _TEN).view_batches(TenCrops(), 300)
    logits = wrong.scores(images, batch=300, probabilities=True)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.abs(softmax - expected).max() > 100 * _CLOSE


@pytest.mark.parametrize("views", [CenterCrop(), TenCrops(), WholePictures((32, 40))])
def test_a_softmax_in_the_file_is_not_taken_twice(views: Views, network: torch.nn.Module, pictures: Path) -> None:
    result = evaluate(
        Classifier(runtime=Recorder(network, Head.SOFTMAX), head=Head.SOFTMAX),
        open_dataset(pictures, _TEN),
        reference=Recorder(network),
        views=views,
    )
    assert result.comparison is not None
    assert result.comparison.scores == "probabilities"
    assert result.comparison.agreement == 1
    assert result.comparison.sqnr_db > 100


def test_logits_are_compared_as_they_are(network: torch.nn.Module, pictures: Path) -> None:
    result = evaluate(Recorder(network), open_dataset(pictures, _TEN), reference=Recorder(network))
    assert result.comparison is not None
    assert result.comparison.scores == "logits"


def test_one_scale_of_the_crops_own_size_is_the_crop(network: torch.nn.Module, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    for index, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / f"{index}.png")
    dataset = open_dataset(tmp_path, Preprocessing(size=32))
    (images,) = dataset.batches(4)
    (views,) = dataset.view_batches(WholePictures((32,)), 4)
    np.testing.assert_array_equal(np.stack([picture[0] for picture in views.pictures]), images.images)


@pytest.mark.slow
def test_memory_is_that_of_a_few_views(network: torch.nn.Module, pictures: Path) -> None:
    dataset = open_dataset(pictures, _TEN)
    runtime = Recorder(network)
    evaluate(runtime, dataset, views=TenCrops(), batch=20)
    assert max(shape[0] for shape in runtime.shapes) == 20
    runtime = Recorder(network)
    scales = WholePictures((16, 32, 64))
    evaluate(runtime, dataset, views=scales, batch=12)
    # four pictures at a time, and no more pixels than twelve of the smallest, or one
    smallest = 16 * 16
    assert all(n == 1 or n * height * width <= 12 * 2 * smallest for n, _, height, width in runtime.shapes)
    assert sum(shape[0] for shape in runtime.shapes) == 90
    assert all(len(images) <= 4 for images in dataset.view_batches(scales, 12))


def test_bad_pictures_are_skipped_as_ever(network: torch.nn.Module, tmp_path: Path) -> None:
    Image.new("RGB", (40, 50)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    dataset = open_dataset(tmp_path, _TEN)
    with pytest.raises(DataError, match="1 of 2 images can't be used"):
        evaluate(Recorder(network), dataset, reference=Recorder(network), views=TenCrops())
    result = evaluate(Recorder(network), dataset, reference=Recorder(network), views=TenCrops(), skip_bad=True)
    assert (result.images, len(result.skipped)) == (1, 1)


def test_views_that_there_are_not(network: torch.nn.Module, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pass --resize 40, for example"):
        evaluate(Recorder(network), open_dataset(pictures, Preprocessing(size=32)), views=TenCrops())
    np.save(tmp_path / "a.npy", np.zeros((2, 32, 32, 3), np.uint8))
    array = open_dataset(tmp_path / "a.npy", _TEN)
    with pytest.raises(DataError, match="pass a folder of images"):
        evaluate(Recorder(network), array, reference=Recorder(network), views=TenCrops())


@pytest.mark.parametrize("scales", [(), (32, 32), (7,), (-1, 32)])
def test_scales_that_make_no_sense(scales: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="must be different lengths of the shorter side"):
        WholePictures(scales)


def test_scores_that_are_not_finite_are_refused(network: torch.nn.Module, pictures: Path) -> None:
    broken = trained_like(build("cifar_resnet8", seed=0))
    with torch.no_grad():
        broken.fc.bias[0] = float("inf")  # its softmax is NaN
    with pytest.raises(ModelFileError, match="not finite"):
        evaluate(Recorder(broken), open_dataset(pictures, _TEN), views=TenCrops())


def test_the_paper_s_scales_are_the_default() -> None:
    assert WholePictures().scales == RESNET_SCALES == (224, 256, 384, 480, 640)


# real weights and pictures


@pytest.mark.slow
def test_resnet20_on_ten_crops_of_real_pictures(tmp_path: Path, data_dir: Path, torchvision: Any) -> None:
    weights, test = data_dir / "weights" / "cifar_resnet20.th", data_dir / "cifar10" / "test"
    module = build("cifar_resnet20", weights=weights)
    model = export(module, preprocessing=Preprocessing(size=32), head=Head.SOFTMAX, batch=4).model
    save(model, tmp_path / "m.onnx")
    dataset = open_dataset(test, _TEN)
    assert isinstance(dataset, ImageFolder)
    assert dataset.classes is not None
    paths = [dataset.paths[index] for index in spread(len(dataset), 40)]
    expected = expected_scores(module, paths, views_of(TenCrops(), torchvision), torchvision)
    right = [dataset.classes[best] == path.parent.name for best, path in zip(expected.argmax(1), paths, strict=True)]
    assert sum(right) > 30  # pictures enlarged to 40 pixels are not what it was trained on
    with (
        open_runtime("cpu", Source(path=tmp_path / "m.onnx")) as runtime,
        open_runtime("torch", Source(network="cifar_resnet20", weights=weights)) as reference,
    ):
        result = evaluate(
            Classifier(runtime=runtime, head=Head.SOFTMAX),
            dataset,
            classes=dataset.classes,
            reference=reference,
            views=TenCrops(),
            samples=40,
        )
    assert result.top1 == sum(right) / 40
    assert result.comparison is not None
    assert result.comparison.agreement == 1
    assert result.comparison.sqnr_db > 100


@pytest.mark.slow
def test_scales_on_pictures_of_all_sizes(tmp_path: Path, data_dir: Path, products: Products) -> None:
    module = trained_like(build("cifar_resnet8", seed=0))
    save(export_once(products, "cifar_resnet8", any_size=True).model, tmp_path / "any.onnx")
    with open_runtime("cpu", Source(path=tmp_path / "any.onnx")) as runtime:
        result = evaluate(
            runtime,
            open_dataset(data_dir / "imagenet-pictures", Preprocessing(size=32)),
            reference=Recorder(module),
            views=WholePictures((64, 96)),
            samples=8,
            batch=8,
        )
    assert result.images == 8
    assert result.comparison is not None
    assert result.comparison.agreement == 1
    assert result.comparison.sqnr_db > 90
