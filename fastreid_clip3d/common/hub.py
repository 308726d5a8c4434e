"""The Hugging Face hub: how names on it begin, and its address."""

from __future__ import annotations

HUB = "hf-hub:"


def hub_endpoint() -> str:
    """The address of the Hugging Face hub, without a slash at its end."""
    from huggingface_hub import constants

    return constants.ENDPOINT.rstrip("/")
