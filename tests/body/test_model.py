"""The embedded bodies are people in SMPL's conventions; users' files are checked field by field."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from fastreid_clip3d.body import load_body_model
from fastreid_clip3d.body.files import EMBEDDED, candidates
from fastreid_clip3d.body.sampling import sample_betas
from fastreid_clip3d.errors import ClearError
from tests.body.files import official, smpl_fields
from tests.references.body_shape import arrays_of, to_smplx
from tests.references.python2_pickle import dumps
from tests.references.skinning import pose_body
from tests.references.winding import winding_number

GENDERS = ("female", "male", "neutral")
PELVIS, LEFT_HIP, LEFT_ANKLE, LEFT_FOOT, NECK, HEAD = 0, 1, 7, 10, 12, 15
LEFT_SHOULDER, LEFT_ELBOW, LEFT_WRIST = 16, 18, 20
LEFT, RIGHT = (1, 4, 7, 10, 13, 16, 18, 20, 22), (2, 5, 8, 11, 14, 17, 19, 21, 23)


@pytest.fixture(scope="module", params=GENDERS)
def model(request):
    return load_body_model(gender=request.param)


@pytest.fixture(scope="module")
def bodies(model):
    """Sixty random people [60, V, 3]."""
    return model.shape(torch.from_numpy(sample_betas(60, seed=1)))


# ---- the embedded models -----------------------------------------------------------------------------------------


def test_file_is_small_and_has_the_schema(model):
    assert EMBEDDED.stat().st_size <= 2_000_000
    vertices, faces = model.v_template.shape[0], model.faces.shape[0]
    assert 6_500 <= vertices <= 7_300 and vertices != 6_890, "of SMPL's size, not to be taken for SMPL's topology"
    assert model.shapedirs.shape == (vertices, 3, 10)
    assert model.J_regressor.shape == (24, vertices)
    assert model.weights.shape == (vertices, 24)
    assert model.faces.shape == (faces, 3) and model.faces.dtype == torch.int64
    assert model.parents.tolist()[:4] == [-1, 0, 0, 0] and len(model.parents) == 24
    for name in ("v_template", "shapedirs", "J_regressor", "weights"):
        assert getattr(model, name).dtype == torch.float32
    assert (model.num_vertices, model.num_betas) == (vertices, 10)


def test_sexes_share_the_topology():
    female, male, neutral = (load_body_model(gender=gender) for gender in GENDERS)
    for other in (male, neutral):
        assert torch.equal(female.faces, other.faces)
        assert torch.equal(female.weights, other.weights)
        assert torch.equal(female.parents, other.parents)
    assert len({m.fingerprint() for m in (female, male, neutral)}) == 3
    assert female.fingerprint() == load_body_model(gender="female").fingerprint()


def test_rows_sum_to_one_and_are_not_negative(model):
    for rows in (model.weights, model.J_regressor):
        assert rows.min() >= 0
        torch.testing.assert_close(rows.double().sum(1), torch.ones(len(rows)).double(), rtol=0, atol=1e-6)
    assert ((model.weights > 0).sum(1) <= 4).all()
    assert ((model.J_regressor > 0).sum(1) <= 40).all(), "a sparse regressor"


def test_one_closed_surface_wound_outwards(model, bodies):
    mesh = trimesh.Trimesh(model.v_template.numpy(), model.faces.numpy(), process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.euler_number == 2 and mesh.body_count == 1
    assert len(np.unique(mesh.faces)) == model.num_vertices
    assert 0.04 < mesh.volume < 0.11, "cubic metres, positive: normals point out"
    for body in bodies[:5].numpy():
        assert 0.03 < trimesh.Trimesh(body, mesh.faces, process=False).volume < 0.16


def test_metres_y_up_facing_front_pelvis_at_the_origin(model):
    joints = model.joints(model.v_template[None])[0]
    assert joints[PELVIS].abs().max() < 1e-4
    assert joints[HEAD, 1] > joints[NECK, 1] > 0.4 and joints[LEFT_ANKLE, 1] < -0.7, "y up"
    assert joints[LEFT_FOOT, 2] > joints[LEFT_ANKLE, 2] + 0.08, "toes point to +z"
    assert joints[LEFT_HIP, 0] > 0.05, "the left is at +x"
    torch.testing.assert_close(joints[list(LEFT), 0], -joints[list(RIGHT), 0], rtol=0, atol=2e-3)
    torch.testing.assert_close(joints[list(LEFT), 1:], joints[list(RIGHT), 1:], rtol=0, atol=2e-3)
    vertices = model.v_template
    head = vertices[vertices[:, 1] > joints[HEAD, 1] + 0.02]
    nose = head[head[:, 2].argmax()]
    assert nose[0].abs() < 0.01 and nose[2] > joints[HEAD, 2] + 0.05


def test_t_pose(model, bodies):
    """Arms along x with the palms down, elbows and knees straight, feet flat and level."""
    joints = model.joints(bodies)
    for shoulder, elbow, wrist, hand, sign in ((16, 18, 20, 22, 1.0), (17, 19, 21, 23, -1.0)):
        for start, end in ((shoulder, elbow), (elbow, wrist), (wrist, hand)):
            bone = joints[:, end] - joints[:, start]
            along = sign * bone[:, 0] / bone.norm(dim=1)
            assert along.min() > np.cos(np.deg2rad(4)), (start, end)
    for hip, ankle in ((1, 7), (2, 8)):
        bone = joints[:, ankle] - joints[:, hip]
        assert (-bone[:, 1] / bone.norm(dim=1)).min() > np.cos(np.deg2rad(6))
    hand_vertices = model.weights[:, 22] > 0.5
    hand = bodies[:, hand_vertices]
    extent = hand.amax(1) - hand.amin(1)
    assert (extent[:, 1] < 0.75 * extent[:, 2]).all(), "the palm is flat: wider to the front than high"
    soles = [bodies[:, model.weights[:, foot] > 0.5, 1].amin(1) for foot in (7, 8)]
    assert (soles[0] - soles[1]).abs().max() < 3e-3


def test_statures_are_those_of_adults():
    expected = {"female": (1.63, 0.07), "male": (1.76, 0.07), "neutral": (1.70, 0.09)}
    for gender, (mean, spread) in expected.items():
        bodies = load_body_model(gender=gender).shape(torch.from_numpy(sample_betas(500, seed=3)))
        stature = bodies[..., 1].amax(1) - bodies[..., 1].amin(1)
        assert abs(stature.mean() - mean) < 0.02
        assert abs(stature.std() - spread) < 0.015
        assert stature.min() > 1.35 and stature.max() < 2.1


def test_joints_are_inside_every_body(model, bodies):
    faces = model.faces.numpy()
    cube = trimesh.creation.box()
    assert abs(winding_number(cube.vertices, cube.faces, np.full(3, 0.4)) - 1) < 1e-6
    assert abs(winding_number(cube.vertices, cube.faces, np.full(3, 0.6))) < 1e-6
    for body, joints in zip(bodies[:4].double().numpy(), model.joints(bodies[:4]).double().numpy()):
        turns = [winding_number(body, faces, joint) for joint in joints]
        np.testing.assert_allclose(turns, 1.0, atol=0.01)
        depth = [np.linalg.norm(body - joint, axis=1).min() for joint in joints]
        assert min(depth) > 4e-3, "not on the skin"


def test_components_are_ordered_independent_and_scaled(model):
    flat = model.shapedirs.reshape(-1, 10).double()
    gram = flat.T @ flat
    energy = gram.diagonal()
    assert (energy[:-1] > energy[1:]).all(), "largest first"
    cosines = gram / (energy.sqrt()[:, None] * energy.sqrt()[None])
    assert (cosines - torch.eye(10)).abs().max() < 1e-3, "orthogonal"
    assert energy[0] / energy.sum() < 0.95
    volumes = [
        trimesh.Trimesh(body, model.faces.numpy(), process=False).volume
        for body in model.shape(torch.cat([torch.eye(10), -torch.eye(10)])).numpy()
    ]
    assert all(plus > minus for plus, minus in zip(volumes[:10], volumes[10:])), "positive betas add volume"


# ---- shape and pose ----------------------------------------------------------------------------------------------


def test_shape_is_linear_in_the_betas(model):
    betas = torch.from_numpy(sample_betas(3, seed=5))
    by_hand = model.v_template + torch.einsum("vik,bk->bvi", model.shapedirs, betas)
    torch.testing.assert_close(model.shape(betas), by_hand, rtol=0, atol=1e-6)
    assert torch.equal(model.shape(torch.zeros(1, 10))[0], model.v_template)
    betas.requires_grad_()
    model.shape(betas).square().sum().backward()
    assert betas.grad is not None and betas.grad.abs().min() > 0


def test_zero_pose_is_the_shape(model):
    betas = torch.from_numpy(sample_betas(2, seed=6))
    vertices, joints = model.pose(betas, torch.zeros(2, 72))
    torch.testing.assert_close(vertices, model.shape(betas), rtol=0, atol=1e-5)
    torch.testing.assert_close(joints, model.joints(model.shape(betas)), rtol=0, atol=1e-5)
    assert joints.shape == (2, 24, 3)


def test_posing_agrees_with_skinning_by_the_book(model):
    betas = torch.from_numpy(sample_betas(2, seed=7))
    poses = 0.6 * torch.randn(2, 72, generator=torch.Generator().manual_seed(0))
    vertices, joints = model.pose(betas, poses)
    for row in range(2):
        shaped = model.shape(betas)[row].double().numpy()
        expected = pose_body(
            shaped,
            model.J_regressor.double().numpy() @ shaped,
            model.parents.tolist(),
            model.weights.double().numpy(),
            poses[row].double().numpy().reshape(24, 3),
        )
        np.testing.assert_allclose(vertices[row].numpy(), expected[0], atol=2e-5)
        np.testing.assert_allclose(joints[row].numpy(), expected[1], atol=2e-5)


def test_posing_agrees_with_smplx(model):
    """`pose` against smplx called as its own users call it."""
    betas = torch.from_numpy(sample_betas(2, seed=8))
    poses = 0.4 * torch.randn(2, 72, generator=torch.Generator().manual_seed(1))
    output = to_smplx(arrays_of(model), torch.float32)(betas=betas, global_orient=poses[:, :3], body_pose=poses[:, 3:])
    vertices, joints = model.pose(betas, poses)
    torch.testing.assert_close(vertices, output.vertices, rtol=0, atol=2e-6)
    torch.testing.assert_close(joints, output.joints[:, :24], rtol=0, atol=2e-6)


def test_wrong_shapes_are_a_message(model):
    with pytest.raises(ClearError, match=r"\[B, 10\], not \[2, 9\]"):
        model.shape(torch.zeros(2, 9))
    with pytest.raises(ClearError, match=r"\[B, 72\]"):
        model.pose(torch.zeros(2, 10), torch.zeros(2, 69))
    with pytest.raises(ClearError, match="As many poses as bodies"):
        model.pose(torch.zeros(2, 10), torch.zeros(3, 72))


def test_fewer_betas_are_the_first_ones():
    few, all_ten = load_body_model(num_betas=4), load_body_model()
    assert torch.equal(few.shapedirs, all_ten.shapedirs[:, :, :4])
    with pytest.raises(ClearError, match="at least 11 shape components"):
        load_body_model(num_betas=11)
    with pytest.raises(ClearError, match="Unknown gender 'Male'"):
        load_body_model(gender="Male")


def test_nothing_but_numpy_and_torch_is_needed_at_run_time():
    """With the builder's packages and fast-reid out of reach the bodies still load, take shape and are posed."""
    root = Path(__file__).resolve().parents[2]
    code = f"""
import sys, types
BLOCKED = {{"anny", "fast_simplification", "roma", "smplx", "trimesh", "scipy", "fastreid", "pytorch3d"}}
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError("blocked " + name)
sys.meta_path.insert(0, Block())
package = types.ModuleType("fastreid_clip3d")  # the package without its own start, which imports fast-reid
package.__path__ = [{str(root / "fastreid_clip3d")!r}]
sys.modules["fastreid_clip3d"] = package
import torch
from fastreid_clip3d.body import load_body_model
for gender in ("female", "male", "neutral"):
    model = load_body_model(gender=gender)
    vertices, joints = model.pose(torch.zeros(1, 10), torch.zeros(1, 72))
    assert vertices.shape[1] == model.v_template.shape[0]
print("loaded")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip().endswith("loaded"), done.stderr


# ---- users' files ------------------------------------------------------------------------------------------------


def assert_same_model(model, fields, betas=10):
    np.testing.assert_allclose(model.v_template.numpy(), fields["v_template"], atol=1e-6)
    np.testing.assert_allclose(model.shapedirs.numpy(), fields["shapedirs"][:, :, :betas], atol=1e-6)
    np.testing.assert_allclose(model.J_regressor.numpy(), fields["J_regressor"], atol=1e-6)
    np.testing.assert_allclose(model.weights.numpy(), fields["weights"], atol=1e-6)
    np.testing.assert_array_equal(model.faces.numpy(), fields["f"])
    assert model.parents.tolist() == [-1, *fields["kintree_table"][0, 1:].tolist()]


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_official_pickle(tmp_path, protocol):
    fields = smpl_fields()
    (tmp_path / "SMPL_FEMALE.pkl").write_bytes(dumps(official(fields), protocol))
    for path in (tmp_path, tmp_path / "SMPL_FEMALE.pkl", str(tmp_path)):
        model = load_body_model(path, gender="female")
        assert_same_model(model, fields)
        assert model.gender == "female"
        assert model.posedirs.shape == (60, 3, 207)
    vertices, joints = model.pose(torch.zeros(1, 10), 0.3 * torch.ones(1, 72))
    assert vertices.shape == (1, 60, 3) and joints.shape == (1, 24, 3)


def test_pose_blend_shapes_of_a_file_are_used(tmp_path):
    fields = smpl_fields()
    np.savez(tmp_path / "with.npz", **fields)
    np.savez(tmp_path / "without.npz", **{k: v for k, v in fields.items() if k != "posedirs"})
    poses = 0.3 * torch.ones(1, 72)
    posed = [load_body_model(tmp_path / f"{n}.npz").pose(torch.zeros(1, 10), poses)[0] for n in ("with", "without")]
    assert (posed[0] - posed[1]).abs().max() > 1e-3


@pytest.mark.parametrize("gender", GENDERS)
def test_folder_with_any_usual_name(tmp_path, gender):
    fields = smpl_fields()
    for name in candidates(gender):
        folder = tmp_path / name.replace(".", "_").replace("/", "_")
        target = folder / name
        target.parent.mkdir(parents=True)
        if name.endswith(".npz"):
            np.savez(target, **fields)
        else:
            target.write_bytes(dumps(official(fields), 2))
        assert_same_model(load_body_model(folder, gender=gender), fields)


SMPL_1_1 = "smpl/models/basicmodel_{f,m,neutral}_lbs_10_207_0_v1.1.0.pkl"
ARCHIVES = {
    "SMPL_python_v.1.1.0": [f"SMPL_python_v.1.1.0/{SMPL_1_1}"],
    # Its file of the male model is written with a small m, and SMPLify brings the neutral one.
    "SMPL_python_v.1.0.0": [
        "smpl/models/basicModel_{f}_lbs_10_207_0_v1.0.0.pkl",
        "smpl/models/basicmodel_{,m}_lbs_10_207_0_v1.0.0.pkl",
        "smplify_public/code/models/basicModel_{,,neutral}_lbs_10_207_0_v1.0.0.pkl",
    ],
    "mano_v1_2": ["mano_v1_2/models/SMPLH_{FEMALE,MALE}.pkl"],
    "smplh for AMASS": ["smplh/{female,male,neutral}/model.npz"],
    "smplh": ["smplh/SMPLH_{FEMALE,MALE,NEUTRAL}.npz"],
    "models_smplx_v1_1": ["models/smplx/SMPLX_{FEMALE,MALE,NEUTRAL}.npz"],
}


@pytest.mark.parametrize("archive", ARCHIVES)
def test_official_archives_as_unpacked(tmp_path, archive):
    """From each folder between the one where the archive was unpacked and the one that holds the files."""
    for pattern in ARCHIVES[archive]:
        start, words, end = re.fullmatch(r"(.*)\{(.*)\}(.*)", pattern).groups()
        for gender, word in zip(GENDERS, words.split(",")):
            if not word:
                continue
            fields = smpl_fields(seed=GENDERS.index(gender), joints=24)
            file = tmp_path / f"{start}{word}{end}"
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".npz":
                np.savez(file, **fields)
            else:
                file.write_bytes(dumps(official(fields), 2))
            levels = pattern[: pattern.index("{")].split("/")[:-1]
            for depth in range(len(levels) + 1):
                folder = tmp_path.joinpath(*levels[:depth])
                assert_same_model(load_body_model(folder, gender=gender), fields)


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("SMPLH_FEMALE.npz", "female"),
        ("SMPLX_MALE.pkl", "male"),
        ("SMPL_NEUTRAL.npz", "neutral"),
        ("basicModel_f_lbs_10_207_0_v1.0.0.pkl", "female"),
        ("smplx_locked_head-male.npz", "male"),
        ("female/model.npz", "female"),
    ],
)
def test_a_file_of_another_gender_is_refused(tmp_path, name, wanted):
    path, fields = tmp_path / name, smpl_fields()
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **fields)
    else:
        path.write_bytes(dumps(official(fields), 2))
    for gender in GENDERS:
        if gender == wanted:
            assert_same_model(load_body_model(path, gender=gender), fields)
        else:
            with pytest.raises(ClearError, match=f"is by its name a {wanted} model, but a {gender} one"):
                load_body_model(path, gender=gender)


@pytest.mark.parametrize("stated", ["female", "Female", "f", b"female"])
@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_a_file_that_states_another_gender_is_refused(tmp_path, stated, suffix):
    path, fields = tmp_path / f"mine{suffix}", smpl_fields()
    if suffix == ".npz":
        np.savez(path, **fields, gender=stated)
    else:
        path.write_bytes(dumps(dict(official(fields), gender=stated), 2))
    assert_same_model(load_body_model(path, gender="female"), fields)
    with pytest.raises(ClearError, match="is by its field 'gender' a female model, but a male one"):
        load_body_model(path, gender="male")


@pytest.mark.parametrize("stated", [None, "", "adult", np.array([1, 2])])
def test_a_field_that_states_no_gender_is_left_alone(tmp_path, stated):
    fields = smpl_fields()
    np.savez(tmp_path / "mine.npz", **fields, gender=stated)
    (tmp_path / "mine.pkl").write_bytes(dumps(dict(official(fields), gender=stated), 2))
    for name in ("mine.npz", "mine.pkl"):
        assert_same_model(load_body_model(tmp_path / name, gender="male"), fields)


@pytest.mark.parametrize("name", ["STAR_MALE.npz", "male/model.npz", "male.npz"])
def test_star_is_named(tmp_path, name):
    """STAR's pose blend shapes follow 23 quaternions and one shape coefficient: 93 components."""
    path, fields = tmp_path / name, smpl_fields()
    path.parent.mkdir(exist_ok=True)
    fields["posedirs"] = fields["posedirs"][:, :, :93]
    del fields["f"]
    np.savez(path, **fields)
    for given in [path] if name == "male.npz" else [path, tmp_path]:
        with pytest.raises(ClearError, match=f"{name}' is a STAR model. STAR is not supported"):
            load_body_model(given, gender="male")


@pytest.mark.parametrize("components, shapes", [(400, 300), (399, 10), (20, 10), (16, 10), (10, 10), (9, 9)])
def test_expressions_of_smplx_are_not_taken_for_shapes(tmp_path, components, shapes):
    """SMPL-X files hold 300 shape and 100 expression components (v1.1), or 10 and 10 (v1.0)."""
    fields = smpl_fields(betas=components, joints=55)
    np.savez(tmp_path / "SMPLX_MALE.npz", **fields)
    model = load_body_model(tmp_path, gender="male", num_betas=shapes)
    np.testing.assert_allclose(model.shapedirs.numpy(), fields["shapedirs"][:, :, :shapes], atol=1e-6)
    with pytest.raises(
        ClearError, match=f"given {shapes}.*Give a body model with more; .*NUM_BETAS to at most {shapes}"
    ) as caught:
        load_body_model(tmp_path, gender="male", num_betas=shapes + 1)
    expressions = f"the other {components - shapes} of its {components} components are expressions"
    assert (expressions in str(caught.value)) == (components > shapes)


@pytest.mark.parametrize("joints", [24, 52])
def test_all_components_of_smpl_and_smplh_are_shapes(tmp_path, joints):
    fields = smpl_fields(betas=16, joints=joints)
    np.savez(tmp_path / "mine.npz", **fields)
    assert load_body_model(tmp_path / "mine.npz", num_betas=16).num_betas == 16
    with pytest.raises(ClearError, match="given 16. Give a body model with more"):
        load_body_model(tmp_path / "mine.npz", num_betas=17)


@pytest.mark.parametrize("joints", [52, 55])
def test_larger_skeletons_fold_into_smpls(tmp_path, joints):
    """SMPL-H and SMPL-X, shape only: other vertices and faces, more joints, expression components behind the betas."""
    fields = smpl_fields(vertices=80, betas=400, joints=joints)
    np.savez(tmp_path / "SMPLX_MALE.npz", **fields, joint2num=np.array({"x": 1}, dtype=object))
    model = load_body_model(tmp_path, gender="male")
    assert model.shapedirs.shape == (80, 3, 10) and model.posedirs.shape[2] == 0
    np.testing.assert_allclose(model.shapedirs.numpy(), fields["shapedirs"][:, :, :10], atol=1e-6)
    np.testing.assert_allclose(model.J_regressor[:22].numpy(), fields["J_regressor"][:22], atol=1e-6)
    torch.testing.assert_close(model.weights.sum(1), torch.ones(80))
    assert model.parents.tolist()[-2:] == [20, 21]
    vertices, found = model.pose(torch.zeros(1, 10), torch.zeros(1, 72))
    assert vertices.shape == (1, 80, 3) and found.shape == (1, 24, 3)


def test_missing_licensed_files_are_explained(tmp_path):
    np.savez(tmp_path / "SMPL_MALE.npz", **smpl_fields())
    with pytest.raises(ClearError) as caught:
        load_body_model(tmp_path, gender="female")
    message = str(caught.value)
    assert "SMPL_FEMALE.pkl" in message and "basicmodel_f_lbs_10_207_0_v1.1.0.pkl" in message
    assert "found SMPL_MALE.npz" in message and "smpl.is.tue.mpg.de" in message and str(tmp_path) in message
    with pytest.raises(ClearError, match="no such file or folder.*smpl.is.tue.mpg.de"):
        load_body_model(tmp_path / "absent")
    with pytest.raises(ClearError, match="is by its name a male model, but a female one"):
        load_body_model(tmp_path / "SMPL_MALE.npz", gender="female")
    (tmp_path / "body.obj").write_text("v 0 0 0")
    with pytest.raises(ClearError, match="ends in .npz or .pkl"):
        load_body_model(tmp_path / "body.obj")


def changed(**changes):
    def change(fields):
        for name, value in changes.items():
            fields[name] = value(fields[name].copy())
        return fields

    return change


def put(array, index, value):
    array[index] = value
    return array


@pytest.mark.parametrize(
    "change, wanted",
    [
        (lambda f: {k: v for k, v in f.items() if k != "shapedirs"}, "field 'shapedirs': wanted to be present"),
        (changed(v_template=lambda a: a[:, :2]), r"'v_template': wanted shape [V, 3], given shape [60, 2]"),
        (changed(v_template=lambda a: a[:0]), "'v_template': wanted shape"),
        (changed(v_template=lambda a: 100 * a), "170: it looks like centimetres"),
        (changed(v_template=lambda a: 1000 * a), "1700: it looks like millimetres"),
        (changed(v_template=lambda a: a / 0.0254), "it looks like inches"),
        (changed(v_template=lambda a: a[:, [0, 2, 1]]), "the body seems to lie"),
        (
            changed(v_template=lambda a: put(a, (3, 1), np.nan)),
            "'v_template': wanted finite numbers, given nan at [3, 1]",
        ),
        (changed(v_template=lambda a: a.astype("S8")), "'v_template': wanted numbers"),
        (changed(shapedirs=lambda a: a[:50]), "'shapedirs': wanted shape [60, 3, K], given shape [50, 3, 12]"),
        (changed(shapedirs=lambda a: a[:, :, :9]), "at least 10 shape components (num_betas), given 9"),
        (changed(shapedirs=lambda a: put(a, (0, 0, 0), np.inf)), "'shapedirs': wanted finite numbers"),
        (changed(weights=lambda a: a[:, :20]), "24 joints (SMPL), 52 (SMPL-H) or 55 (SMPL-X), given 20"),
        (
            changed(weights=lambda a: put(a, 7, 0.5 * a[7])),
            "'weights': wanted rows that sum to 1, given a sum of 0.5 at vertex 7",
        ),
        (
            changed(weights=lambda a: put(a, (5, 2), -0.1)),
            "'weights': wanted no negative weight, given -0.1 at vertex 5",
        ),
        (changed(J_regressor=lambda a: a[:, :59]), "'J_regressor': wanted shape [24, 60]"),
        (changed(J_regressor=lambda a: put(a, 4, 2 * a[4])), "rows that sum to 1, given a sum of 2 for joint 4"),
        (
            changed(f=lambda a: put(a, (0, 1), 60)),
            "'f': wanted vertex numbers from 0 to 59, given numbers from 0 to 60",
        ),
        (changed(f=lambda a: put(a.astype(np.int64), (0, 0), -1)), "given numbers from -1"),
        (
            changed(f=lambda a: a.astype(np.float32)),
            "'f': wanted numbers of shape [F, 3], given an array of type float32",
        ),
        (changed(kintree_table=lambda a: put(a, (0, 0), 3)), "the root first"),
        (
            changed(kintree_table=lambda a: put(a, (0, 4), 7)),
            "a parent that comes before it, given parent 7 for joint 4",
        ),
        (changed(kintree_table=lambda a: put(a, (0, 4), 4)), "given parent 4 for joint 4"),
        (changed(kintree_table=lambda a: put(a, (0, 4), -1)), "given parent -1 for joint 4"),
        (changed(posedirs=lambda a: a[:, :, :50]), "'posedirs': wanted shape [60, 3, 207]"),
    ],
)
def test_every_field_is_checked(tmp_path, change, wanted):
    path = tmp_path / "mine.npz"
    np.savez(path, **change(smpl_fields()))
    with pytest.raises(ClearError) as caught:
        load_body_model(path)
    assert wanted in str(caught.value)
    assert "mine.npz" in str(caught.value) and "given" in str(caught.value)


def test_root_parent_may_be_minus_one(tmp_path):
    fields = smpl_fields()
    fields["kintree_table"][0, 0] = -1
    np.savez(tmp_path / "m.npz", **fields)
    assert load_body_model(tmp_path / "m.npz").parents[0] == -1
    fields["kintree_table"] = fields["kintree_table"].astype(np.uint32)
    np.savez(tmp_path / "m.npz", **fields)
    assert load_body_model(tmp_path / "m.npz").parents[0] == -1
