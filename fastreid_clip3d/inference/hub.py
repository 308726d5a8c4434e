"""Run folders on the Hugging Face hub: downloading one, and the folder and model card that we upload."""

from __future__ import annotations

import re
from pathlib import Path

from fastreid_clip3d.common.hub import HUB, hub_endpoint
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.modeling.weights import HUB_WEIGHTS

FILES = ("config.yaml", HUB_WEIGHTS, "calibration.json", "README.md")
"""What we upload and download; nothing else of a repository is ever read."""

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def check_repository(name: str) -> str:
    """A repository's name, ``owner/name``.

    Raises:
        ClearError: it has another form.
    """
    if not _REPOSITORY.fullmatch(name):
        raise ClearError(f"{name!r} is no repository of the Hugging Face hub; write OWNER/NAME.")
    return name


def downloaded(source: str) -> Path:
    """The folder of ``hf-hub:OWNER/NAME`` or ``hf-hub:OWNER/NAME@REVISION`` on this machine, downloaded if need be.

    Raises:
        ClearError: no such repository, no network, or a repository without config.yaml and weights.
    """
    import huggingface_hub

    name, _, revision = source.removeprefix(HUB).partition("@")
    check_repository(name)
    try:
        folder = Path(huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=list(FILES)))
    except Exception as error:  # the hub's client has a dozen error classes of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ClearError(
            f"{source} cannot be downloaded ({reason}). Without a network, download {', '.join(FILES[:2])} of "
            f"{hub_endpoint()}/{name} by hand into one folder and give that folder."
        ) from error
    missing = [name for name in FILES[:2] if not (folder / name).is_file()]
    if missing:
        raise ClearError(
            f"{source} lacks {' and '.join(missing)}; it is no model of `clip3d push`. A tower of timm or open_clip is "
            "loaded by timm:hf-hub:OWNER/NAME or open_clip:hf-hub:OWNER/NAME."
        )
    return folder


def upload(folder: Path, repository: str, public: bool) -> str:
    """Uploads a folder of `clip3d push` and returns the address of the commit.

    Args:
        repository: ``owner/name``; we make it if it is not there. public: whether everybody can read a new one.

    Raises:
        ClearError: no network, no login, or no permission.
    """
    import huggingface_hub

    client = huggingface_hub.HfApi()
    try:
        client.create_repo(repository, private=not public, exist_ok=True)
        return str(client.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=list(FILES)))
    except Exception as error:  # the hub's client has a dozen error classes of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ClearError(
            f"{repository} cannot be written on {hub_endpoint()} "
            f"({reason}). Log in with `hf auth login`. `clip3d push --local FOLDER` writes the same files "
            "without a network."
        ) from error
