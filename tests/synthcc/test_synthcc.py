"""SynthCC: mesh operations, dressing, posing, cameras, plans, and bytes on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fastreid_clip3d.body.poses import load_pose_pool
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.protocols import removed_mask
from fastreid_clip3d.synthcc import generate, plan
from fastreid_clip3d.synthcc.camera import CAMERAS, FIXED_FLOOR, FIXED_HEIGHT, aim, sample_shot
from fastreid_clip3d.synthcc.dressing import dress
from fastreid_clip3d.synthcc.figure import CANONICAL, NORMAL, REST, load_figure
from fastreid_clip3d.synthcc.garments import NUM_PARTS, SKIN, TOP, make_top, top_field
from fastreid_clip3d.synthcc.index import COLUMNS, read_columns
from fastreid_clip3d.synthcc.mesh_tools import cut, grid_faces
from fastreid_clip3d.synthcc.outfit import sample_outfit
from fastreid_clip3d.synthcc.patterns import paint
from fastreid_clip3d.synthcc.person import HAIR_COLOURS, SKIN_TONES, sample_appearance
from fastreid_clip3d.synthcc.plan import (
    FULL,
    SETS,
    TINY,
    SetConfig,
    plan_person,
    sample_clothes,
    sample_person,
    settings_of,
    version_of,
)
from fastreid_clip3d.synthcc.posing import pose_person, rotations
from fastreid_clip3d.synthcc.sampling import sample_people
from fastreid_clip3d.synthcc.seeds import pick, stream
from fastreid_clip3d.synthcc.skirts import Tube, hang
from fastreid_clip3d.synthcc.wardrobe import PATTERNS

SMALL = SetConfig(
    "Small", train_people=2, test_people=5, val_people=1, height=64, width=32, outfits=2, images_per_outfit=2
)


def square_grid(count: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """A flat square [0, 1] x [0, 1] facing +z, as a grid."""
    side = np.linspace(0, 1, count)
    y, x = np.meshgrid(side[::-1], side, indexing="ij")
    points = np.stack([x, y, 0 * x], -1).reshape(-1, 3)
    return points, grid_faces(count, count, False)


def area(points: np.ndarray, faces: np.ndarray) -> float:
    corners = points[faces]
    return float(
        np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    )


# ---- meshes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, expected", [((1.0, 0.0, -0.31), 0.69), ((1.0, 1.0, -1.0), 0.5), ((-1.0, 0.0, 2.0), 1.0)]
)
def test_a_cut_leaves_exactly_the_positive_side(line, expected):
    points, faces = square_grid()
    kept, kept_faces, least = cut(points, faces, points, lambda at: [at[:, 0] * line[0] + at[:, 1] * line[1] + line[2]])
    np.testing.assert_allclose(least, kept[:, 0] * line[0] + kept[:, 1] * line[1] + line[2], atol=1e-12)
    assert area(kept, kept_faces) == pytest.approx(expected, abs=1e-9)
    assert (kept[:, 0] * line[0] + kept[:, 1] * line[1] + line[2]).min() > -1e-9
    assert set(kept_faces.reshape(-1)) == set(range(len(kept)))
    # No face was turned over: the square still faces +z.
    corners = kept[kept_faces]
    assert np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2].min() > -1e-12


def test_a_cut_interpolates_attributes_on_the_line():
    points, faces = square_grid()
    attributes = np.concatenate([points, 7 * points[:, :1] - 2 * points[:, 1:2]], 1)
    kept, _, _ = cut(attributes, faces, points, lambda at: [0.43 - at[:, 0]])
    np.testing.assert_allclose(kept[:, 3], 7 * kept[:, 0] - 2 * kept[:, 1], atol=1e-12)


def test_nothing_is_left_where_the_field_is_negative():
    points, faces = square_grid()
    kept, kept_faces, _ = cut(points, faces, points, lambda at: [np.full(len(at), -1.0), at[:, 0]])
    assert len(kept) == 0 and len(kept_faces) == 0


def test_two_cuts_leave_their_common_part_and_interpolate_on_both_lines():
    points, faces = square_grid()
    attributes = np.concatenate([points, 7 * points[:, :1] - 2 * points[:, 1:2]], 1)
    kept, kept_faces, least = cut(attributes, faces, points, lambda at: [0.43 - at[:, 0], at[:, 0] + at[:, 1] - 0.31])
    assert area(kept[:, :3], kept_faces) == pytest.approx(0.43 - 0.31**2 / 2, abs=1e-9)
    np.testing.assert_allclose(kept[:, 3], 7 * kept[:, 0] - 2 * kept[:, 1], atol=1e-12)
    np.testing.assert_allclose(least, np.minimum(0.43 - kept[:, 0], kept[:, 0] + kept[:, 1] - 0.31), atol=1e-12)
    assert set(kept_faces.reshape(-1)) == set(range(len(kept)))


# ---- streams and people ------------------------------------------------------------------------------------------


def test_streams_depend_on_every_key_and_nothing_else():
    first = stream(3, "train", 5).random(4)
    np.random.seed(0)
    np.testing.assert_array_equal(first, stream(3, "train", 5).random(4))
    for other in ((4, "train", 5), (3, "test", 5), (3, "train", 6), (3, "train", 5, 0)):
        assert not np.array_equal(first, stream(*other).random(4))


def test_pick_follows_the_weights():
    rng = stream(0, "pick")
    drawn = [pick(rng, {"a": 3, "never": 0, "b": 1}) for _ in range(4000)]
    assert drawn.count("never") == 0
    assert drawn.count("a") / 4000 == pytest.approx(0.75, abs=0.03)


def test_populations_share_nobody():
    people = [
        sample_person(1, population, number).betas
        for population in ("train", "test", "val", "teacher")
        for number in range(50)
    ]
    distances = torch.cdist(torch.from_numpy(np.stack(people)), torch.from_numpy(np.stack(people)))
    assert (distances + 10 * torch.eye(200)).min() > 0.1


def test_natural_keeps_skin_and_hair_and_shape_only_redraws_them():
    for number in range(5):
        person = sample_person(1, "train", number)
        natural = [sample_clothes(1, person, outfit, "natural")[0] for outfit in range(3)]
        redrawn = [sample_clothes(1, person, outfit, "shape-only")[0] for outfit in range(3)]
        assert all(np.array_equal(look.skin, natural[0].skin) and look.style == natural[0].style for look in natural)
        assert not np.array_equal(redrawn[0].skin, redrawn[1].skin) and not np.array_equal(
            redrawn[1].hair, redrawn[2].hair
        )


def test_shape_only_looks_do_not_depend_on_the_sex():
    women, men = (sample_appearance(stream(9, "look"), sex, "shape-only") for sex in (0, 1))
    assert women.style == men.style and np.array_equal(women.skin, men.skin) and men.beard == 0


# ---- dressing and posing -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dressed():
    """A few dressed people of both sexes with all kinds of garments."""
    people = []
    for number in range(8):
        person = sample_person(5, "test", number)
        look, outfit = sample_clothes(5, person, 0, "natural")
        people.append(dress(load_figure(person.gender), person.betas, look, outfit))
    return people


def test_clothes_lie_outside_the_body():
    figure = load_figure(0)
    _, outfit = sample_clothes(5, sample_person(5, "test", 1), 0, "natural")
    for offset in (0.006, 0.02):
        top = dataclasses.replace(outfit.top, offset=offset, drape=0.0, sleeve_drape=0.0, length=0.0)
        body, joints = figure.attributes(np.zeros(10, dtype=np.float32))
        piece = make_top(figure, body, joints, top, TOP)
        # The mean body's own place is its canonical place, so the shift along the normal is known.
        shift = ((piece.attributes[:, REST] - piece.attributes[:, CANONICAL]) * piece.attributes[:, NORMAL]).sum(1)
        assert np.quantile(shift, 0.05) > 0 and np.median(shift) == pytest.approx(offset, abs=0.004)


def test_skin_deep_below_cloth_is_left_out(dressed):
    for person in dressed:
        skin_faces = person.faces[person.face_part == SKIN]
        points = person.canonical[skin_faces].mean(1)
        inside = np.min(top_field(person.outfit.top, person.figure.marks, points), 0)
        marks = person.figure.marks
        inside[(points[:, 1] < marks.crotch - 0.12) | (points[:, 1] > marks.chin)] = -1
        assert np.mean(inside > 0.05) < 0.01


def test_a_dressed_person_has_more_than_one_part_and_no_stray_vertices(dressed):
    for person in dressed:
        assert len(np.unique(person.face_part)) >= 3 and person.face_part.max() < NUM_PARTS
        assert person.faces.max() < len(person.rest)
        assert np.abs(person.rest).max() < 1.5


def test_feet_stand_on_the_ground_in_every_pose(dressed):
    poses = load_pose_pool().numpy()
    for pose in poses[::9]:
        body = pose_person(dressed[0], pose, 40.0)
        assert body.vertices[:, 1].min() == pytest.approx(0, abs=1e-5)
        assert np.abs(body.vertices[:, [0, 2]].mean(0)).max() < 0.35


def test_posing_agrees_with_the_body_model():
    figure = load_figure(1)
    model, betas = figure.model, torch.randn(1, 10, generator=torch.Generator().manual_seed(3)).clamp(-2, 2)
    pose = load_pose_pool()[17:18]
    _, expected = model.pose(betas, pose)
    from fastreid_clip3d.synthcc.posing import joint_transforms

    _, joints = figure.attributes(betas[0].numpy())
    _, found = joint_transforms(pose[0].numpy(), joints, figure.parents, 0.0)
    offset = expected[0, 0].numpy() - found[0]
    np.testing.assert_allclose(found + offset, expected[0].numpy(), atol=2e-4)


def test_rotations_are_rodrigues():
    from scipy.spatial.transform import Rotation

    vectors = np.random.default_rng(0).normal(size=(20, 3))
    vectors[0] = 0
    np.testing.assert_allclose(rotations(vectors), Rotation.from_rotvec(vectors).as_matrix(), atol=1e-9)


@pytest.mark.parametrize("stride", [0.0, 0.3])
def test_a_skirt_goes_around_both_legs(stride):
    rng = np.random.default_rng(1)
    height = rng.uniform(-0.85, 0.15, 4000)
    angle, side = rng.uniform(0, 2 * np.pi, 4000), rng.choice([-1, 1], 4000)
    legs = np.stack(
        [side * 0.09 + 0.07 * np.cos(angle), height + 0.9, -side * stride * height.clip(max=0) + 0.07 * np.sin(angle)],
        1,
    )
    hips = np.array([0.0, 0.9, 0.0])
    tube = hang(
        Tube(part=8, start=0.1, length=0.6, flare=0.05, margin=0.01),
        legs,
        hips,
        hips,
        np.eye(3),
        0.8,
        load_figure(0).marks,
    )
    covered = legs[(legs[:, 1] < 0.9) & (legs[:, 1] > 0.9 - 0.46)]
    ring = tube.vertices.reshape(14, 40, 3)
    for point in covered[::20]:
        row = ring[np.abs(ring[:, 0, 1] - point[1]).argmin()]
        directions = np.stack([row[:, 0], row[:, 2]], 1)
        radius = np.linalg.norm(directions, axis=1)
        nearest = (directions @ point[[0, 2]] / radius / max(np.hypot(*point[[0, 2]]), 1e-9)).argmax()
        assert np.hypot(*point[[0, 2]]) < radius[nearest] + 0.004


# ---- cameras -----------------------------------------------------------------------------------------------------


def project(view, points):
    seen = view.to_view(points)
    return seen[:, :2] * view.focal / seen[:, 2:] + view.principal


def test_there_are_cameras_with_every_asked_effect():
    assert len(CAMERAS) >= 6
    for effect in ("blur", "occluder", "partial_crop", "vignette"):
        assert any(getattr(camera, effect) > 0 for camera in CAMERAS)
    assert any(camera.low_resolution > 1 for camera in CAMERAS)
    assert len({camera.elevation for camera in CAMERAS}) == len(CAMERAS)


def test_fixed_framing_shows_height_alike_under_all_cameras():
    for camera in range(len(CAMERAS)):
        shot = dataclasses.replace(sample_shot(stream(1, camera), camera, 10), zoom=1.0, shift=(0.0, 0.0), partial=None)
        ends = project(
            aim(shot, None, "fixed"), np.array([[0, -FIXED_FLOOR, 0], [0, FIXED_HEIGHT - FIXED_FLOOR, 0], [0, 1.0, 0]])
        )
        np.testing.assert_allclose(ends[:2, 1], [-2, 2], atol=1e-6)
        assert abs(ends[2, 0]) < 1e-6 and -0.3 < ends[2, 1] < 0.3


def test_crop_framing_holds_the_whole_person_and_hides_the_height():
    rng = np.random.default_rng(0)
    shot = dataclasses.replace(sample_shot(stream(1, 0), 0, 10), zoom=1.0, shift=(0.0, 0.0), partial=None)
    spans = []
    for height in (1.5, 1.9):
        points = rng.uniform([-0.2, 0, -0.2], [0.2, 1, 0.2], (500, 3)) * [1, height, 1]
        ndc = project(aim(shot, points, "crop"), points)
        assert np.abs(ndc[:, 0]).max() <= 1 and np.abs(ndc[:, 1]).max() <= 2
        spans.append(np.ptp(ndc[:, 1]))
    assert spans[0] == pytest.approx(spans[1], rel=0.02)


def test_an_unknown_framing_is_refused():
    with pytest.raises(ValueError, match="framing"):
        aim(sample_shot(stream(1), 0, 10), None, "tight")


def test_rays_go_through_the_pixels_they_are_named_for():
    shot = sample_shot(stream(2), 2, 10)
    view = aim(shot, None, "fixed")
    rays = view.rays(128, 64)
    ndc = project(view, view.centre + 3.7 * rays[[5, 100], [60, 3]].astype(np.float64))
    expected = [[(63 - 2 * 60) / 64, (127 - 2 * 5) / 64], [(63 - 2 * 3) / 64, (127 - 2 * 100) / 64]]
    np.testing.assert_allclose(ndc, expected, atol=1e-4)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_stay_within_colours_and_are_not_constant(pattern):
    points = torch.rand(3000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [0.4, 0.9, 0.3]
    ) - torch.tensor([0.2, 0.4, 0.1])
    colours = torch.tensor([[0.2, 0.3, 0.5], [0.8, 0.8, 0.1], [0.5, 0.1, 0.1]]).expand(3000, 3, 3)
    number = torch.full((3000,), PATTERNS.index(pattern))
    scale = torch.full((3000,), 1.0 if pattern in ("print", "block") else 0.07)
    painted = paint(points, number, colours, scale, torch.full((3000,), 0.45))
    assert painted.min() >= 0 and painted.max() <= 1
    assert (painted.std(0).max() > 0.005) == (pattern != "plain")


# ---- plans and sets on disk --------------------------------------------------------------------------------------


def test_official_sizes():
    assert FULL.train_people >= 1000 and FULL.test_people >= 300 and FULL.outfits >= 4
    assert (FULL.train_people + FULL.test_people) * FULL.outfits * FULL.images_per_outfit >= 20000
    assert (TINY.train_people, TINY.test_people, TINY.height, TINY.width) == (400, 300, 128, 64)
    assert set(SETS) == {"SynthCC", "SynthCC-tiny"}


@pytest.mark.parametrize("population, prefix", [("test", ""), ("val", "val_")])
def test_every_query_has_matches_under_every_rule(population, prefix):
    _, first, count = next(entry for entry in TINY.populations if entry[0] == population)
    plans = [plan for number in range(first, first + count) for plan in plan_person(TINY, population, number, 100)]

    def ids(split):
        rows = [plan for plan in plans if plan.split == split]
        return (
            np.array([plan.person.number for plan in rows]),
            np.array([plan.shot.camera for plan in rows]),
            np.array([plan.clothes_id for plan in rows]),
        )

    query, gallery = ids(f"{prefix}query"), ids(f"{prefix}gallery")
    assert set(query[0]) == set(gallery[0]) == set(range(first, first + count))
    for rule in ("general", "CC", "SC"):
        removed = removed_mask(rule, query[0], query[1], gallery[0], gallery[1], query[2], gallery[2])
        matches = ((query[0][:, None] == gallery[0]) & ~removed).sum(1)
        assert matches.min() >= 1, rule


def test_one_outfit_is_seen_by_different_cameras():
    for images in (plan_person(TINY, "train", number, 100) for number in range(20)):
        for outfit in range(TINY.outfits):
            cameras = [image.shot.camera for image in images if image.outfit == outfit]
            assert len(set(cameras)) == len(cameras) == 4


def test_versions_differ_by_seed_kind_and_size_only():
    assert version_of(TINY) == version_of(dataclasses.replace(TINY))
    others = [
        dataclasses.replace(TINY, seed=2),
        dataclasses.replace(TINY, variant="shape-only"),
        dataclasses.replace(TINY, framing="crop"),
        FULL,
    ]
    assert len({version_of(config) for config in (TINY, *others)}) == 5


def test_versions_follow_the_format_the_bodies_and_the_poses(monkeypatch, tmp_path):
    def changed(name, value):
        with monkeypatch.context() as patch:
            patch.setattr(plan, name, value)
            return version_of(TINY)

    (tmp_path / "bodies.npz").write_bytes(b"other bodies")
    versions = [
        version_of(TINY),
        changed("FORMAT", plan.FORMAT + 1),
        changed("EMBEDDED", tmp_path / "bodies.npz"),
        changed("load_pose_pool", lambda: torch.zeros(3, 72)),
    ]
    assert len(set(versions)) == 4


def test_versions_do_not_follow_the_source_text():
    """They are the hash of numbers that the meta.json of a set shows."""
    shown = settings_of(TINY)
    assert shown["format"] == plan.FORMAT and shown["seed"] == 1 and shown["variant"] == "natural"
    assert all(isinstance(value, str | int) for value in shown.values())
    text = json.dumps(shown, sort_keys=True).encode()
    assert version_of(TINY) == hashlib.sha256(text).hexdigest()[:16]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "naked"}, "variant 'naked' is unknown"),
        ({"framing": "tight"}, "framing 'tight' is unknown"),
        ({"outfits": 1}, "2 or more outfits.* not 1 and"),
        ({"images_per_outfit": 9}, "not .* and 9"),
        ({"height": 8}, "8 x .* is not"),
        ({"height": 64, "width": 128}, "not wider than high; 64 x 128 is not"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
    ],
)
def test_impossible_sets_are_refused(change, message):
    with pytest.raises(ClearError, match=message):
        dataclasses.replace(TINY, **change)


def digest(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*/*.jpg"))
    }


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    return generate.generate_set(tmp_path_factory.mktemp("one"), SMALL, workers=1)


def test_a_set_holds_what_its_index_says(small_set):
    index = np.load(small_set / "index.npz", allow_pickle=False)
    meta = json.loads((small_set / "meta.json").read_text())
    assert meta["complete"] and meta["version"] == version_of(SMALL) and meta["counts"]["train"] == 8
    assert set(index["files"].tolist()) == set(digest(small_set))
    for file, pid, camera, outfit in zip(index["files"], index["pid"], index["camid"], index["outfit"]):
        assert f"{pid:04d}_o{outfit + 1}_c{camera + 1}_" in str(file)
    assert len(set(zip(index["pid"].tolist(), index["outfit"].tolist()))) == len(set(index["clothes_id"].tolist()))
    assert index["phrase_choices"].shape == (32, 16) and set(np.unique(index["phrase_choices"])) <= {0, 1}
    with Image.open(small_set / str(index["files"][0])) as image:
        assert image.size == (32, 64) and image.mode == "RGB"


def test_the_number_of_workers_and_threads_changes_no_byte(small_set, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        other = generate.generate_set(tmp_path, SMALL, workers=2)
    finally:
        torch.set_num_threads(before)
    assert digest(other) == digest(small_set)


@pytest.mark.parametrize("gender", [0, 1])
def test_threads_change_no_bit_of_a_figure(gender):
    """Processes inherit the figure of their parent, which may have computed it with more threads."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            load_figure.cache_clear()
            found.append(load_figure(gender))
    finally:
        torch.set_num_threads(before)
        load_figure.cache_clear()
    one, two = found
    assert one is not two and one.marks == two.marks
    for name, value in vars(one.model).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(two.model, name)), name


def test_a_stopped_run_goes_on_and_mends_what_is_broken(small_set, tmp_path, monkeypatch):
    config = dataclasses.replace(SMALL)
    expected = digest(small_set)
    shards = generate.shards_of(config)
    for split in ("train", "query", "gallery", "val_query", "val_gallery", ".shards"):
        (tmp_path / config.folder / split).mkdir(parents=True)
    version = version_of(config)
    (tmp_path / config.folder / "meta.json").write_text(json.dumps({"version": version, "complete": False}))
    for shard in shards[:2]:
        generate.make_shard(str(tmp_path / config.folder), config, shard, version)
    broken = next((tmp_path / config.folder / "train").glob("*.jpg"))
    broken.write_bytes(b"half a pict")
    made = []
    original = generate.make_shard
    monkeypatch.setattr(generate, "make_shard", lambda *args: made.append(args[2].name) or original(*args))
    folder = generate.generate_set(tmp_path, config, workers=1)
    assert digest(folder) == expected
    assert shards[0].name in made and shards[1].name not in made
    made.clear()
    generate.generate_set(tmp_path, config, workers=1)
    assert made == []


@pytest.mark.parametrize("damage", ["cut", "flip", "npy", "npy cut", "method", "empty", "missing", "column"])
def test_a_damaged_table_is_named_and_made_again_without_rendering(small_set, tmp_path, monkeypatch, damage):
    folder = tmp_path / small_set.name
    shutil.copytree(small_set, folder)
    path = folder / "index.npz"
    whole = path.read_bytes()
    middle = len(whole) // 2
    columns = dict(np.load(path))
    if damage == "missing":
        path.unlink()
    elif damage in ("npy", "npy cut"):
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
        if damage == "npy cut":  # numpy parses the header as Python
            path.write_bytes(path.read_bytes().replace(b"'fortran", b"('ortran"))
    elif damage == "method":
        entry = whole.index(b"PK\1\2")  # the list of the archive's members; a method is at byte 10 of an entry
        path.write_bytes(whole[: entry + 10] + b"\x63" + whole[entry + 11 :])
    elif damage == "column":
        np.savez_compressed(path, **{name: column for name, column in columns.items() if name != "betas"})
    else:
        damaged = {"cut": whole[:middle], "empty": b"", "flip": whole[:middle] + bytes(64) + whole[middle + 64 :]}
        path.write_bytes(damaged[damage])
    with pytest.raises(ClearError, match="index.npz cannot be read as the table .*clip3d render-people"):
        read_columns(folder, *columns)
    monkeypatch.setattr(generate, "make_shard", lambda *_: pytest.fail("nothing is to be rendered"))
    assert generate.generate_set(tmp_path, SMALL, workers=1) == folder
    mended = np.load(path)
    assert mended.files == list(columns) == list(COLUMNS)
    assert all(np.array_equal(columns[name], mended[name]) for name in COLUMNS)


def test_a_description_that_is_none_is_named(tmp_path):
    write_meta(tmp_path, [])
    with pytest.raises(ClearError, match="meta.json does not describe a SynthCC set"):
        generate.generate_set(tmp_path, SMALL, workers=1)


def write_meta(tmp_path, meta):
    folder = tmp_path / SMALL.folder
    folder.mkdir()
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def test_another_version_in_the_folder_is_named_and_not_overwritten(tmp_path):
    meta = {"version": "other", "complete": True, **settings_of(SMALL), "format": 0, "seed": 5}
    folder = write_meta(tmp_path, meta)
    with pytest.raises(ClearError, match="another version .*format was 0, now 2; seed was 5, now 1.*--root.*remove"):
        generate.generate_set(tmp_path, SMALL, workers=1)
    assert [path.name for path in folder.iterdir()] == ["meta.json"]


def test_a_set_from_before_formats_had_numbers_is_named_with_both_ways_on(tmp_path):
    folder = write_meta(tmp_path, {"version": "81c54aa8ab5c1d23", "complete": True, **dataclasses.asdict(SMALL)})
    words = (
        "before formats had numbers .version 81c54aa8ab5c1d23.*can still be trained on.*keep that set.*render it anew"
    )
    with pytest.raises(ClearError, match=words):
        generate.generate_set(tmp_path, SMALL, workers=1)
    assert [path.name for path in folder.iterdir()] == ["meta.json"]


def test_sampled_people_are_the_same_however_the_work_is_split():
    whole = list(sample_people(3, 2, seed=4, size=(64, 32), batch_size=2))
    part = list(sample_people(1, 2, seed=4, size=(64, 32), batch_size=2, first=1))
    assert torch.equal(whole[1]["images"], part[0]["images"]) and torch.equal(whole[1]["scores"], part[0]["scores"])
    assert whole[0]["images"].shape == (2, 3, 64, 32) and whole[0]["images"].dtype == torch.uint8
    assert whole[1]["pid"].tolist() == [1, 1] and whole[1]["clothes_id"].tolist() == [2, 3]
    share = whole[0]["mask"].float().mean()
    assert 0.08 < share < 0.6
    assert ((whole[0]["parts"] < NUM_PARTS) == whole[0]["mask"]).all()


def test_looks_cover_the_palette():
    looks = [sample_appearance(stream(1, number), number % 2, "natural") for number in range(200)]
    light = np.array([look.skin.mean() for look in looks])
    assert light.min() < np.mean(SKIN_TONES[-2]) + 0.03 and light.max() > np.mean(SKIN_TONES[1]) - 0.03
    assert len({look.style for look in looks}) >= 8 and len(HAIR_COLOURS) >= 6
    kinds = [sample_outfit(stream(2, number), number % 2) for number in range(200)]
    assert (
        any(outfit.skirt for outfit in kinds)
        and any(outfit.outer for outfit in kinds)
        and any(outfit.top.length for outfit in kinds)
    )
    assert {outfit.bag.kind for outfit in kinds if outfit.bag} == {"backpack", "sling", "hand"}
    assert {outfit.hat.kind for outfit in kinds if outfit.hat} == {"cap", "beanie", "brim"}
