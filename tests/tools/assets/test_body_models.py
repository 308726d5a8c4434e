"""The shipped body models are what the tool builds, and each step of the build does what it says."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation
from sklearn.decomposition import PCA

from fastreid_clip3d.body.archives import read_npz
from fastreid_clip3d.body.compact import pack, save, unpack
from fastreid_clip3d.body.constants import MODEL_GENDERS
from fastreid_clip3d.body.files import EMBEDDED
from fastreid_clip3d.errors import ClearError, run_tool
from tools.assets.bodies import anny_source, build, t_pose
from tools.assets.bodies.anny_source import AnnySource, draw_people, to_smpl_axes
from tools.assets.bodies.bones import joint_bones
from tools.assets.bodies.factory import BodyFactory, Sample
from tools.assets.bodies.shape_space import joint_regressor, project, shape_space
from tools.assets.bodies.topology import NUM_VERTICES, _snap, _strip, boundary_loops, build_topology


@pytest.fixture(scope="module")
def source():
    """anny's arrays; about 80 s on a machine's first use, a second later on."""
    return AnnySource()


@pytest.fixture(scope="module")
def topology(source):
    return build_topology(source)


@pytest.fixture(scope="module")
def rebuilt():
    """The whole build, as the tool does it: its arrays, figures and reports of progress."""
    reports: list[tuple[str, int]] = []
    arrays, figures = build.build_models(progress=lambda stage, count: reports.append((stage, count)))
    return arrays, figures, reports


@pytest.fixture(scope="module")
def shipped():
    return read_npz(EMBEDDED)


# ---- the shipped file --------------------------------------------------------------------------------------------


def test_shipped_file_is_what_the_tool_builds(rebuilt, shipped):
    arrays, _, reports = rebuilt
    assert build.differences(arrays, shipped) == []
    assert sum(count for _, count in reports) == build.num_steps(), "the progress bar ends at 100 %"


def test_ten_components_hold_the_variance(rebuilt):
    for gender, values in rebuilt[1].items():
        assert values.variance_kept >= 0.98, gender
        assert values.residual_mm < 5 and values.joint_residual_mm < 8, gender
    women, men = rebuilt[1]["female"], rebuilt[1]["male"]
    assert 1.60 < women.stature_mean < 1.67 and 1.73 < men.stature_mean < 1.80
    assert 0.05 < women.stature_sd < 0.09 and 0.05 < men.stature_sd < 0.09


@pytest.mark.parametrize(
    "name, change, wanted",
    [
        ("faces", lambda a: a[::-1], "faces: differs"),
        ("weights", lambda a: np.where(a == a.max(), a - 1, a), "weights: differs"),
        ("male_template", lambda a: a + (np.arange(len(a)) == 9)[:, None] * 40, "male v_template: differs by up to"),
        ("neutral_shapedirs", lambda a: -a, "neutral shapedirs: differs"),
        ("female_regressor_value", lambda a: a[::-1], "female J_regressor: differs"),
    ],
)
def test_differences_are_found_and_named(shipped, name, change, wanted):
    assert build.differences(shipped, shipped) == []
    other = dict(shipped, **{name: change(shipped[name])})
    found = build.differences(other, shipped)
    assert len(found) == 1 and found[0].startswith(wanted)
    del other[name]
    assert build.differences(other, shipped) == [f"{name}: only in the shipped file"]


def tool():
    return importlib.import_module("tools.assets.build_body_models")


@pytest.fixture
def quick_tool(monkeypatch, shipped):
    """The command line around a build that is already there."""
    module = tool()
    figures = dict.fromkeys(MODEL_GENDERS, build.BuildFigures(0.99, 3.0, 4.0, 1.7, 0.07))
    monkeypatch.setattr(module, "build_models", lambda progress: (shipped, figures))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["build_body_models.py", *map(str, arguments)])
        module.main()

    return run


def test_tool_writes_and_checks(quick_tool, shipped, tmp_path, capsys):
    quick_tool("--output", tmp_path / "bodies.npz")
    assert build.differences(read_npz(tmp_path / "bodies.npz"), shipped) == []
    assert [file.name for file in tmp_path.iterdir()] == ["bodies.npz"], "no temporary file is left"
    quick_tool("--check", "--output", tmp_path / "bodies.npz")
    assert "equals a new build" in capsys.readouterr().out
    save(dict(shipped, faces=shipped["faces"][::-1]), tmp_path / "bodies.npz")
    with pytest.raises(ClearError, match="differs from a new build: faces: differs"):
        quick_tool("--check", "--output", tmp_path / "bodies.npz")
    with pytest.raises(ClearError, match="does not exist"):
        quick_tool("--output", tmp_path / "absent" / "bodies.npz")


def test_tool_without_anny_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "anny", None)  # an import of it now fails
    monkeypatch.setattr(sys, "argv", ["build_body_models.py"])
    with pytest.raises(SystemExit) as stopped:
        run_tool(tool().main)
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert "pip install anny==0.6.2 fast-simplification==0.2.0" in told and "Traceback" not in told


def test_another_version_of_anny_is_refused(monkeypatch):
    monkeypatch.setattr(anny_source.importlib.metadata, "version", lambda name: "0.5.0")
    with pytest.raises(ClearError, match="needs anny 0.6.2, but 0.5.0 is installed"):
        AnnySource()


# ---- topology ----------------------------------------------------------------------------------------------------


def test_topology_is_a_subset_near_the_original(source, topology):
    assert len(topology.vertices) == NUM_VERTICES
    assert (np.diff(topology.vertices) > 0).all(), "distinct, ascending"
    mesh = trimesh.Trimesh(source.vertices[topology.vertices], topology.faces, process=False)
    assert mesh.is_watertight and mesh.euler_number == 2
    assert not source.is_cavity[topology.vertices].any()
    full = trimesh.Trimesh(source.vertices, source.faces, process=False)
    largest = max(full.split(), key=lambda part: len(part.vertices))
    assert abs(mesh.volume / largest.volume - 1) < 0.01, "thinning keeps the volume"


def test_boundary_loops_of_a_box_without_two_sides():
    box = trimesh.creation.box()
    open_box = box.faces[np.abs(box.face_normals[:, 2]) < 0.5]
    loops = boundary_loops(open_box)
    assert sorted(map(len, loops)) == [4, 4]
    assert boundary_loops(box.faces) == []
    closed = np.concatenate([open_box, *(_strip(loop) for loop in loops)])
    mesh = trimesh.Trimesh(box.vertices, closed, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert abs(mesh.volume - 1) < 1e-9


@pytest.mark.parametrize("count", [3, 4, 5, 38])
def test_strip_closes_a_loop_of_any_length(count):
    faces = _strip(np.arange(count))
    assert len(faces) == count - 2
    edges = {(a, b) for face in faces for a, b in zip(face, np.roll(face, -1))}
    assert all(((i + 1) % count, i) in edges for i in range(count)), "wound against the loop"


def test_snap_gives_each_point_a_vertex_of_its_own():
    candidates = np.random.default_rng(0).uniform(size=(200, 3))
    chosen = np.random.default_rng(1).permutation(200)[:80]
    points = candidates[chosen] + 1e-4
    assert (_snap(points, candidates) == chosen).all()
    twice = np.concatenate([points, points[:5]])
    owners = _snap(twice, candidates)
    assert len(set(owners.tolist())) == 85


# ---- T-pose ------------------------------------------------------------------------------------------------------


def test_every_bone_follows_a_joint(source, topology):
    skins = [label for _, skin in joint_bones() for label in skin]
    assert sorted(skins) == sorted(source.bone_labels)
    heads = {label for heads, _ in joint_bones() for label in heads}
    assert heads <= set(source.bone_labels)


def test_t_pose_keeps_limbs_lengths(source, topology):
    """Turning bones changes directions, never lengths: bones from joint to joint are as long as in anny's rest pose."""
    factory = BodyFactory(source, topology)
    people = draw_people("female", 6, np.random.default_rng(0))
    coefficients = source.coefficients(*people)
    joints = factory.bodies(coefficients).joints
    heads = source.bone_heads + np.einsum("nc,cbi->nbi", coefficients, source.bone_heads_blendshapes)
    for joint, parent in ((4, 1), (7, 4), (18, 16), (20, 18), (5, 2), (19, 17), (15, 12)):
        before = [heads[:, factory.joint_heads[j]].mean(1) for j in (joint, parent)]
        lengths = [np.linalg.norm(a - b, axis=1) for a, b in (before, (joints[:, joint], joints[:, parent]))]
        # Not to the last digit: the two bones of a forearm share the twist and are not quite in one line.
        np.testing.assert_allclose(lengths[0], lengths[1], rtol=1e-5)
    assert np.abs(joints[:, 0]).max() < 1e-12, "the pelvis is the origin"


def test_rotations_by_hand():
    rng = np.random.default_rng(0)
    vectors, target = rng.normal(size=(5, 3)), np.array([0.0, 0.6, -0.8])
    turned = t_pose._apply(t_pose._between(vectors, target), vectors)
    np.testing.assert_allclose(turned, np.linalg.norm(vectors, axis=1)[:, None] * target, atol=1e-12)
    for matrices in (t_pose._between(vectors, target), t_pose._frame(vectors, rng.normal(size=(5, 3)))):
        np.testing.assert_allclose(matrices @ matrices.swapaxes(-1, -2), np.tile(np.eye(3), (5, 1, 1)), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-12)
    angles = rng.uniform(-3, 3, 4)
    expected = Rotation.from_rotvec(angles[:, None] * target).as_matrix()
    np.testing.assert_allclose(t_pose._about_axis(target, angles), expected, atol=1e-12)


def test_axes():
    np.testing.assert_array_equal(to_smpl_axes(np.array([1.0, 2.0, 3.0])), [1.0, 3.0, -2.0])


def test_people_are_adults_and_repeat():
    for gender, code in (("female", 1.0), ("male", 0.0)):
        first, again = (draw_people(gender, 50, np.random.default_rng(4)) for _ in range(2))
        for one, two in zip(first, again):
            assert all(np.array_equal(one[label], two[label]) for label in one)
        phenotypes, local_changes = first
        assert (phenotypes["gender"] == code).all() and phenotypes["age"].min() >= 0.6, "18 years and more"
        assert all(values.min() >= 0 and values.max() <= 1 for values in phenotypes.values())
        assert all(np.abs(values).max() <= 1 for values in local_changes.values())


# ---- shape space and regressor -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blobs():
    """Sixty deformed spheres."""
    rng = np.random.default_rng(0)
    sphere = trimesh.creation.icosphere(subdivisions=2)
    scales = 1 + 0.1 * rng.normal(size=(60, 1, 3)) * [3, 2, 1]
    return sphere.vertices * scales + 0.002 * rng.normal(size=(60, len(sphere.vertices), 3)), sphere.faces


def test_shape_space_is_the_textbooks(blobs):
    vertices, faces = blobs
    mean, directions, kept = shape_space(vertices, faces, count=4)
    oracle = PCA(n_components=4).fit(vertices.reshape(60, -1))
    assert abs(kept - oracle.explained_variance_ratio_.sum()) < 1e-9
    np.testing.assert_allclose(mean.ravel(), oracle.mean_, atol=1e-12)
    expected = oracle.components_ * np.sqrt(oracle.explained_variance_)[:, None]
    flat = directions.reshape(-1, 4).T
    signs = np.sign((flat * expected).sum(1))
    np.testing.assert_allclose(flat * signs[:, None], expected, atol=1e-8)
    betas = (vertices - mean).reshape(60, -1) @ flat.T / (flat**2).sum(1)
    np.testing.assert_allclose(betas.std(0, ddof=1), 1, atol=1e-9, err_msg="one unit is one standard deviation")
    projected = project(vertices, mean, directions)
    np.testing.assert_allclose(
        projected.reshape(60, -1), oracle.inverse_transform(oracle.transform(vertices.reshape(60, -1))), atol=1e-8
    )
    grown = [trimesh.Trimesh(mean + 0.1 * d, faces, process=False).volume for d in np.moveaxis(directions, -1, 0)]
    assert min(grown) > trimesh.Trimesh(mean, faces, process=False).volume, "positive is larger"


def test_joint_regressor_finds_a_known_mixture(blobs):
    vertices, _ = blobs
    rows = np.zeros((2, vertices.shape[1]))
    rows[0, [3, 40, 77]] = [0.5, 0.3, 0.2]
    rows[1, [10, 90, 120, 150]] = 0.25
    sample = Sample(vertices, np.einsum("jv,nvi->nji", rows, vertices))
    found = joint_regressor(sample, candidates=vertices.shape[1])
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)
    assert np.abs(np.einsum("jv,nvi->nji", found, vertices) - sample.joints).max() < 2e-3
    jitter = 0.05 * np.random.default_rng(1).normal(size=sample.joints.shape)
    found = joint_regressor(Sample(vertices, sample.joints + jitter), candidates=vertices.shape[1])
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12, err_msg="also where no mixture fits exactly")


def test_pack_and_unpack(shipped):
    fields = {gender: unpack(shipped, gender) for gender in MODEL_GENDERS}
    again = pack(fields)
    for name, array in shipped.items():
        if name.endswith(("value", "scale")):
            np.testing.assert_allclose(again[name], array, rtol=1e-6)
        else:
            assert again[name].dtype == array.dtype
            assert np.abs(again[name].astype(np.int64) - array.astype(np.int64)).max() <= 1, name
    assert (shipped["weights"].astype(np.int64).sum(1) == 65535).all()
    rng = np.random.default_rng(0)
    template = rng.uniform(-1, 1, fields["male"]["v_template"].shape)
    moved = unpack(pack({"male": dict(fields["male"], v_template=template)}), "male")["v_template"]
    assert np.abs(moved - template).max() < 2e-5, "two hundredths of a millimetre"
