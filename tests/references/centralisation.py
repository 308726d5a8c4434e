"""NFC one image and one neighbour at a time, from the definition in Pose2ID's paper and readme."""

from __future__ import annotations

import math


def centralised(features: list[list[float]], k1: int, k2: int) -> list[list[float]]:
    """Each normalised feature plus those of its mutual neighbours, normalised."""
    unit = [_unit(feature) for feature in features]

    def nearest(image: int, count: int) -> list[int]:
        others = [other for other in range(len(unit)) if other != image]
        return sorted(others, key=lambda other: math.dist(unit[image], unit[other]))[:count]

    moved = []
    for image in range(len(unit)):
        total = list(unit[image])
        for other in nearest(image, k1):
            if image in nearest(other, k2):
                total = [a + b for a, b in zip(total, unit[other])]
        moved.append(_unit(total))
    return moved


def _unit(feature: list[float]) -> list[float]:
    length = math.hypot(*feature)
    return [value / length for value in feature]
