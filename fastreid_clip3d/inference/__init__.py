"""A trained student at work: features of your own pictures, without teacher, body files, training data or config."""

from fastreid_clip3d.inference.encoder import ReIDModel
from fastreid_clip3d.inference.load import load_model

__all__ = ["ReIDModel", "load_model"]
