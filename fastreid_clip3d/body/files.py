"""Finds a body model's file and reads its arrays: the embedded file, a folder of SMPL's files, one .npz or .pkl."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastreid_clip3d.body.archives import read_npz
from fastreid_clip3d.body.compact import GENDERS, unpack
from fastreid_clip3d.body.schema import OPTIONAL, REQUIRED
from fastreid_clip3d.body.unpickle import read_pickle
from fastreid_clip3d.errors import ClearError

EMBEDDED = Path(__file__).parent / "assets" / "body_models.npz"

WHERE_TO_GET = (
    "SMPL models are licensed: register at https://smpl.is.tue.mpg.de (SMPL-X: https://smpl-x.is.tue.mpg.de), "
    "download them, and give their folder; or leave the path empty for the embedded model."
)

_STEMS = (
    "SMPL_{upper}",
    "SMPLX_{upper}",
    "basicmodel_{letter}_lbs_10_207_0_v1.1.0",
    "basicModel_{letter}_lbs_10_207_0_v1.0.0",
)
_SUFFIXES = (".npz", ".pkl")


def read_fields(path: str | Path, gender: str) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of the model at `path` by SMPL's field names, and the file's name for messages; "" is the embedded."""
    if gender not in GENDERS:
        raise ClearError(f"Unknown gender '{gender}': choose one of {', '.join(GENDERS)}.")
    if str(path) == "":
        return unpack(read_npz(EMBEDDED), gender), str(EMBEDDED)
    path = Path(path).expanduser()
    file = _find_in(path, gender) if path.is_dir() else path
    if not file.is_file():
        raise ClearError(f"No body model at '{path}': no such file or folder. {WHERE_TO_GET}")
    told = _gender_in_name(file)
    if told is not None and told != gender:
        raise ClearError(
            f"'{file}' is by its name a {told} model, but a {gender} one is wanted. Give the folder that holds one file for "
            "each sex, or the right file."
        )
    if file.suffix.lower() == ".npz":
        arrays = read_npz(file, names=REQUIRED + OPTIONAL)
    elif file.suffix.lower() == ".pkl":
        arrays = read_pickle(file, names=REQUIRED + OPTIONAL)
    else:
        raise ClearError(f"'{file}' is no body model: wanted a file that ends in .npz or .pkl. {WHERE_TO_GET}")
    return arrays, f"'{file}'"


def candidates(gender: str) -> list[str]:
    """File names under which one sex is known, in the order in which they are tried."""
    letter = {"female": "f", "male": "m", "neutral": "neutral"}[gender]
    return [stem.format(upper=gender.upper(), letter=letter) + suffix for stem in _STEMS for suffix in _SUFFIXES]


def _find_in(folder: Path, gender: str) -> Path:
    """The first candidate in `folder`, or in its sub-folder smpl/ or smplx/; names compare without case."""
    for place in (folder, folder / "smpl", folder / "smplx", folder / "models"):
        if not place.is_dir():
            continue
        present = {file.name.lower(): file for file in sorted(place.iterdir())}
        for name in candidates(gender):
            if name.lower() in present:
                return present[name.lower()]
    models = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)[:10]
    raise ClearError(
        f"No {gender} body model in '{folder}': looked for {', '.join(candidates(gender))} (upper or lower case); "
        f"found {', '.join(models) or 'no .npz or .pkl file'}. {WHERE_TO_GET}"
    )


def _gender_in_name(file: Path) -> str | None:
    """The sex that a file's name tells, if it is one of the usual names."""
    for gender in GENDERS:
        if file.name.lower() in map(str.lower, candidates(gender)):
            return gender
    return None
