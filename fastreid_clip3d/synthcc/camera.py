"""The cameras of SynthCC: where they hang, what they see, and what they do to a picture.

World of one image: metres, y up, the person stands on y = 0 above the origin; the camera is at azimuth 0, that is at
(0, height, +distance), and looks towards -z. View coordinates follow PyTorch3D: +x left, +y up, +z away from the
camera. So does NDC: the shorter side of the picture spans [-1, 1], +x left, +y up.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fastreid_clip3d.body.constants import FRAMINGS, Framing


@dataclasses.dataclass(frozen=True)
class CameraProfile:
    """What all images of one camera share. Angles in degrees, lengths in metres, colours as gains on linear RGB."""

    name: str
    elevation: float
    distance: float
    heading_spread: float  # people's headings: 180 = any direction, 40 = mostly towards or away from the camera
    light_azimuth: float  # of the key light; 0 = from behind the camera
    light_elevation: float
    key_light: float
    ambient: float
    white_balance: tuple[float, float, float]
    gain: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    blur: float = 0.0  # standard deviation in pixels of a 128 x 64 picture
    low_resolution: float = 1.0  # the picture passes through 1 / this of its size
    noise: float = 0.01  # standard deviation, grey values 0..1
    vignette: float = 0.0
    partial_crop: float = 0.0  # share of images with a misplaced box
    occluder: float = 0.0  # share of images with something in front
    outdoor: float = 0.5  # share of images with an outdoor scene


CAMERAS: tuple[CameraProfile, ...] = (
    CameraProfile(
        name="entrance", elevation=8, distance=5.0, heading_spread=180, light_azimuth=25, light_elevation=50,
        key_light=0.75, ambient=0.50, white_balance=(1.00, 1.00, 1.00), noise=0.008,
    ),
    CameraProfile(
        name="corridor", elevation=16, distance=4.2, heading_spread=40, light_azimuth=-10, light_elevation=65,
        key_light=0.55, ambient=0.55, white_balance=(1.08, 1.00, 0.86), gain=0.92, noise=0.014, outdoor=0.1,
        vignette=0.25,
    ),
    CameraProfile(
        name="street", elevation=12, distance=9.0, heading_spread=180, light_azimuth=-70, light_elevation=38,
        key_light=1.05, ambient=0.36, white_balance=(1.05, 1.01, 0.94), contrast=1.12, noise=0.008, outdoor=0.9,
        occluder=0.15,
    ),
    CameraProfile(
        name="yard", elevation=22, distance=7.0, heading_spread=180, light_azimuth=120, light_elevation=45,
        key_light=0.70, ambient=0.48, white_balance=(0.92, 0.99, 1.08), blur=0.5, noise=0.010, outdoor=0.8,
        partial_crop=0.15,
    ),
    CameraProfile(
        name="old", elevation=14, distance=6.0, heading_spread=180, light_azimuth=60, light_elevation=55,
        key_light=0.65, ambient=0.50, white_balance=(0.98, 1.04, 0.92), gain=0.95, contrast=0.88, saturation=0.72,
        low_resolution=1.6, noise=0.013, occluder=0.12,
    ),
    CameraProfile(
        name="dusk", elevation=6, distance=6.5, heading_spread=60, light_azimuth=-140, light_elevation=30,
        key_light=0.45, ambient=0.42, white_balance=(0.94, 0.96, 1.10), gain=0.72, blur=0.35, noise=0.017,
        saturation=0.85, outdoor=0.7, partial_crop=0.1,
    ),
    CameraProfile(
        name="kiosk", elevation=4, distance=3.4, heading_spread=90, light_azimuth=45, light_elevation=40,
        key_light=0.85, ambient=0.45, white_balance=(1.03, 1.00, 0.97), contrast=1.05, saturation=1.1, noise=0.006,
        outdoor=0.3, partial_crop=0.2,
    ),
    CameraProfile(
        name="hall", elevation=28, distance=6.0, heading_spread=180, light_azimuth=0, light_elevation=75,
        key_light=0.60, ambient=0.55, white_balance=(1.02, 1.00, 0.95), low_resolution=1.3, noise=0.012, vignette=0.15,
        outdoor=0.15, occluder=0.1,
    ),
)  # fmt: skip
"""The eight cameras; a person's images are spread over them by the generator."""

FIXED_HEIGHT: float = 2.12
"""Metres between the bottom and the top of a picture in `fixed` framing, measured at the person."""
FIXED_FLOOR: float = 0.06
"""Metres of floor below the person's feet that a `fixed` picture shows."""
TARGET_HEIGHT: float = 0.95
"""Metres above the floor of the point that a camera turns around."""


@dataclasses.dataclass(frozen=True)
class Shot:
    """Everything random about one image, apart from the person and the clothes. Angles in degrees."""

    camera: int
    pose: int
    heading: float  # 0 = facing the camera
    elevation: float
    distance: float
    zoom: float  # relative size of the person, close to 1
    shift: tuple[float, float]  # of the box, as shares of its width and height
    light_azimuth: float
    light_elevation: float
    gain: float
    partial: tuple[float, float] | None  # (top, bottom) shares of the box that are cut off
    occluded: bool
    outdoor: bool


def sample_shot(rng: np.random.Generator, camera: int, num_poses: int) -> Shot:
    """Draws an image of camera number `camera` (an index of :data:`CAMERAS`)."""
    profile = CAMERAS[camera]
    spread = profile.heading_spread
    heading = rng.uniform(-spread, spread) if spread >= 180 else rng.uniform(-spread, spread) + 180.0 * rng.integers(2)
    partial = None
    if rng.random() < profile.partial_crop:
        partial = (rng.uniform(0.02, 0.10), 0.0) if rng.random() < 0.3 else (0.0, rng.uniform(0.08, 0.28))
    return Shot(
        camera=camera,
        pose=int(rng.integers(num_poses)),
        heading=float(heading),
        elevation=float(profile.elevation + rng.normal(0, 1.5)),
        distance=float(profile.distance * np.exp(rng.normal(0, 0.06))),
        zoom=float(np.exp(rng.normal(0, 0.012))),
        shift=(float(rng.normal(0, 0.035)), float(rng.normal(0, 0.008))),
        light_azimuth=float(profile.light_azimuth + rng.normal(0, 15)),
        light_elevation=float(np.clip(profile.light_elevation + rng.normal(0, 6), 15, 85)),
        gain=float(profile.gain * np.exp(rng.normal(0, 0.08))),
        partial=partial,
        occluded=bool(rng.random() < profile.occluder),
        outdoor=bool(rng.random() < profile.outdoor),
    )


@dataclasses.dataclass(frozen=True)
class View:
    """A shot's geometry: NDC = focal * (x, y) / z + principal, in view coordinates."""

    rotation: np.ndarray  # [3, 3], world to view
    centre: np.ndarray  # [3] of the camera in the world, metres
    focal: float
    principal: np.ndarray  # [2]

    def to_view(self, points: np.ndarray) -> np.ndarray:
        """World points [..., 3] in view coordinates."""
        return (points - self.centre) @ self.rotation.T

    def rays(self, height: int, width: int) -> np.ndarray:
        """World directions [height, width, 3] through the pixel centres (view depth 1, not normalised)."""
        side = min(height, width)
        x = (width - 1 - 2 * np.arange(width)) / side  # +x is left
        y = (height - 1 - 2 * np.arange(height)) / side
        grid = np.empty((height, width, 3), dtype=np.float32)
        grid[..., 0] = (x[None, :] - self.principal[0]) / self.focal
        grid[..., 1] = (y[:, None] - self.principal[1]) / self.focal
        grid[..., 2] = 1.0
        return grid @ self.rotation.astype(np.float32)


def aim(
    shot: Shot,
    vertices: np.ndarray | None,
    framing: Framing,
    aspect: float = 2.0,
    target_height: float = TARGET_HEIGHT,
) -> View:
    """The view of a shot; `aspect` is height / width of the picture, at least 1.

    ``fixed`` maps the floor and a height of :data:`FIXED_HEIGHT` to fixed rows, so that the height of a person shows.
    ``crop`` fits the box of the person's world points `vertices` [V, 3], as a detector does.
    """
    angle = np.deg2rad(shot.elevation)
    target = np.array([0.0, target_height, 0.0])
    back = np.array([0.0, np.sin(angle), np.cos(angle)])
    centre = target + shot.distance * back
    forward = -back
    left = np.array([-1.0, 0.0, 0.0])  # the camera looks towards -z, so +x of the world is on its right
    up = np.cross(forward, left)
    rotation = np.stack([left, up, forward])
    if framing not in FRAMINGS or (framing == "crop" and vertices is None):
        raise ValueError(f"framing is 'fixed', or 'crop' with vertices, not {framing!r}")
    if framing == "fixed" or vertices is None:
        vertices = np.array([[0.0, -FIXED_FLOOR, 0.0], [0.0, FIXED_HEIGHT - FIXED_FLOOR, 0.0]])
    view = (vertices - centre) @ rotation.T
    plane = view[:, :2] / view[:, 2:]
    low, high = plane.min(0), plane.max(0)
    if framing == "fixed":
        bottom, top, middle_x = low[1], high[1], 0.0
    else:
        size = max((high[1] - low[1]) * 1.08, (high[0] - low[0]) * aspect * 1.04)
        middle = (low + high) / 2
        bottom, top, middle_x = middle[1] - size / 2, middle[1] + size / 2, middle[0]
    height = (top - bottom) / shot.zoom
    bottom = bottom + shot.shift[1] * height
    middle_x = middle_x + shot.shift[0] * height / aspect
    if shot.partial is not None:
        cut_top, cut_bottom = shot.partial
        if framing == "crop":
            bottom, height = bottom + cut_bottom * height, height * (1 - cut_top - cut_bottom)
        else:  # the scale stays, the box moves
            bottom = bottom + (cut_bottom - cut_top) * height
    focal = 2.0 * aspect / height  # NDC spans 2 * aspect from bottom to top
    principal = np.array([-focal * middle_x, -focal * (bottom + height / 2)])
    return View(rotation=rotation, centre=centre, focal=float(focal), principal=principal)


def key_light_direction(shot: Shot) -> np.ndarray:
    """Unit vector [3] from the person towards the key light, in the world."""
    azimuth, elevation = np.deg2rad(shot.light_azimuth), np.deg2rad(shot.light_elevation)
    return np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
