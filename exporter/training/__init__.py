"""Training: two recipes, one loop that can be stopped at any point, and the folders and files around it."""

from __future__ import annotations

from rexport.training.checkpoint import CheckpointFile, EpochResult, RunIdentity
from rexport.training.execution import Execution, choose_execution
from rexport.training.fake_quantize import FakeQuantized, fake_quantize
from rexport.training.folders import ImageSplit, find_images, fingerprint
from rexport.training.loop import train
from rexport.training.pictures import Pictures, PicturesInMemory, PicturesOnDisk, open_pictures
from rexport.training.recipes import OneCycleRecipe, PaperRecipe, Recipe, recipe_for

__all__ = [
    "CheckpointFile",
    "EpochResult",
    "Execution",
    "FakeQuantized",
    "ImageSplit",
    "OneCycleRecipe",
    "PaperRecipe",
    "Pictures",
    "PicturesInMemory",
    "PicturesOnDisk",
    "Recipe",
    "RunIdentity",
    "choose_execution",
    "fake_quantize",
    "find_images",
    "fingerprint",
    "open_pictures",
    "recipe_for",
    "train",
]
