"""Finds a teacher's weights: by open_clip's name and tag, in a weights file, in a folder, or in the package."""

from __future__ import annotations

import difflib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import open_clip
from open_clip import pretrained as open_clip_pretrained

from fastreid_clip3d.common.hub import HUB, hub_endpoint
from fastreid_clip3d.errors import ClearError

EMBEDDED_TEACHER = "embedded"
EMBEDDED_FOLDER = Path(__file__).parent / "assets" / "embedded_teacher"
LOCAL_DIR = "local-dir:"
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz")
_PROBE_SECONDS = 8.0


class WeightSource(NamedTuple):
    """What open_clip's `create_model` needs, all of it on this machine already."""

    model_name: str
    weights_path: str | None  # None: the folder behind "local-dir:" holds the weights
    quick_gelu: bool
    preprocess: dict


def find_weights(name: str, pretrained: str) -> WeightSource:
    """Resolves a teacher's name and pretrained tag to files on this machine, downloading what open_clip can download.

    Raises:
        ClearError: unknown name (nearest ones named), unknown tag, missing file or folder, or no way to the hub.
    """
    if name == EMBEDDED_TEACHER:
        return _from_folder(
            str(EMBEDDED_FOLDER), "The package is incomplete; install it again or run tools/assets/train_teacher.py."
        )
    if name.startswith(LOCAL_DIR):
        return _from_folder(
            name[len(LOCAL_DIR) :], "It must hold open_clip_config.json and its weights (open_clip_model.safetensors)."
        )
    if name.startswith(HUB):
        return _from_hub(name[len(HUB) :])
    return _from_name(name.replace("/", "-"), name, pretrained)


def _from_folder(folder: str, advice: str) -> WeightSource:
    path = Path(folder)
    if not path.is_dir():
        raise ClearError(f"teacher folder {folder!r} does not exist. {advice}")
    if not (path / "open_clip_config.json").is_file():
        raise ClearError(f"teacher folder {folder} has no open_clip_config.json. {advice}")
    if not any(file.suffix in (".safetensors", ".bin", ".pth") for file in path.iterdir()):
        raise ClearError(f"teacher folder {folder} has no weights beside its open_clip_config.json. {advice}")
    return WeightSource(LOCAL_DIR + str(path), None, False, {})


def _from_hub(repository: str) -> WeightSource:
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(repository, "open_clip_config.json")
    except ValueError as error:  # a name that the hub does not allow
        raise ClearError(
            f"teacher '{HUB}{repository}' does not name a repository on the Hugging Face hub ({error}). Write "
            f"MODEL.TEACHER.NAME {HUB}OWNER/REPOSITORY."
        ) from error
    if not isinstance(config, str) or not _has_weights(Path(config).parent):
        require_connection(hub_endpoint(), f"teacher {HUB}{repository}", _by_hand(f"{hub_endpoint()}/{repository}"))
        config = _download(
            lambda: open_clip_pretrained.download_pretrained_from_hf(repository, filename="open_clip_config.json"),
            f"{HUB}{repository}",
            _by_hand(f"{hub_endpoint()}/{repository}"),
        )
        _download(
            lambda: open_clip_pretrained.download_pretrained_from_hf(repository),
            f"{HUB}{repository}",
            _by_hand(f"{hub_endpoint()}/{repository}"),
        )
    return _from_folder(str(Path(config).parent), "The hub's cache is incomplete; delete that folder and try again.")


def _has_weights(folder: Path) -> bool:
    """Whether a folder of the hub's cache holds the weights that open_clip would download."""
    return any(file.suffix in (".safetensors", ".bin") for file in folder.glob("*open_clip*"))


def _from_name(model_name: str, written: str, pretrained: str) -> WeightSource:
    known = open_clip.list_models()
    if model_name not in known:
        nearest = difflib.get_close_matches(model_name, [EMBEDDED_TEACHER, *known], n=4, cutoff=0.4)
        hint = f" Nearest known: {', '.join(nearest)}." if nearest else ""
        raise ClearError(
            f"teacher '{written}' is not a model of open_clip.{hint} Give an open_clip name, '{EMBEDDED_TEACHER}', "
            f"'{LOCAL_DIR}FOLDER' or '{HUB}OWNER/REPOSITORY' (MODEL.TEACHER.NAME)."
        )
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    if not pretrained:
        raise ClearError(
            f"teacher '{written}' needs MODEL.TEACHER.PRETRAINED: a tag ({_some(tags)}) or a weights "
            "file; an untrained teacher has nothing to teach."
        )
    settings = open_clip.get_pretrained_cfg(model_name, pretrained)
    if settings:
        return _with_settings(model_name, _from_tag(written, pretrained, settings), settings)
    tag, is_pair, file = pretrained.partition("=")
    if is_pair and tag in tags:
        if not os.path.isfile(file):
            raise ClearError(f"teacher weights file {file} does not exist (MODEL.TEACHER.PRETRAINED {pretrained}).")
        return _with_settings(model_name, file, open_clip.get_pretrained_cfg(model_name, tag))
    if os.path.isfile(pretrained):
        return _with_settings(model_name, pretrained, _settings_of_file(model_name, pretrained, tags))
    if os.sep in pretrained or pretrained.lower().endswith(_WEIGHT_SUFFIXES):
        raise ClearError(f"teacher weights file {pretrained} does not exist (MODEL.TEACHER.PRETRAINED).")
    nearest = difflib.get_close_matches(pretrained, tags, n=3, cutoff=0.3)
    raise ClearError(
        f"'{pretrained}' is neither a weights file nor a pretrained tag of {written}; "
        f"nearest: {', '.join(nearest) or _some(tags)} (of {len(tags)} tags; all: open_clip.list_pretrained())."
    )


def _with_settings(model_name: str, path: str, settings: dict) -> WeightSource:
    preprocess = {key: settings[key] for key in ("mean", "std", "interpolation") if settings.get(key)}
    return WeightSource(model_name, path, bool(settings.get("quick_gelu", False)), preprocess)


def _settings_of_file(model_name: str, file: str, tags: list[str]) -> dict:
    """Pixel statistics and activation for a weights file: those that all of the model's tags share.

    Raises:
        ClearError: the tags differ, so the file's name does not say what its network expects; names the tags.
    """
    groups: dict[str, list[str]] = {}
    by_group: dict[str, dict] = {}
    for tag in tags:
        settings = open_clip.get_pretrained_cfg(model_name, tag)
        parts = {key: settings.get(key) for key in ("mean", "std", "interpolation")}
        group = str([parts, bool(settings.get("quick_gelu"))])
        groups.setdefault(group, []).append(tag)
        by_group[group] = settings
    if len(groups) <= 1:
        return next(iter(by_group.values()), {})
    kinds = "; ".join(
        f"{_some(own)}: mean {by_group[group]['mean'][0]:.3f}..."
        + (", quick GELU" if by_group[group].get("quick_gelu") else "")
        for group, own in groups.items()
    )
    raise ClearError(
        f"teacher weights file {file}: weights of {model_name} differ in what they expect of an image or in their "
        f"activation ({kinds}). Say which training the file comes from: MODEL.TEACHER.PRETRAINED TAG={file}, for "
        f"example {tags[0]}={file}."
    )


def _from_tag(name: str, tag: str, settings: dict) -> str:
    subject = f"{name} / {tag}"
    if settings.get("file"):
        return settings["file"]
    repository, _, filename = (settings.get("hf_hub") or "").rpartition("/")
    if repository:
        filename = filename or open_clip.constants.HF_WEIGHTS_NAME
        cached = _cached_file(repository, filename)
        if cached:
            return cached
        advice = _by_hand(f"{hub_endpoint()}/{repository}", tag)
        require_connection(hub_endpoint(), f"teacher {subject}", advice)
    else:
        advice = _by_hand(settings["url"], tag)
        target = Path("~/.cache/clip").expanduser() / os.path.basename(settings["url"])
        if not target.is_file():
            require_connection(settings["url"], f"teacher {subject}", advice)
    return _download(lambda: open_clip.download_pretrained(settings), subject, advice)


def _cached_file(repository: str, filename: str) -> str | None:
    """A file already in the hub's cache, found without asking the hub (which would retry for half a minute offline)."""
    from huggingface_hub import try_to_load_from_cache

    for candidate in (*open_clip_pretrained._get_safe_alternatives(filename), filename):
        path = try_to_load_from_cache(repository, candidate)
        if isinstance(path, str):
            return path
    return None


def _some(tags: list[str]) -> str:
    return ", ".join(tags[:4]) + (", ..." if len(tags) > 4 else "") or "none known"


def _by_hand(address: str, tag: str = "") -> str:
    """What to do without a network. `tag`: the pretrained tag; "" for a name that takes none."""
    weights = f"; or give the weights file as MODEL.TEACHER.PRETRAINED {tag}=FILE" if tag else ""
    return (
        "By hand, on a machine with a network: download open_clip_model.safetensors (or open_clip_pytorch_model.bin) "
        f"and open_clip_config.json from {address} into one folder, copy it here and set MODEL.TEACHER.NAME "
        f"{LOCAL_DIR}FOLDER{weights}. MODEL.TEACHER.NAME {EMBEDDED_TEACHER} needs no download."
    )


def require_connection(address: str, subject: str, advice: str) -> None:
    """Raises at once where the hub's client would try again for half a minute.

    Args:
        subject: whose weights are to be downloaded from `address`. advice: what the user can do without a network.

    Raises:
        ClearError: the address cannot be reached, or HF_HUB_OFFLINE forbids it.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise ClearError(f"the weights of {subject} are not on this machine and HF_HUB_OFFLINE is set. {advice}")
    try:
        request = urllib.request.Request(address, method="HEAD")
        urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answers, if only to refuse a HEAD request
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ClearError(
            f"the weights of {subject} are not on this machine and {address} cannot be reached ({reason}). {advice}"
        ) from error


def _download(fetch: Callable[[], str | None], subject: str, advice: str) -> str:
    try:
        path = fetch()
    except Exception as error:  # the hub's client has a dozen error classes of its own
        raise ClearError(f"downloading the weights of teacher {subject} failed ({error}). {advice}") from error
    if not path:
        raise ClearError(f"open_clip knows no download for teacher {subject}. {advice}")
    return path
