"""The errors that rexport raises on purpose, and the exit code of each.

    RexportError              1  the step failed
    ├── UsageError            2  the command line, or a call's arguments
    │   ├── MissingFileError     ... a file or folder that was named does not exist; an InputError too
    │   └── QuantizedModelError  ... an INT8 file where a float one is needed; a ModelFileError too
    ├── InputError            1  a file or folder that was given can't be used
    │   ├── WeightsError         ... a state dict
    │   ├── ModelFileError       ... an ONNX file
    │   ├── EngineFileError      ... an engine file, or the one beside it
    │   ├── BundleError          ... a bundle for devices, or what is to go into one
    │   └── DataError            ... images
    ├── OutputError           1  the result can't be written
    ├── VerificationError     3  parity or the checker
    │   └── DamagedBundleError   ... a bundle whose bytes were changed or cut off; a BundleError too
    ├── GateError             4  accuracy or speed fell short of what was asked
    ├── UnavailableError      5  this target or runtime is not usable here
    └── DeviceError           6  a device is unreachable, or installing on it failed

Every message is a sentence or two for the person at the terminal: what is wrong, where, and what to do next.
"""

from __future__ import annotations

__all__ = [
    "BundleError",
    "DamagedBundleError",
    "DataError",
    "DeviceError",
    "EngineFileError",
    "GateError",
    "InputError",
    "MissingFileError",
    "ModelFileError",
    "OutputError",
    "QuantizedModelError",
    "RexportError",
    "UnavailableError",
    "UsageError",
    "VerificationError",
    "WeightsError",
]


class RexportError(Exception):
    """Base class of all errors that rexport raises on purpose."""

    exit_code = 1


class UsageError(RexportError):
    """The command line, or the arguments of a call, make no sense."""

    exit_code = 2


class InputError(RexportError):
    """A file or folder that was given can't be used."""


class MissingFileError(UsageError, InputError):
    """A file or folder that was named does not exist."""


class WeightsError(InputError):
    """A state dict can't be read, or does not fit the network."""


class ModelFileError(InputError):
    """A model file can't be read, or is not what the step needs."""


class QuantizedModelError(UsageError, ModelFileError):
    """A model file that is quantized was given where a float one is needed."""


class EngineFileError(InputError):
    """An engine file is none, damaged, or not the one that the file beside it describes."""


class BundleError(InputError):
    """A bundle for devices can't be read, or would be one that devices refuse."""


class DataError(InputError):
    """An image, an image folder or an array file can't be used."""


class OutputError(RexportError):
    """The result can't be written; what was at its place before is untouched."""


class VerificationError(RexportError):
    """Two models that must agree do not, or a model is not valid."""

    exit_code = 3


class DamagedBundleError(VerificationError, BundleError):
    """A bundle was changed or cut off since it was made."""


class GateError(RexportError):
    """A measured accuracy or speed falls short of what was asked for."""

    exit_code = 4


class UnavailableError(RexportError):
    """A target or runtime that is not usable on this machine."""

    exit_code = 5


class DeviceError(RexportError):
    """A device can't be reached, or did not do what it was asked to."""

    exit_code = 6
