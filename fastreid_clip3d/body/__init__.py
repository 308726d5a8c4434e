"""Bodies: models in the SMPL schema, measurements, descriptors, poses and pictures. No re-identification here."""

from __future__ import annotations

from fastreid_clip3d.body.model import BodyModel, load_body_model
from fastreid_clip3d.body.sampling import sample_betas, sample_population

__all__ = ["BodyModel", "load_body_model", "sample_betas", "sample_population"]
