"""Writes a run as a folder for the Hugging Face hub: weights, config, calibration and a model card."""

from __future__ import annotations

import os
import re
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastreid.config import CfgNode
from safetensors.torch import save_file
from torch import Tensor

from fastreid_clip3d.common.files import check_writable_folder, replacing, write_atomically
from fastreid_clip3d.common.names import printable
from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.calibration import FILE_NAME, read_calibration
from fastreid_clip3d.inference.export import check_name
from fastreid_clip3d.inference.hub import FILES
from fastreid_clip3d.inference.model import TorchModel, find_run_files, load_torch_model
from fastreid_clip3d.modeling.weights import HUB_WEIGHTS, is_classifier, read_weights, with_current_names

_METRICS = ("mAP", "Rank-1", "Rank-5", "mINP")
_PATH = re.compile(r"([^/~]*[:=])?((?:/|~|\.\.?/).*)", re.DOTALL)
"""A path of this machine, bare or behind words such as ``local-dir:`` and ``TAG=``."""
_OF_TRAINING_PEOPLE = ("clothes_loss.",)


class Score(NamedTuple):
    """The scores of one run by one protocol: percent by metric, and the run's ``SEED`` (-1: not fixed)."""

    seed: int
    dataset: str
    protocol: str
    values: dict[str, float]


def write_folder(
    run: str | Path, folder: str | Path, repository: str, scores: Sequence[Score], licence: str, allow_imports: bool
) -> TorchModel:
    """Writes the folder, loads it, and returns the loaded model.

    The weights are the checkpoint's without the classifiers, whose rows stand for the people of the training set.

    Args:
        run: run folder or checkpoint. repository: ``owner/name``, for the card. scores: of this run and of its other
            seeds. licence: the hub's name of a licence, for instance ``apache-2.0``; "": not stated.

    Raises:
        ClearError: the run cannot be loaded, the folder cannot be written or has other contents, or what was written is
            another model.
    """
    folder = check_name(check_writable_folder(folder, "--local"))
    _check_contents(folder)
    model = load_torch_model(run, "cpu", allow_imports)
    checkpoint, config = find_run_files(run)
    if os.path.realpath(folder) == os.path.realpath(checkpoint.parent):
        raise ClearError(f"--local {printable(str(folder))} is the folder of the model itself. Name a new folder.")
    cfg = without_machine_paths(load_config(str(config), import_modules=False))
    weights = published_weights(read_weights(checkpoint))
    with replacing(folder / HUB_WEIGHTS, keep_ending=True) as temporary:
        save_file(weights, str(temporary), metadata={"format": "pt"})
    write_atomically(folder / "config.yaml", cfg.dump().encode())
    (folder / FILE_NAME).unlink(missing_ok=True)
    if read_calibration(model.run_folder, model.fingerprint):
        shutil.copyfile(model.run_folder / FILE_NAME, folder / FILE_NAME)
    write_atomically(folder / "README.md", card(model, cfg, repository, scores, licence).encode())
    written = load_torch_model(folder, "cpu", allow_imports)
    if written.fingerprint != model.fingerprint:
        raise ClearError(f"{folder} holds another model than {run}: their fingerprints differ. It is not uploaded.")
    return written


def _check_contents(folder: Path) -> None:
    """Refuses a folder in which we would overwrite a run, or somebody's README.md; an earlier push may be there."""
    names = {name for name in os.listdir(folder) if not name.startswith(".")} if folder.is_dir() else set()
    others = sorted(names - set(FILES) if HUB_WEIGHTS in names else names)
    if others:
        raise ClearError(
            f"--local {printable(str(folder))} holds {printable(others[0])}, which is of no earlier push. Name a new "
            "or an empty folder."
        )


def published_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Named tensors under the names of today, without those that have one row per person or outfit of the training."""
    return {
        name: value.contiguous().clone()
        for name, value in with_current_names(weights, ()).items()
        if not is_classifier(name) and not name.startswith(_OF_TRAINING_PEOPLE)
    }


def without_machine_paths(cfg: CfgNode) -> CfgNode:
    """A copy that names no folder of this machine: of paths that begin with /, ~, ./ or ../ the last part stays."""
    cfg = cfg.clone()
    cfg.defrost()
    _shorten(cfg)
    cfg.MODEL.WEIGHTS, cfg.DATASETS.CSV = "", ()
    return cfg


def _shorten(node: CfgNode) -> None:
    for name, value in node.items():
        if isinstance(value, CfgNode):
            _shorten(value)
        elif isinstance(value, str) and (found := _PATH.fullmatch(value)):
            node[name] = f"{found[1] or ''}{os.path.basename(found[2].rstrip('/'))}"


def card(model: TorchModel, cfg: CfgNode, repository: str, scores: Sequence[Score], licence: str) -> str:
    """The model card, markdown behind the hub's yaml header."""
    from huggingface_hub import ModelCardData

    header = ModelCardData(
        license=licence or "other",
        library_name="fastreid_clip3d",
        pipeline_tag="image-feature-extraction",
        tags=["person-re-identification", "cloth-changing", "fast-reid"],
    )
    height, width = model.size
    stated = f"`{licence}`" if licence else "not stated: ask the owner of this repository before you use the weights"
    imports = ""
    if cfg.IMPORTS:
        imports = (
            f"\nIts config names modules that are not in this repository: {', '.join(cfg.IMPORTS)}. Install them, and "
            "load with `allow_imports=True`.\n"
        )
    return f"""---
{header.to_yaml().strip()}
---

# {repository}

A network for person re-identification: a picture of a person becomes a vector, and vectors of one person are alike.

```python
from fastreid_clip3d import load_model

model = load_model("hf-hub:{repository}")
print(model.compare("a.jpg", "b.jpg").sentence)
```
{imports}
## Model

| | |
|---|---|
| network | {model.meta_architecture}, {model.backbone_name} |
| input | {height} x {width} pixels, RGB |
| output | {model.feature_dim} numbers, L2-normalised, compared by cosine |
| losses | {", ".join(cfg.MODEL.LOSSES.NAME)} |
| epochs | {cfg.SOLVER.MAX_EPOCH} |
| fingerprint | `{model.fingerprint}` |

`config.yaml` has all settings.

## Data

Trained on {_names(cfg.DATASETS.NAMES)}; tested on {_names(cfg.DATASETS.TESTS)}.

## Scores

{_score_table(scores)}

Percent. CC counts only matches in other clothes, SC only matches in the same clothes, general all matches.

## Licence

The licence of the weights is {stated}. The data sets have licences of their own, and many forbid commercial use.

## Intended use

Research on re-identification, and comparison of methods on data sets whose people agreed to it or were rendered.

## What it must not be used for

- Identification or tracking of people who do not know of it and have not agreed to it; surveillance of public places.
- Decisions about a person: policing, access, employment, insurance, migration. A match is a similarity, no proof.
- Conclusions about a person's health, origin, sex, religion or other traits from their body shape.

Vectors of people are personal data, and biometric data where they identify someone. The law of your country applies,
in the European Union the GDPR and the AI Act.

## Limits

Nobody has measured this model on other data than above, or whether it errs more often for some groups of people. A
threshold holds only for pictures like those that it was measured on (`clip3d calibrate`).
"""


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "no data set that its config names"


def _score_table(scores: Sequence[Score]) -> str:
    if not scores:
        return "The run folder held no scores."
    lines = ["| data | protocol | seed | " + " | ".join(_METRICS) + " |", "|---|---|---" + "|---" * len(_METRICS) + "|"]
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.dataset, score.protocol), []).append(score)
    for (dataset, protocol), rows in groups.items():
        for row in rows:
            values = [_number(row.values.get(metric)) for metric in _METRICS]
            seed = str(row.seed) if row.seed >= 0 else "not fixed"
            lines.append(f"| {dataset} | {protocol} | {seed} | {' | '.join(values)} |")
        if len(rows) > 1:
            spreads = [_spread([row.values.get(metric) for row in rows]) for metric in _METRICS]
            lines.append(f"| {dataset} | {protocol} | mean ± std of {len(rows)} | {' | '.join(spreads)} |")
    return "\n".join(lines)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.1f}"


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.1f} ± {statistics.stdev(known):.1f}" if len(known) == len(values) else "-"
