"""The golden input, and what the model gives for it: what a device compares its own runtime with.

The signal-to-noise ratio of an output z that should be r is 10 · log₁₀(Σ r² / Σ (r − z)²) decibels.

ONNX Runtime gives the reference on the very file. In INT8 its sums are exact on processors with VNNI, on ARM, and
anywhere with weights of 7 bits. Without VNNI, pairs of uint8 × int8 products are added in 16 bits and saturate; there,
the reference is made with exact sums all the same, as it is for devices that have them.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rexport._cpu import this_cpu
from rexport._errors import DataError, InputError, ModelFileError
from rexport.calibration.dataset import BadImage
from rexport.calibration.decoding import read_picture
from rexport.preprocessing import Layout, sides_of
from rexport.runtimes.onnxruntime import open_session, said

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnxruntime

    from rexport.deploy.vetting import VettedModel
    from rexport.preprocessing import Preprocessing

__all__ = ["GoldenPair", "golden_pair", "npy"]

_CANDIDATES = 8
_LARGEST = 64 * 2**20  # bytes of an input


@dataclass(frozen=True, kw_only=True)
class GoldenPair:
    """What goes in, as the model takes it, and what comes out.

    Attributes:
        input: Of shape ``(N, C, H, W)`` or ``(N, H, W, C)``.
        logits: The first output, float32; of a classifier of shape ``(N, classes)``.
        others: The further outputs by their names, float32; a classifier has none.
        is_of_classifier: Whether ``logits`` are scores of classes.
    """

    input: np.ndarray
    logits: np.ndarray
    others: Mapping[str, np.ndarray] = field(default_factory=dict)
    is_of_classifier: bool = True

    @property
    def outputs(self) -> tuple[np.ndarray, ...]:
        """All outputs in the model's order."""
        return self.logits, *self.others.values()

    def needed_db(self) -> float:
        """Return the signal-to-noise ratio in decibels at which noise is as strong as the lead of the largest score.

        Well above it, the largest score stays the largest. The difference of two scores has twice the power of the
        noise of one. Outputs that are no scores have no largest to keep.
        """
        if not self.is_of_classifier:
            return -math.inf
        largest = np.sort(self.logits.astype(np.float64), axis=1)[:, -2:]
        if largest.shape[1] < 2:
            return -math.inf  # of one class, it always is the largest
        gap = float((largest[:, 1] - largest[:, 0]).min())
        power = float(np.mean(np.square(self.logits.astype(np.float64))))
        if gap <= 0:
            return math.inf
        return 10 * math.log10(2 * power / gap**2)


def golden_pair(model: VettedModel, preprocessing: Preprocessing, source: Path | None) -> GoldenPair:
    """Return a golden input and what the model gives for it.

    Args:
        model: The model.
        preprocessing: How pictures become its input.
        source: A picture, or an ``.npy`` of what the model takes. By default it is made, the same every time: of some
            patterns, the one for which a classifier is surest.

    Raises:
        DataError: ``source`` can't be read, or is not what the model takes.
        ModelFileError: ONNX Runtime can't run the model, or an output is no tensor of finite floats.
    """
    session = _session(model)
    if source is not None and source.suffix.lower() == ".npy":
        inputs = [_from_array(source, model)]
    elif source is not None:
        inputs = [_from_picture(source, preprocessing)]
    else:
        inputs = [preprocessing.of_pictures(_pattern(index, preprocessing)) for index in range(_CANDIDATES)]
    first = _run(session, inputs[0], model)
    if not first.is_of_classifier:  # every input will do
        return first
    return min([first, *(_run(session, images, model) for images in inputs[1:])], key=GoldenPair.needed_db)


def npy(array: np.ndarray) -> bytes:
    """Return an array as an ``.npy`` file of format 1.0, in C order."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def _session(model: VettedModel) -> onnxruntime.InferenceSession:
    quantization = model.quantization
    if quantization is None:
        return open_session(model.data)
    for_arm = quantization.target is not None and quantization.target.is_int8_in_onnxruntime
    return open_session(model.data, as_on_arm=for_arm, exact_sums=not for_arm and not this_cpu().has_vnni)


def _run(session: onnxruntime.InferenceSession, images: np.ndarray, model: VettedModel) -> GoldenPair:
    if len(images) == 1 and model.image.batch is not None:
        images = np.repeat(images, model.image.batch, axis=0)
    try:
        outputs = session.run(None, {model.image.name: images})
    except Exception as error:  # ONNX Runtime's errors share no public base class
        raise ModelFileError(
            f"{model.path} can't run on a golden input of shape {images.shape}: {said(error)}."
        ) from error
    names = [output.name for output in session.get_outputs()]
    arrays = {name: _checked(name, output, model.path) for name, output in zip(names, outputs, strict=True)}
    logits = arrays.pop(names[0])
    is_of_classifier = not (arrays or model.metadata.features) and logits.ndim == 2 and len(logits) == len(images)
    return GoldenPair(input=images, logits=logits, others=arrays, is_of_classifier=is_of_classifier)


def _checked(name: str, output: object, path: Path) -> np.ndarray:
    if not isinstance(output, np.ndarray) or output.dtype not in (np.float32, np.float16) or not output.size:
        kind = f"{output.dtype} of shape {output.shape}" if isinstance(output, np.ndarray) else type(output).__name__
        raise ModelFileError(
            f"The output {name} of {path} is {kind}, and devices compare floats; export the network without the "
            "operators that make it, such as ArgMax."
        )
    if not np.isfinite(output).all():
        raise ModelFileError(
            f"The output {name} of {path} is not finite for the golden input; name another input with --golden."
        )
    return output.astype(np.float32)


def _from_picture(path: Path, preprocessing: Preprocessing) -> np.ndarray:
    pixels = read_picture(path, preprocessing.pixels)
    if isinstance(pixels, BadImage):
        raise DataError(f"The golden input {pixels}; name a picture, or an .npy of what the model takes.")
    return preprocessing.to_input(pixels[None])


def _from_array(path: Path, model: VettedModel) -> np.ndarray:
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} is larger than the 64 MiB of a golden input; one image will do.")
        array: np.ndarray = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(f"The golden input {path} can't be read: {error.strerror or error}.") from error
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is no array file ({error}); write one with numpy.save.") from error
    image = model.image
    dtype: type[np.generic] = np.uint8 if image.raw else np.float32
    channels, height, width = image.channels, image.height or "H", image.width or "W"
    rest = (channels, height, width) if image.layout is Layout.NCHW else (height, width, channels)
    expected: tuple[int | str, ...] = (image.batch or "N", *rest)
    fits = array.ndim == 4 and all(
        isinstance(size, str) or size == length for size, length in zip(expected, array.shape, strict=True)
    )
    if array.dtype != dtype or not fits or array.size == 0:
        raise DataError(
            f"{path} is {array.dtype} of shape {array.shape}, and the model takes {np.dtype(dtype).name} of shape "
            f"({', '.join(map(str, expected))})."
        )
    if not image.raw and not np.isfinite(array).all():
        raise DataError(f"{path} holds numbers that are not finite.")
    return array


def _pattern(index: int, preprocessing: Preprocessing) -> np.ndarray:
    """Return a picture, uint8 of shape ``(1, H, W, 3)``: waves of triangles in integers, the same everywhere."""
    height, width = sides_of(preprocessing.resize or preprocessing.size)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.int64)
    rows, columns = rows * 512 // height, columns * 512 // width  # two periods of 256
    channels = []
    for channel in range(3):
        wave = np.zeros((height, width), np.int64)
        for octave in range(1, 4):
            along, across = (index * 3 + channel * 5 + octave * 7) % 5 + octave, (index * 5 + channel + octave) % 7
            phase = along * rows + across * columns + 37 * (index + channel * octave)
            wave += np.abs(phase % 256 - 128) * (4 - octave)
        channels.append(wave * 255 // (128 * 6))
    return np.stack(channels, axis=-1).astype(np.uint8)[None]
