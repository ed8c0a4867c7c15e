"""The examples that a user names for a model: pictures, or what else it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rexport._errors import ModelFileError, UsageError
from rexport.calibration import open_dataset
from rexport.calibration.tensors import has_tensors, open_tensors
from rexport.model_inputs import image_input, preprocessing_of, tensor_inputs
from rexport.preprocessing import PictureOptions

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from rexport._progress import Note
    from rexport.calibration import Dataset
    from rexport.preprocessing import Preprocessing

__all__ = ["open_examples", "picture_preprocessing", "takes_pictures"]


def takes_pictures(model: ir.Model, file: Path, data: tuple[Path, ...], options: PictureOptions) -> bool:
    """Say whether a model takes pictures, and is not given arrays by a function or a folder."""
    try:
        image_input(model, file, layout=options.layout)
    except ModelFileError:
        return False
    return not any(map(has_tensors, data))


def picture_preprocessing(
    model: ir.Model, file: Path, data: tuple[Path, ...], options: PictureOptions, note: Note
) -> Preprocessing | None:
    """Return how pictures become a model's input; ``None`` where what it takes is read from arrays or a function.

    Raises:
        UsageError: ``options`` are of pictures, and there are none; or see :func:`preprocessing_of`.
        ModelFileError: The model contradicts itself.
    """
    if takes_pictures(model, file, data, options):
        return preprocessing_of(model, file, options, note=note)
    if options != PictureOptions():
        raise UsageError(
            f"{file} is given arrays here, which are taken as they are; --size, --layout, --resize, --mean and --std "
            "are for pictures."
        )
    return None


def open_examples(path: Path, model: ir.Model, file: Path, preprocessing: Preprocessing | None) -> Dataset:
    """Open pictures, or with no ``preprocessing`` the arrays that a model takes.

    Raises:
        DataError: They can't be read, or are not what the model takes.
        UsageError: There is no such function.
        ModelFileError: The model takes something that is no array.
    """
    if preprocessing is None:
        return open_tensors(path, tensor_inputs(model, file))
    return open_dataset(path, preprocessing)
