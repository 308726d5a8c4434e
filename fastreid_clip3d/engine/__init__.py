"""Training and testing: fast-reid's trainer with the method's data, checkpoints and evaluation."""

from fastreid_clip3d.engine.trainer import CLIP3DTrainer

__all__ = ["CLIP3DTrainer"]
