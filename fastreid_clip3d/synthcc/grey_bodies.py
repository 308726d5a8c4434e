"""The SyntheticBodies set in SynthCC's scenes: the same naked grey bodies as SynthCC's cameras would see them.

Bodies, poses, labels and the index are those of :class:`~fastreid_clip3d.body.synthetic_writer.SyntheticSet`. Cameras,
boxes, light, background, things in front, blur, noise and JPEG are SynthCC's, so that only clothes, skin and hair are
missing.
Legend: B pictures that are drawn together, H x W picture, K shape coefficients, N covered pixels.
"""

from __future__ import annotations

import dataclasses
import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastreid_clip3d.body.constants import GENDERS
from fastreid_clip3d.body.model import BodyModel
from fastreid_clip3d.body.rendering import FIXED_CENTRE, stand_on_ground, vertex_normals
from fastreid_clip3d.body.synthetic_settings import SyntheticSettings
from fastreid_clip3d.body.synthetic_writer import SyntheticSet
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.synthcc.camera import CAMERAS, Shot, View, aim, key_light_direction, sample_shot
from fastreid_clip3d.synthcc.figure import both
from fastreid_clip3d.synthcc.plan import JPEG_QUALITY
from fastreid_clip3d.synthcc.posing import Posed
from fastreid_clip3d.synthcc.render import draw
from fastreid_clip3d.synthcc.seeds import stream
from fastreid_clip3d.synthcc.shading import Lamps, lamps, lit

FORMAT: int = 1
"""Raise it whenever the same settings would give other pictures; tests/synthcc/test_grey_bodies.py fails then."""

FOLDER = "SyntheticBodies-scene"
"""Usual name of the set's folder below the datasets' root."""

SHINE = 0.05
"""Gloss of the grey surface, 0..1, as without a scene."""

_POPULATION = "grey bodies"


class GreyBodiesInScenes(SyntheticSet):
    """A SyntheticSet whose pictures have SynthCC's scenes and cameras.

    Pictures are RGB JPEG files. `framing` of the settings is SynthCC's; `background` is not used. The index has cameras
    and lights as without a scene, so that ``cameras_from_views`` gives the camera of a picture.

    Raises:
        ClearError: as SyntheticSet, a device other than the CPU, or pictures that are wider than high.
    """

    ending = ".jpg"

    def __init__(self, folder: str | Path, settings: SyntheticSettings, workers: int = 0, device: str = "cpu") -> None:
        height, width = settings.image_size
        if width > height:
            raise ClearError(
                f"image size {height} x {width}: pictures with a scene are at least as high as wide, as SynthCC's are. "
                "Give --size HEIGHT WIDTH."
            )
        super().__init__(folder, settings, workers, device)
        if self.device.type != "cpu":
            raise ClearError(f"Scenes are drawn on the CPU, not on {device}. Leave out --device, or --scene.")

    def _configuration(self) -> dict[str, Any]:
        return {**super()._configuration(), "scene": f"SynthCC, format {FORMAT}"}

    def encode(self, image: np.ndarray) -> bytes:
        """An RGB picture uint8 [H, W, 3] as JPEG, with SynthCC's quality."""
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
        return buffer.getvalue()

    def shot(self, body: int, number: int) -> Shot:
        """Camera, heading, box and light of a body's picture; eight pictures in a row have eight cameras."""
        seed, keys = self.settings.seed, (_POPULATION, body)
        cameras = stream(seed, *keys, "cameras").permutation(len(CAMERAS))
        shot = sample_shot(stream(seed, *keys, "shot", number), int(cameras[number % len(CAMERAS)]), len(self.pool))
        return dataclasses.replace(shot, pose=int(self.pose_rows(body)[number]))

    def _render(self, body: int, numbers: range) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        settings, model = self.settings, self.models[body % len(GENDERS)]
        height, width = settings.image_size
        shots = [self.shot(body, number) for number in numbers]
        with torch.no_grad():
            posed = _posed(model, torch.from_numpy(self.betas[body]), self.pool[[shot.pose for shot in shots]], shots)
            views = [
                aim(shot, one.vertices, settings.framing, height / width, FIXED_CENTRE)
                for shot, one in zip(shots, posed)
            ]
            streams = [stream(settings.seed, _POPULATION, body, "scene", number) for number in numbers]
            shader = partial(_grey, albedo=settings.grey, lights=lamps(shots))
            pictures = draw(posed, views, shots, streams, shader, height, width)
        cameras = np.array([_camera_row(shot, view) for shot, view in zip(shots, views)], np.float32)
        lights = np.array([_light_row(shot) for shot in shots], np.float32)
        return pictures.images.permute(0, 2, 3, 1).contiguous().numpy(), cameras, lights


def _posed(model: BodyModel, betas: Tensor, poses: Tensor, shots: list[Shot]) -> list[Posed]:
    """A body of shape `betas` [K] in the poses [B, 72], on the ground and turned by the headings of the shots."""
    vertices, joints = model.pose(betas.expand(len(poses), -1), poses)
    stood = stand_on_ground(vertices)
    joints = joints + (stood - vertices)[:, :1]
    turns = torch.from_numpy(np.stack([_turn(shot.heading) for shot in shots]).astype(np.float32))
    stood, joints = stood @ turns.mT, joints @ turns.mT
    normals, faces = vertex_normals(stood, model.faces), model.faces.numpy().astype(np.int64)
    template = model.v_template.numpy().astype(np.float32)
    no_edge, one_part = np.zeros(len(template), np.float32), np.zeros(len(faces), np.int64)
    return [
        Posed(
            vertices=one.numpy(),
            normals=normal.numpy(),
            canonical=template,
            edge=no_edge,
            faces=faces,
            face_part=one_part,
            feet=((both(joint, "ankle") + both(joint, "foot")) / 2)[:, [0, 2]],
        )
        for one, normal, joint in zip(stood, normals, joints.numpy())
    ]


def _turn(degrees: float) -> np.ndarray:
    """Rotation [3, 3] about the vertical, from the front towards the body's left."""
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    return np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])


def _grey(
    points: Tensor,
    normals: Tensor,
    edge: Tensor,
    toward: Tensor,
    occlusion: Tensor,
    part: Tensor,
    image: Tensor,
    albedo: float,
    lights: Lamps,
) -> Tensor:
    """Linear RGB [N, 3] of a surface of one grey; the arguments of :func:`shading.shade`."""
    return lit(torch.full((len(part), 3), albedo), SHINE, normals, toward, occlusion, image, lights)


def _camera_row(shot: Shot, view: View) -> list[float]:
    """Columns ``synthetic_index.VIEW_FIELDS``: the body stands still there, and the camera goes around it."""
    return [-shot.heading % 360, shot.elevation, shot.distance, view.focal, *view.principal]


def _light_row(shot: Shot) -> list[float]:
    """Columns ``synthetic_index.LIGHT_FIELDS``, for a body that stands still."""
    camera = CAMERAS[shot.camera]
    return [*(_turn(-shot.heading) @ key_light_direction(shot)), camera.ambient, camera.key_light, SHINE]
