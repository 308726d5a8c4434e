"""A trained student at work: features of your own pictures, without teacher, body files, training data or config."""

from .encoder import ReIDModel
from .model import load_model

__all__ = ["ReIDModel", "load_model"]
