"""What a survey of adults measured, and the same measurements on our bodies.

The survey is ANSUR II: 4,082 men and 1,986 women of the US Army, measured from 2010 to 2012 (Gordon et al. 2014, 2012
Anthropometric Survey of U.S. Army Personnel: Methods and Summary Statistics, NATICK/TR-15/007; approved for public
release, distribution unlimited). ``ansur2.json`` holds its summary statistics. :func:`write_statistics` makes that file
from the published tables of single people, which are not in the repository.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fastreid_clip3d.body.constants import ARM_JOINTS, JOINTS, LEG_JOINTS, NUM_JOINTS
from fastreid_clip3d.body.measurements import mesh_volume, part_edges, slice_hull_perimeters
from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.errors import ClearError

STATISTICS = Path(__file__).with_name("ansur2.json")
SEXES = ("female", "male")

DENSITY = 985.0
"""Mass of a living body per volume enclosed by its skin, in kg/m3, with air in the lungs."""

COLUMNS = {
    "stature": "stature",
    "mass_root": "weightkg",
    "chest_girth": "chestcircumference",
    "waist_girth": "waistcircumference",
    "hip_girth": "buttockcircumference",
    "thigh_girth": "thighcircumference",
    "upper_arm_girth": "bicepscircumferenceflexed",
    "biacromial_breadth": "biacromialbreadth",
    "calf_girth": "calfcircumference",
    "upper_arm_length": "acromionradialelength",
    "forearm_length": "radialestylionlength",
    "hip_height": "trochanterionheight",
    "knee_height": "kneeheightmidpatella",
    "neck_height": "cervicaleheight",
}
"""Our measurements (mm) and ANSUR II's columns. ``mass_root`` is 100 times the cube root of the mass, in kg^(1/3).
Unlike the mass it is nearly linear in a body's coordinates, and its symmetric spread gives the mass its skew."""

LENGTHS = ("upper_arm_length", "forearm_length", "hip_height", "knee_height", "neck_height")
"""The survey measures them between landmarks of the skin, we measure between joints. So we take only deviations and
correlations from the survey; the means keep their share of stature."""

RELAXED_ARM = {"female": 24.0 / 25.9, "male": 25.6 / 28.6}
"""The survey flexes the biceps, our bodies do not. Ratio of relaxed to flexed girth of Chinese women and men of 18
to 25 years (national survey of 1979)."""

ACROMION_OFFSET = 11.0
"""Millimetres by which the breadth between the acromia exceeds that between the shoulder joints of our T-pose. Each
acromion lies about 10 mm outside its joint, and raising the arms moves the joints apart by 9 mm."""

HEIGHTS = {
    "female": {"chest": 0.7194, "waist": 0.6017, "hip": 0.5118, "thigh": 0.46},
    "male": {"chest": 0.7351, "waist": 0.6014, "hip": 0.5054, "thigh": 0.46},
}
"""Where the tape runs, as a share of stature: the survey's mean heights of nipples, navel and buttocks; the thigh is
measured just below the crotch (0.48)."""


@dataclass(frozen=True)
class Statistics:
    """Summary of one sex; the arrays follow the order of `COLUMNS`."""

    count: int
    mean: np.ndarray
    deviation: np.ndarray
    correlation: np.ndarray
    least: np.ndarray
    most: np.ndarray
    bmi: Mapping[str, float]  # mean, deviation, skew, least, most

    @property
    def covariance(self) -> np.ndarray:
        return self.correlation * np.outer(self.deviation, self.deviation)


def read_statistics(path: Path = STATISTICS) -> dict[str, Statistics]:
    """The survey's summary by sex."""
    arrays = ("mean", "deviation", "correlation", "least", "most")
    with path.open(encoding="utf-8") as file:
        content = json.load(file)
    return {sex: Statistics(**{k: np.array(v) if k in arrays else v for k, v in content[sex].items()}) for sex in SEXES}


def summarise(folder: Path) -> dict[str, dict]:
    """The content of ``ansur2.json`` from ANSUR_II_FEMALE_Public.csv and ANSUR_II_MALE_Public.csv in `folder`."""
    content: dict[str, dict] = {}
    for sex in SEXES:
        path = folder / f"ANSUR_II_{sex.upper()}_Public.csv"
        if not path.is_file():
            raise ClearError(f"'{path}' does not exist. Download ANSUR II's public tables into '{folder}'.")
        table = pd.read_csv(path, encoding="latin-1").rename(columns=str.lower)
        people = pd.DataFrame({name: table[column].astype(float) for name, column in COLUMNS.items()})
        people["mass_root"] = 100.0 * np.cbrt(people["mass_root"] / 10.0)  # the column holds tenths of a kilogram
        people["upper_arm_girth"] *= RELAXED_ARM[sex]
        bmi = body_mass_index(people["mass_root"], people["stature"])
        content[sex] = {
            "count": len(people),
            "mean": people.mean().round(3).tolist(),
            "deviation": people.std().round(3).tolist(),
            "correlation": people.corr().round(4).to_numpy().tolist(),
            "least": people.min().round(2).tolist(),
            "most": people.max().round(2).tolist(),
            "bmi": summarise_bmi(bmi),
        }
    return content


def write_statistics(folder: Path, path: Path = STATISTICS) -> None:
    """Writes :func:`summarise` of the tables in `folder` to `path`, one line for each list of numbers."""
    text = json.dumps(summarise(folder), indent=1)
    lists = re.sub(r"\[[^\[\]]*\]", lambda found: f"[{' '.join(found[0][1:-1].split())}]", text)
    write_atomically(path, f"{lists}\n".encode())


def body_mass_index(mass_root: pd.Series, stature: pd.Series) -> pd.Series:
    """kg/m2 from `mass_root` (see `COLUMNS`) and stature in mm."""
    return (mass_root / 100.0) ** 3 / (stature / 1000.0) ** 2


def summarise_bmi(bmi: pd.Series) -> dict[str, float]:
    """Mean, deviation, skew, least and most of body-mass indices, in kg/m2 but for the skew."""
    found = {"mean": bmi.mean(), "deviation": bmi.std(), "skew": bmi.skew(), "least": bmi.min(), "most": bmi.max()}
    return {name: round(float(value), 1 if name in ("least", "most") else 2) for name, value in found.items()}


def measure_as_survey(
    vertices: np.ndarray | Tensor, joints: np.ndarray | Tensor, faces: Tensor, weights: Tensor, sex: str
) -> pd.DataFrame:
    """Measures T-posed bodies where the survey measured people: one row per body, the columns of `COLUMNS`.

    Args:
        vertices: [B, V, 3] metres, y up.
        joints: [B, 24, 3].
        faces: [F, 3] int64.
        weights: [V, 24] skinning weights.
        sex: "female" or "male".
    """
    vertices, joints = torch.as_tensor(vertices).float(), torch.as_tensor(joints).float()
    trunk = part_edges(faces, weights, [j for j in range(NUM_JOINTS) if j not in ARM_JOINTS])
    floor = vertices[..., 1].amin(dim=1)
    stature = vertices[..., 1].amax(dim=1) - floor
    up = torch.tensor([0.0, 1.0, 0.0]).expand(len(vertices), 3)

    def joint(name: str) -> Tensor:
        return joints[:, JOINTS[name]]

    def both(measure_side: Callable[[str, int], Tensor]) -> Tensor:
        return (measure_side("left_", 0) + measure_side("right_", 1)) / 2

    def girth(edges: Tensor, place: str) -> Tensor:
        points = (floor + HEIGHTS[sex][place] * stature)[:, None, None] * up[:, None]
        return slice_hull_perimeters(vertices, edges, points, up)[:, 0]

    def limb_girth(limb: tuple[int, ...], upper: str, lower: str, share: float) -> Tensor:
        def side(name: str, place: int) -> Tensor:
            edges = part_edges(faces, weights, limb[place::2])
            bone = joint(name + lower) - joint(name + upper)
            points = joint(name + upper)[:, None] + share * bone[:, None]
            return slice_hull_perimeters(vertices, edges, points, bone)[:, 0]

        return both(side)

    def length(upper: str, lower: str) -> Tensor:
        return both(lambda side, _: (joint(side + upper) - joint(side + lower)).norm(dim=1))

    def height(name: str) -> Tensor:
        return both(lambda side, _: joint(side + name)[:, 1]) - floor

    metres = {
        "stature": stature,
        "chest_girth": girth(trunk, "chest"),
        "waist_girth": girth(trunk, "waist"),
        "hip_girth": girth(trunk, "hip"),
        "thigh_girth": both(lambda _, place: girth(part_edges(faces, weights, LEG_JOINTS[place::2]), "thigh")),
        "upper_arm_girth": limb_girth(ARM_JOINTS, "shoulder", "elbow", 0.5),
        "biacromial_breadth": (joint("left_shoulder") - joint("right_shoulder")).norm(dim=1) + ACROMION_OFFSET / 1000,
        "calf_girth": limb_girth(LEG_JOINTS, "knee", "ankle", 0.3),
        "upper_arm_length": length("shoulder", "elbow"),
        "forearm_length": length("elbow", "wrist"),
        "hip_height": height("hip"),
        "knee_height": height("knee"),
        "neck_height": joint("neck")[:, 1] - floor,
    }
    millimetres = {name: 1000.0 * values.double().numpy() for name, values in metres.items()}
    mass = DENSITY * mesh_volume(vertices, faces).double().numpy()
    millimetres["mass_root"] = 100.0 * np.cbrt(mass)
    return pd.DataFrame(millimetres)[list(COLUMNS)]
