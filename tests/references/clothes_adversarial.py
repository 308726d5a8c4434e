"""CAL (Gu et al., CVPR 2022) image by image and class by class, in Python's own floats."""

from __future__ import annotations

import math

from .optimal_transport import cosine


def clothes_losses(
    features: list[list[float]],
    weight: list[list[float]],
    clothes_ids: list[int],
    clothes_pids: list[int],
    scale: float,
    epsilon: float,
) -> tuple[float, float]:
    """(loss of the clothes classifier, adversarial loss) as means over the images."""
    classifier_total = adversarial_total = 0.0
    for feature, clothes in zip(features, clothes_ids):
        exponentials = [math.exp(scale * cosine(feature, row)) for row in weight]
        classifier_total -= math.log(exponentials[clothes] / sum(exponentials))

        person = clothes_pids[clothes]
        own = [c for c, pid in enumerate(clothes_pids) if pid == person]
        others = sum(exponentials[c] for c, pid in enumerate(clothes_pids) if pid != person)
        for c in own:
            q = (1 - epsilon if c == clothes else 0.0) + epsilon / len(own)
            adversarial_total -= q * math.log(exponentials[c] / (exponentials[c] + others))
    return classifier_total / len(features), adversarial_total / len(features)
