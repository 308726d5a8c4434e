"""Grey bodies in SynthCC's scenes: the bodies, labels and files of the set without scenes, other pictures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from fastreid_clip3d.body import descriptors, population_descriptors, synthetic_writer
from fastreid_clip3d.body.constants import GENDERS
from fastreid_clip3d.body.model import load_body_model
from fastreid_clip3d.body.rendering import GreyRenderer, stand_on_ground
from fastreid_clip3d.body.synthetic_index import SyntheticIndex
from fastreid_clip3d.body.synthetic_settings import SyntheticSettings
from fastreid_clip3d.body.synthetic_writer import SyntheticSet
from fastreid_clip3d.data.synthetic_bodies import SyntheticBodies
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.synthcc import grey_bodies
from fastreid_clip3d.synthcc.grey_bodies import GreyBodiesInScenes
from tests.synthcc import golden_grey_bodies

SETTINGS = SyntheticSettings(bodies=6, poses_per_body=2, image_size=(96, 48))


@pytest.fixture(scope="module", autouse=True)
def small_population():
    """Thresholds from a few bodies: here they only have to be the same ones everywhere."""
    patch = pytest.MonkeyPatch()
    full = descriptors.population_statistics
    patch.setattr(population_descriptors, "population_statistics", lambda model: full(model, count=21))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def plain(tmp_path_factory, small_population) -> SyntheticIndex:
    return SyntheticSet(tmp_path_factory.mktemp("plain"), SETTINGS, workers=1).make(progress=False)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory, small_population) -> SyntheticIndex:
    return GreyBodiesInScenes(tmp_path_factory.mktemp("scenes"), SETTINGS, workers=1).make(progress=False)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def images_of(index: SyntheticIndex) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in index.paths]


def test_bodies_poses_and_labels_are_those_of_the_set_without_scenes(plain, scenes):
    for name in ("betas", "gender", "scores", "phrase_choices", "poses"):
        assert (getattr(plain, name) == getattr(scenes, name)).all(), name
    assert [Path(path).stem for path in plain.paths] == [Path(path).stem for path in scenes.paths]
    for key in ("settings", "body_models", "pose_pool", "thresholds", "population", "camera_fields", "light_fields"):
        assert plain.meta[key] == scenes.meta[key], key
    assert scenes.meta["scene"] == f"SynthCC, format {grey_bodies.FORMAT}" and scenes.has_scene
    assert "scene" not in plain.meta and not plain.has_scene
    assert plain.version != scenes.version


def test_pictures_have_coloured_scenes_in_place_of_the_white_ground(plain, scenes):
    assert all((image[:3, :3] == 255).all() for image in images_of(plain))
    borders = [image[:3, :3].reshape(-1, 3) for image in images_of(scenes)]
    assert all(image.shape == (96, 48, 3) for image in images_of(scenes))
    means = np.stack([border.mean(0) for border in borders])
    assert len(np.unique(means.round(), axis=0)) == len(means) and means.std(0).min() > 20
    assert (np.ptp(means, axis=1) > 5).mean() > 0.5, "scenes are grey"


@pytest.mark.parametrize("framing", ["crop", "fixed"])
def test_the_body_is_where_the_recorded_camera_sees_it_and_lit_by_the_recorded_light(tmp_path, monkeypatch, framing):
    """PyTorch3D's cameras and our grey renderer, from what the index says, draw the silhouette in the scene."""
    masks, draw = [], grey_bodies.draw

    def remembered(*arguments):
        pictures = draw(*arguments)
        masks.extend(pictures.mask.numpy())
        return pictures

    monkeypatch.setattr(grey_bodies, "draw", remembered)
    settings = SyntheticSettings(bodies=4, poses_per_body=4, image_size=(128, 64), framing=framing)
    made = GreyBodiesInScenes(tmp_path, settings, workers=1)
    overlaps, alike = [], []
    for body in range(settings.bodies):
        model = load_body_model(gender=GENDERS[body % 2])
        masks.clear()
        images, views, lights = made.render_body(body)
        poses = made.pool[made.pose_rows(body)]
        vertices = stand_on_ground(model.pose(torch.from_numpy(made.betas[[body] * len(poses)]), poses)[0])
        renderer = GreyRenderer(model.faces, (256, 128), grey=0.5, background=0.0)
        large = renderer.render(vertices, torch.from_numpy(views), torch.from_numpy(lights))[:, None]
        covered = (torch.nn.functional.avg_pool2d((large > 0).float(), 2)[:, 0] > 0.5).numpy()
        expected = torch.nn.functional.avg_pool2d(large, 2)[:, 0].numpy()
        for number, (image, mask, wanted) in enumerate(zip(images, masks, expected)):
            silhouette = covered[number] & (large[number, 0, 1::2, 1::2] > 0).numpy()
            shot = made.shot(body, number)
            # The light is as far from the camera in the body's world as in the scene's, where the camera is at 0.
            light, azimuth = lights[number].astype(float), views[number, 0].astype(float)
            around = np.rad2deg(np.arctan2(light[0], light[2])) - azimuth - shot.light_azimuth
            assert abs((around + 180) % 360 - 180) < 0.01
            assert abs(np.rad2deg(np.arcsin(light[1])) - shot.light_elevation) < 0.01
            if shot.occluded:
                continue
            overlaps.append((mask & silhouette).sum() / (mask | silhouette).sum())
            alike.append(np.corrcoef(image.mean(-1)[mask], wanted[mask])[0, 1])
    assert len(overlaps) > 8 and min(overlaps) > 0.99, overlaps
    assert np.median(alike) > 0.8, alike


def test_a_killed_run_of_the_command_is_completed_by_another_process(tmp_path):
    """Kills the command in the middle, then goes on here with two threads: same bytes as one undisturbed run."""
    folder, bodies = tmp_path / grey_bodies.FOLDER, 20
    command = [sys.executable, "-m", "fastreid_clip3d", "render-bodies", "--scene", "--workers", "1", "--quiet"]
    command += ["--bodies", str(bodies), "--poses-per-body", "1", "--size", "32", "16"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FASTREID_DATASETS": str(tmp_path)}
    process = subprocess.Popen(command, env=environment)
    deadline = time.time() + 120
    while time.time() < deadline and len(list(folder.glob("images/*.jpg"))) < 7:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 7 <= len(list(folder.glob("images/*.jpg"))) < bodies
    kept = folder / "images" / "00000_00.jpg"
    before = kept.stat().st_mtime_ns
    settings = SyntheticSettings(bodies=bodies, poses_per_body=1, image_size=(32, 16))
    GreyBodiesInScenes(folder, settings, workers=2).make(progress=False)
    assert kept.stat().st_mtime_ns == before  # finished groups are not made again
    GreyBodiesInScenes(tmp_path / "undisturbed", settings, workers=1).make(progress=False)
    assert files(folder) == files(tmp_path / "undisturbed")


def test_sets_with_and_without_scenes_do_not_share_a_folder(plain, scenes):
    with pytest.raises(ClearError, match="scene was None, now SynthCC, format"):
        GreyBodiesInScenes(plain.folder, SETTINGS).make(progress=False)
    with pytest.raises(ClearError, match=r"scene was SynthCC, format \d+, now None"):
        SyntheticSet(scenes.folder, SETTINGS).make(progress=False)


def test_wide_pictures_and_other_devices_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ClearError, match="64 x 128.*at least as high as wide"):
        GreyBodiesInScenes(tmp_path, SyntheticSettings(image_size=(64, 128)))
    monkeypatch.setattr(synthetic_writer, "find_device", torch.device)
    with pytest.raises(ClearError, match="not on cuda.*--scene"):
        GreyBodiesInScenes(tmp_path, SETTINGS, device="cuda")


@pytest.mark.parametrize("cache_mib", [0, 100])
def test_training_sees_the_colours_with_and_without_a_cache(scenes, cache_mib):
    items = SyntheticBodies(scenes.folder, pil_to_tensor, cache_mib=cache_mib)
    assert (items.pixels is not None) == bool(cache_mib)
    for place, image in enumerate(images_of(scenes)):
        assert (items[place]["synthetic_images"].permute(1, 2, 0).numpy() == image).all()
    assert (items[3]["synthetic_betas"].numpy() == scenes.betas[3]).all()


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    return golden_grey_bodies.pictures()


@pytest.mark.parametrize("name", list(np.load(golden_grey_bodies.EXPECTED)))
def test_pictures_are_those_of_this_format(drawn, name):
    with np.load(golden_grey_bodies.EXPECTED) as file:
        expected = file[name].astype(np.float64)
    assert drawn[name].shape == expected.shape
    difference = np.abs(drawn[name].astype(np.float64) - expected)
    if name.startswith("pictures"):
        difference = difference / 16
        # As for SynthCC: one level is what a pixel makes that falls on the other side of a silhouette.
        fits = difference.max() <= 1 and difference.mean() <= 0.02
    else:
        fits = difference.max() <= 1e-4
    assert fits, (
        f"{name} changed by up to {difference.max():.3g}. If you meant this, raise FORMAT in "
        "fastreid_clip3d/synthcc/grey_bodies.py and update the expectations with "
        "`python -m tests.synthcc.golden_grey_bodies`."
    )
