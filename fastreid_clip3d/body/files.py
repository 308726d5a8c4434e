"""Finds a body model's file and reads its arrays: the embedded file, a folder of SMPL's files, one .npz or .pkl."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import numpy as np

from fastreid_clip3d.body.archives import read_npz
from fastreid_clip3d.body.compact import unpack
from fastreid_clip3d.body.constants import MODEL_GENDERS
from fastreid_clip3d.body.schema import OPTIONAL, REQUIRED, star_error
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
    "SMPLH_{upper}",
    "basicmodel_{letter}_lbs_10_207_0_v1.1.0",
    "basicModel_{letter}_lbs_10_207_0_v1.0.0",
    "{gender}/model",  # SMPL-H as AMASS gives it
)
# Where the archives of SMPL, SMPLify, SMPL-H and SMPL-X keep these files, seen from any of their folders.
_FOLDERS = (
    ".", "smpl", "smplx", "smplh", "models", "smpl/models", "models/smplx", "code/models", "mano_v1_2/models",
    "smplify_public/code/models", "SMPL_python_v.1.1.0/smpl/models", "SMPL_python_v.1.0.0/smpl/models",
)  # fmt: skip
_LETTERS = {"female": "f", "male": "m", "neutral": "neutral"}
_SUFFIXES = (".npz", ".pkl")


def read_fields(path: str | Path, gender: str) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of the model at `path` by SMPL's field names, and the file's name for messages; "" is the embedded."""
    if gender not in MODEL_GENDERS:
        raise ClearError(f"Unknown gender '{gender}': choose one of {', '.join(MODEL_GENDERS)}.")
    if str(path) == "":
        return unpack(read_npz(EMBEDDED), gender), str(EMBEDDED)
    path = Path(path).expanduser()
    file = _find_in(path, gender) if path.is_dir() else path
    if not file.is_file():
        raise ClearError(f"No body model at '{path}': no such file or folder. {WHERE_TO_GET}")
    if file.name.lower().startswith("star_"):
        raise star_error(f"'{file}'")
    arrays = _read(file)
    by_field = _gender_of_text(arrays.pop("gender", None))
    for stated, where in ((_gender_in_name(file), "name"), (by_field, "field 'gender'")):
        if stated not in (None, gender):
            raise ClearError(
                f"'{file}' is by its {where} a {stated} model, but a {gender} one is wanted. Give the {gender} file, "
                "or a folder with one file per sex."
            )
    return arrays, f"'{file}'"


def candidates(gender: str) -> list[str]:
    """File names under which one sex is known, in the order in which they are tried."""
    words = {"gender": gender, "upper": gender.upper(), "letter": _LETTERS[gender]}
    return [stem.format(**words) + suffix for stem in _STEMS for suffix in _SUFFIXES]


def _read(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a body model, and its field `gender` where that is a text."""
    suffix = file.suffix.lower()
    if suffix == ".pkl":
        return read_pickle(file, names=(*REQUIRED, *OPTIONAL, "gender"))
    if suffix != ".npz":
        raise ClearError(f"'{file}' is no body model: wanted a file that ends in .npz or .pkl. {WHERE_TO_GET}")
    arrays = read_npz(file, names=REQUIRED + OPTIONAL)
    with contextlib.suppress(ClearError):  # a Python object in place of a text states no gender
        arrays |= read_npz(file, names=["gender"])
    return arrays


def _find_in(folder: Path, gender: str) -> Path:
    """The first candidate in `folder` or in the sub-folders of an unpacked archive; names compare without case."""
    seen: list[str] = []
    for place in _FOLDERS:
        inside: Path | None = folder
        for part in Path(place).parts:
            inside = _listing(inside).get(part.lower())
        present = _listing(inside)
        present |= {f"{gender}/{name}": file for name, file in _listing(present.get(gender)).items()}
        for name in candidates(gender):
            if name.lower() in present:
                return present[name.lower()]
        seen += [str(file.relative_to(folder)) for file in present.values() if file.suffix.lower() in _SUFFIXES]
    for name in seen:
        if Path(name).name.lower().startswith("star_"):
            raise star_error(f"'{folder / name}'")
    found = ", ".join(seen[:10]) or "no .npz or .pkl file"
    raise ClearError(
        f"No {gender} body model in '{folder}': looked for {', '.join(candidates(gender))} (upper or lower case), "
        f"also in the folders of SMPL's archives; found {found}. {WHERE_TO_GET}"
    )


def _listing(folder: Path | None) -> dict[str, Path]:
    """What is in `folder`, by name in lower case; nothing if it is no folder."""
    if folder is None or not folder.is_dir():
        return {}
    return {file.name.lower(): file for file in sorted(folder.iterdir())}


def _gender_in_name(file: Path) -> str | None:
    """The gender that the name of a file states, or that of its folder for model.npz; None where it states none."""
    stem = file.absolute().parent.name if file.stem.lower() == "model" else file.stem
    words = re.split("[^a-z]+", stem.lower())
    stated = [
        gender for gender in MODEL_GENDERS if gender in words or ("basicmodel" in words and _LETTERS[gender] in words)
    ]
    return stated[0] if len(stated) == 1 else None


def _gender_of_text(value: np.ndarray | None) -> str | None:
    """The gender that a file's field `gender` states: a word or its first letter; None for anything else."""
    if value is None or value.size != 1 or value.dtype.kind not in "US":
        return None
    text = value.astype(str).item().lower()
    return next((gender for gender in MODEL_GENDERS if text in (gender, gender[0])), None)
