"""What differs between the teacher that made a cache and the teacher at hand."""

from __future__ import annotations

import json
import logging
from typing import Any

from fastreid_clip3d.teacher.clip import Fingerprint

logger = logging.getLogger(__name__)


def fingerprint_changes(stored: dict[str, Any], wanted: Fingerprint) -> list[str]:
    """What differs between a stored fingerprint and the teacher at hand, in words."""
    current = json.loads(json.dumps(wanted.as_dict()))
    changes = []
    if stored["weights"] != current["weights"]:
        changes.append(f"other teacher weights (cache: {stored['teacher']}, now: {current['teacher']})")
    for key in sorted({*stored["preprocessing"], *current["preprocessing"]}):
        old, new = stored["preprocessing"].get(key), current["preprocessing"].get(key)
        if old != new:
            changes.append(f"other preprocessing: {key} was {old}, is {new}")
    if stored["prompts"] != current["prompts"]:
        pairs = [(old, new) for old, new in zip(stored["prompts"], current["prompts"]) if old != new]
        example = f"{pairs[0][0]!r} is now {pairs[0][1]!r}" if pairs else "another number of them"
        changes.append(f"{max(len(pairs), 1)} prompts changed: {example}")
    made_in = stored.get("precision", current["precision"])
    if made_in != current["precision"]:
        if current["precision"] == "fp32":
            changes.append(f"other precision: the teacher computed in {made_in}, asked for is fp32")
        else:
            logger.warning(f"the teacher cache was computed in {made_in}, asked for is {current['precision']}")
    if stored["versions"] != current["versions"]:
        logger.warning(f"the teacher cache was made with {stored['versions']}, here is {current['versions']}")
    return changes
