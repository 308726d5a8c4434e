"""Checks whether SynthCC's background, skin and hair, or colours give away who a person is.

Matchers and linear classifiers that see one of these things alone are scored as on a benchmark: each image is a query
against all others. Matchers learn nothing; a classifier learns three outfits of each person and is tested on the
fourth. Chance is what random similarities reach.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fastreid_clip3d.cli.run_options import positive
from fastreid_clip3d.errors import run_tool
from fastreid_clip3d.evaluation.protocols import removed_mask
from fastreid_clip3d.synthcc.garments import HAIR, SKIN
from fastreid_clip3d.synthcc.person import VARIANTS, Variant
from fastreid_clip3d.synthcc.sampling import sample_people

EXAMPLES = """\
examples:
  python tools/study/leakage.py
  python tools/study/leakage.py --people 60

exit code: 0 every check passed, 1 a check failed
"""

OUTFITS, IMAGES_PER_OUTFIT = 4, 4


@dataclasses.dataclass(frozen=True)
class Check:
    """One row of the table; `value` and `chance` in percent."""

    what: str
    variant: str
    protocol: str
    value: float
    chance: float
    limit: str  # the bound that the value must keep; "": none
    passed: bool


@dataclasses.dataclass
class Samples:
    """Images uint8 [N, 3, H, W], parts of the body per pixel uint8 [N, H, W], and ids [N]."""

    images: np.ndarray
    parts: np.ndarray
    pid: np.ndarray
    camid: np.ndarray
    clothes_id: np.ndarray


def collect(
    people: int,
    seed: int,
    variant: Variant,
    size: tuple[int, int] = (64, 32),
    progress: Callable[[int], None] | None = None,
) -> Samples:
    """Renders `people` with 4 outfits of 4 images each into memory."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("images", "parts", "pid", "camid", "clothes_id")}
    for batch in sample_people(
        people, OUTFITS * IMAGES_PER_OUTFIT, seed, size, variant, population="leakage", outfits_per_person=OUTFITS
    ):
        for name, values in parts.items():
            values.append(batch[name].numpy())
        if progress:
            progress(len(batch["pid"]))
    return Samples(**{name: np.concatenate(values) for name, values in parts.items()})


def colour_histograms(images: np.ndarray, masks: np.ndarray, stripes: int = 6, bins: int = 4) -> np.ndarray:
    """Colour histograms [N, stripes * bins ** 3] of the masked pixels, one per horizontal stripe of the mask's box.

    Each histogram has sum 1. The square root makes a dot product the Bhattacharyya coefficient.
    """
    features = np.zeros((len(images), stripes, bins**3), dtype=np.float32)
    for row, (image, mask) in enumerate(zip(images, masks)):
        y, x = np.nonzero(mask)
        if len(y) == 0:
            continue
        colours = image[:, y, x].astype(np.int64) * bins // 256
        code = (colours[0] * bins + colours[1]) * bins + colours[2]
        stripe = np.minimum((y - y.min()) * stripes // (y.max() - y.min() + 1), stripes - 1)
        features[row] = np.bincount(stripe * bins**3 + code, minlength=stripes * bins**3).reshape(stripes, -1)
    features /= np.maximum(features.sum(-1, keepdims=True), 1)
    return np.sqrt(features).reshape(len(images), -1)


def mean_colours(samples: Samples) -> np.ndarray:
    """Mean colour of skin and hair, [N, 6], standardised; the mean of all images where none is visible."""
    features = np.zeros((len(samples.images), 6), dtype=np.float32)
    for place, part in enumerate((SKIN, HAIR)):
        mask = samples.parts == part
        count = mask.sum((1, 2))
        total = (samples.images * mask[:, None]).sum((2, 3), dtype=np.float64)
        seen = count > 0
        colour = np.zeros_like(total)
        colour[seen] = total[seen] / count[seen, None]
        colour[~seen] = colour[seen].mean(0) if seen.any() else 0
        features[:, 3 * place : 3 * place + 3] = colour
    return (features - features.mean(0)) / np.maximum(features.std(0), 1e-6)


def background_features(samples: Samples) -> np.ndarray:
    """Coarse means of the scene [N, D], standardised; the scene's mean replaces the person's pixels."""
    images = samples.images.astype(np.float32) / 255
    outside = samples.parts == 255
    # Pixels at the person's edge mix both colours: one more pixel is removed.
    inside = ~outside
    for axis in (1, 2):
        inside = inside | np.roll(inside, 1, axis) | np.roll(inside, -1, axis)
    outside = ~inside
    mean = (images * outside[:, None]).sum((2, 3)) / np.maximum(outside.sum((1, 2)), 1)[:, None]
    filled = np.where(outside[:, None], images, mean[:, :, None, None])
    count, _, height, width = filled.shape
    coarse = filled.reshape(count, 3, 8, height // 8, 4, width // 4).mean((3, 5)).reshape(count, -1)
    return (coarse - coarse.mean(0)) / np.maximum(coarse.std(0), 1e-6)


def mean_average_precision(similarity: np.ndarray, samples: Samples, rule: str) -> tuple[float, float]:
    """mAP and Rank-1 in percent of all images against all others under a protocol's rule; queries without a match
    are left out."""
    removed = removed_mask(
        rule, samples.pid, samples.camid, samples.pid, samples.camid, samples.clothes_id, samples.clothes_id
    )
    np.fill_diagonal(removed, True)
    precisions, firsts = [], []
    for row in range(len(similarity)):
        kept = ~removed[row]
        order = np.argsort(-similarity[row, kept], kind="stable")
        matches = (samples.pid[kept] == samples.pid[row])[order]
        places = np.flatnonzero(matches)
        if len(places):
            precisions.append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
            firsts.append(float(places[0] == 0))
    return 100 * float(np.mean(precisions)), 100 * float(np.mean(firsts))


def chance(samples: Samples, rule: str, seed: int = 0, draws: int = 3) -> float:
    """mAP in percent of random similarities."""
    rng = np.random.default_rng(seed)
    count = len(samples.pid)
    return float(np.mean([mean_average_precision(rng.random((count, count)), samples, rule)[0] for _ in range(draws)]))


def classify_across_outfits(features: np.ndarray, samples: Samples) -> float:
    """Accuracy in percent of a linear classifier of people, trained on all outfits but one and tested on that one.

    The mean over the outfits. The classifier is ridge regression on one-hot targets: it has one solution, and logistic
    regression is no better here.
    """
    people = np.unique(samples.pid, return_inverse=True)[1]
    slot = samples.clothes_id % OUTFITS
    features = np.concatenate([features, np.ones((len(features), 1), features.dtype)], 1).astype(np.float64)
    correct = []
    for outfit in range(OUTFITS):
        train, test = slot != outfit, slot == outfit
        x, y = features[train], np.eye(people.max() + 1)[people[train]]
        weights = np.linalg.solve(x.T @ x + 10.0 * np.eye(x.shape[1]), x.T @ y)
        correct.append((features[test] @ weights).argmax(1) == people[test])
    return 100 * float(np.mean(np.concatenate(correct)))


def _cosine(features: np.ndarray) -> np.ndarray:
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    return unit @ unit.T


def _distance(features: np.ndarray) -> np.ndarray:
    square = (features**2).sum(1)
    return 2 * features @ features.T - square[:, None] - square[None]


def check_samples(samples: Samples, variant: str) -> list[Check]:
    """All checks on one set of samples."""
    people = len(np.unique(samples.pid))
    guess = 100 / people
    chances = {rule: chance(samples, rule) for rule in ("CC", "SC")}
    own = colour_histograms(samples.images, samples.parts != 255)
    colour = {rule: mean_average_precision(_cosine(own), samples, rule)[0] for rule in ("CC", "SC")}
    background = background_features(samples)
    look = mean_colours(samples)
    tests = people * OUTFITS * IMAGES_PER_OUTFIT
    # Guessing, and three standard deviations. Images of one outfit are not independent, so outfits are counted.
    bound = guess + 300 * np.sqrt(guess / 100 * (1 - guess / 100) / (tests / IMAGES_PER_OUTFIT))
    checks = []

    def add(
        what: str, rule: str, value: float, chance: float, most: float | None = None, least: float | None = None
    ) -> None:
        limit = f"<= {most:.1f}" if most is not None else f">= {least:.1f}" if least is not None else ""
        passed = (most is None or value <= most) and (least is None or value >= least)
        checks.append(Check(what, variant, rule, value, chance, limit, passed))

    def matched(similarity: np.ndarray) -> float:
        return mean_average_precision(similarity, samples, "CC")[0]

    hidden = variant == "shape-only"
    most = 1.3 * chances["CC"]
    add("background, classifier", "CC", classify_across_outfits(background, samples), guess, most=bound)
    add("background, matcher", "CC", matched(_cosine(background)), chances["CC"], most=most)
    value = classify_across_outfits(look, samples)
    add("skin and hair colour, classifier", "CC", value, guess, most=bound if hidden else None)
    value = matched(_distance(look))
    add("skin and hair colour, matcher", "CC", value, chances["CC"], most=most if hidden else None)
    own_limit = 2.0 * chances["CC"] if hidden else None
    add("own pixels' colours, matcher", "CC", colour["CC"], chances["CC"], most=own_limit)
    add("own pixels' colours, matcher", "SC", colour["SC"], chances["SC"], least=3 * colour["CC"])
    return checks


def run_checks(people: int = 120, seed: int = 1, progress: bool = False) -> list[Check]:
    """Renders people of both variants and checks them."""
    from tqdm import tqdm

    checks = []
    for variant in reversed(VARIANTS):
        with tqdm(total=people * OUTFITS * IMAGES_PER_OUTFIT, unit="img", desc=variant, disable=not progress) as bar:
            samples = collect(people, seed, variant, size=(128, 64), progress=bar.update)
        checks += check_samples(samples, variant)
    return checks


def report(checks: list[Check]) -> str:
    """The checks as a Markdown table."""
    lines = ["| what is seen | variant | protocol | value % | chance % | asked | |", "|---|---|---|---|---|---|---|"]
    for check in checks:
        verdict = "ok" if check.passed else "LEAK"
        numbers = f"{check.value:.1f} | {check.chance:.1f} | {check.limit or '-'} | {verdict}"
        lines.append(f"| {check.what} | {check.variant} | {check.protocol} | {numbers} |")
    return "\n".join(lines)


def main() -> int:
    """Prints the table; 1 if a check failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=positive, default=120, help="people of each variant (default: 120)")
    parser.add_argument("--seed", type=int, default=1, help="of the people (default: 1)")
    arguments = parser.parse_args()
    checks = run_checks(arguments.people, arguments.seed, progress=sys.stderr.isatty())
    print(report(checks))
    return int(not all(check.passed for check in checks))


if __name__ == "__main__":
    run_tool(main)
