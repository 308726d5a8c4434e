"""Small but real things for the tests, made on the spot: a teacher with random weights, bodies, configs for a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import torch
from fastreid.config import CfgNode
from PIL import Image
from safetensors.torch import save_file

import fastreid_clip3d
from fastreid_clip3d.body.constants import GENDERS
from fastreid_clip3d.body.model import load_body_model
from fastreid_clip3d.body.synthetic_index import LIGHT_FIELDS, VIEW_FIELDS
from fastreid_clip3d.vocabulary import NUM_PAIRS

TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def tiny_teacher_folder(folder: Path) -> str:
    """Writes a CLIP of random weights in open_clip's own format and returns its name, ``local-dir:...``.

    Tests of mechanics only: what such a teacher says about an image means nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = open_clip.CLIP(**TINY_CLIP)
    save_file(model.state_dict(), str(folder / "open_clip_model.safetensors"))
    preprocess = {"size": 32, "mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}
    config = {"model_cfg": TINY_CLIP, "preprocess_cfg": {**preprocess, "resize_mode": "squash"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


def small_config(teacher: str = "", losses: tuple[str, ...] = ("CrossEntropyLoss",)) -> CfgNode:
    """CLIP3DReID with a ResNet-18 on a CPU, five classes, 64 x 32 images."""
    cfg = fastreid_clip3d.get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "CLIP3DReID"
    cfg.MODEL.BACKBONE.DEPTH, cfg.MODEL.BACKBONE.FEAT_DIM = "18x", 512
    cfg.MODEL.HEADS.NAME, cfg.MODEL.HEADS.WITH_BNNECK, cfg.MODEL.HEADS.NUM_CLASSES = "MLPHead", True, 5
    cfg.MODEL.HEADS.MLP.HIDDEN_DIM, cfg.MODEL.HEADS.MLP.OUT_DIM = 64, 48
    cfg.MODEL.LOSSES.NAME = losses
    cfg.MODEL.LOSSES.OT.HIDDEN_DIM = cfg.MODEL.LOSSES.GLOBAL_DISTILL.HIDDEN_DIM = 32
    cfg.MODEL.LOSSES.BODY_SHAPE.HIDDEN_DIM = 32
    cfg.MODEL.TEACHER.NAME, cfg.MODEL.TEACHER.PRETRAINED = teacher, ""
    cfg.MODEL.TEACHER.MODE = "online"
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = [64, 32]
    return cfg


def random_batch(num_real: int = 6, num_synthetic: int = 4, teacher_size: int = 32) -> dict[str, torch.Tensor]:
    """A training batch as ``data.training_set.collate`` makes it."""
    return {
        "images": 255 * torch.rand(num_real, 3, 64, 32),
        "targets": torch.arange(num_real) % 5,
        "camids": torch.zeros(num_real, dtype=torch.int64),
        "clothes_ids": torch.arange(num_real) % 5,
        "teacher_images": torch.randint(0, 256, (num_real, 3, teacher_size, teacher_size), dtype=torch.uint8),
        "synthetic_images": 255 * torch.rand(num_synthetic, 3, 64, 32),
        "synthetic_betas": torch.randn(num_synthetic, 10),
        "synthetic_gender": torch.arange(num_synthetic) % 2,
        "synthetic_phrase_choices": torch.randint(0, 2, (num_synthetic, 16)),
    }


def write_bodies(folder: Path, bodies: int = 6, image_size: tuple[int, int] = (32, 16)) -> Path:
    """Writes a set of synthetic bodies without rendering it: grey noise with random shapes. It needs no PyTorch3D."""
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    names = [f"{body:05d}_00.png" for body in range(bodies)]
    for name in names:
        Image.fromarray(generator.integers(0, 256, image_size, dtype=np.uint8)).save(folder / "images" / name)
    arrays = {
        "names": np.array(names),
        "betas": generator.standard_normal((bodies, 10)).astype(np.float32),
        "gender": (np.arange(bodies) % 2).astype(np.int8),
        "scores": generator.standard_normal((bodies, NUM_PAIRS)).astype(np.float32),
        "phrase_choices": generator.integers(0, 2, (bodies, NUM_PAIRS)).astype(np.int8),
        "poses": np.zeros((bodies, 72), np.float32),
        "cameras": np.zeros((bodies, len(VIEW_FIELDS)), np.float32),
        "lights": np.zeros((bodies, len(LIGHT_FIELDS)), np.float32),
        "sizes": np.array([(folder / "images" / name).stat().st_size for name in names], np.int32),
    }
    np.savez(folder / "index.npz", **arrays)
    meta = {
        "version": "noise",
        "complete": True,
        "num_images": bodies,
        "settings": {"image_size": list(image_size)},
        "body_models": {gender: load_body_model("", gender).fingerprint() for gender in GENDERS},
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder
