"""Puts the pieces of an outfit on a body: one mesh in the T-pose, which can be posed any number of times.

Legend: V vertices, F faces, P parts.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fastreid_clip3d.synthcc.accessories import Hanging, make_bag, make_hat, make_shoes
from fastreid_clip3d.synthcc.figure import ARMS, CANONICAL, REST, WEIGHTS, Figure
from fastreid_clip3d.synthcc.garments import (
    BAG,
    HAIR,
    HAT,
    LEGWEAR,
    NUM_PARTS,
    OUTER,
    SHOE,
    SKIN,
    SKIRT,
    TOP,
    Piece,
    legs_field,
    make_hood,
    make_legs,
    make_skin,
    make_top,
    top_field,
    without_hidden,
)
from fastreid_clip3d.synthcc.hair import make_hair
from fastreid_clip3d.synthcc.mesh_tools import vertex_normals
from fastreid_clip3d.synthcc.outfit import Cloth, Outfit, Top
from fastreid_clip3d.synthcc.person import Appearance
from fastreid_clip3d.synthcc.skirts import Tube


@dataclasses.dataclass
class Dressed:
    """A dressed person in the T-pose; lengths in metres."""

    figure: Figure  # the body's sex
    canonical: np.ndarray  # float32 [V, 3], each vertex's place on the average body
    rest: np.ndarray  # float32 [V, 3], its place
    normals: np.ndarray  # float32 [V, 3], its unit normal
    weights: np.ndarray  # float32 [V, 24], skinning weights
    edge: np.ndarray  # float32 [V], distance to the garment's hem
    faces: np.ndarray  # int64 [F, 3]
    face_part: np.ndarray  # int64 [F], the part (garments.SKIN ...) that each face belongs to
    joints: np.ndarray  # float32 [24, 3]
    tubes: list[Tube]  # skirts and coat tails, which get their form after posing
    hanging: list[Hanging]  # bags in the hand, too
    below_rest: np.ndarray  # [n, 3], the body's vertices that tubes go around
    below_weights: np.ndarray  # [n, 24], their skinning weights
    materials: list[Cloth | None]  # of each part, None where the part is not worn
    look: Appearance
    outfit: Outfit


def dress(figure: Figure, betas: np.ndarray, look: Appearance, outfit: Outfit) -> Dressed:
    """Dresses a body of shape `betas` [K]."""
    body, joints = figure.attributes(betas)
    marks = figure.marks
    points = body[:, CANONICAL]
    upper = (points[:, 1] > marks.crotch - 0.12) & (points[:, 1] < marks.chin + 0.02)
    pieces: list[Piece] = []
    tubes: list[Tube] = []
    materials: list[Cloth | None] = [None] * NUM_PARTS
    covered = np.full(len(body), -1.0, dtype=np.float32)

    def cover(fields: list[np.ndarray], where: np.ndarray) -> None:
        covered[:] = np.maximum(covered, np.where(where, np.min(fields, axis=0), -1.0))

    def hide_below(garment: Top) -> None:
        for place, piece in enumerate(pieces):
            inside = np.min(top_field(garment, marks, piece.attributes[:, CANONICAL]), axis=0)
            pieces[place] = without_hidden(piece, inside)

    legs, skirt, top, outer = outfit.legs, outfit.skirt, outfit.top, outfit.outer
    leg_offset = legs.offset if legs is not None else 0.0
    if legs is not None:
        pieces.append(make_legs(figure, body, joints, legs))
        materials[LEGWEAR] = legs.cloth
        cover(legs_field(legs, marks, points), body[:, ARMS].sum(1) < 0.05)
    # A top hangs over the trousers, so it is at least as far from the skin as they are.
    worn = dataclasses.replace(top, offset=max(top.offset, leg_offset + 0.004 if legs is not None else 0.0, 0.0))
    if skirt is not None:  # the top is tucked in
        worn = dataclasses.replace(worn, offset=min(worn.offset, 0.010), drape=min(worn.drape, 0.1))
        margin = worn.offset + 0.007
        tubes = [Tube(SKIRT, skirt.waist, skirt.length, skirt.flare, margin, phase=skirt.cloth.phase, tucked=False)]
        materials[SKIRT] = skirt.cloth
    hide_below(worn)
    pieces.append(make_top(figure, body, joints, worn, TOP))
    materials[TOP] = top.cloth
    cover(top_field(top, marks, points), upper)
    if top.length:
        tubes.append(_tail(top, TOP, margin=worn.offset + 0.004))
    if top.hood and outer is None:
        pieces.append(make_hood(figure, body, TOP))
    outermost = worn.offset
    if outer is not None:
        over = dataclasses.replace(
            outer,
            offset=max(outer.offset, worn.offset + 0.009),
            drape=max(outer.drape, top.drape),
            sleeve_drape=max(outer.sleeve_drape, top.sleeve_drape + 0.1),
        )
        outermost = over.offset
        hide_below(over)
        pieces.append(make_top(figure, body, joints, over, OUTER))
        materials[OUTER] = outer.cloth
        if not outer.opening:
            cover(top_field(outer, marks, points), upper)
        covered_from = outer.hem - (0.05 if outer.length else -0.01)
        window = outer.opening / 0.16 + 0.08 if outer.opening else 0.0
        tubes = [dataclasses.replace(tube, hidden_above=covered_from, window=window) for tube in tubes]
        if outer.length:
            tubes.append(_tail(outer, OUTER, margin=over.offset + 0.008))
        if outer.hood:
            pieces.append(make_hood(figure, body, OUTER))
    tucked_in = legs.offset if legs is not None and legs.width < 0.55 else 0.0
    pieces += make_shoes(figure, body, joints, outfit.shoes, inside=tucked_in)
    materials[SHOE] = outfit.shoes.cloth
    cover([marks.ankle + outfit.shoes.height + outfit.shoes.sock - points[:, 1]], points[:, 1] < marks.knee)
    over_hood = (outer or top).hood
    pieces += make_hair(figure, body, look, under_hat=outfit.hat is not None, over_hood=over_hood, outermost=outermost)
    if outfit.hat is not None:
        pieces += make_hat(figure, body, outfit.hat)
        materials[HAT] = outfit.hat.cloth
    hanging: list[Hanging] = []
    if outfit.bag is not None:
        rigid, hanging = make_bag(figure, body, joints, outfit.bag, outermost=outermost)
        pieces += rigid
        materials[BAG] = outfit.bag.cloth
    materials[HAIR] = Cloth(np.stack([look.hair, look.hair * 0.7, look.hair]), shine=0.18, folds=0.0)
    materials[SKIN] = Cloth(np.stack([look.skin, look.lips, look.eyes]), shine=0.06, folds=0.0)
    pieces.insert(0, make_skin(body, figure.faces, covered))

    starts = np.cumsum([0, *(len(piece.attributes) for piece in pieces)])
    attributes = np.concatenate([piece.attributes for piece in pieces])
    faces = np.concatenate([piece.faces + start for piece, start in zip(pieces, starts)])
    rest = np.ascontiguousarray(attributes[:, REST])
    below = figure.below if tubes else figure.below[:0]
    return Dressed(
        figure=figure,
        canonical=np.ascontiguousarray(attributes[:, CANONICAL]),
        rest=rest,
        normals=vertex_normals(rest, faces).astype(np.float32),
        weights=np.ascontiguousarray(attributes[:, WEIGHTS]),
        edge=np.concatenate([piece.edge for piece in pieces]),
        faces=faces,
        face_part=np.concatenate([np.full(len(piece.faces), piece.part) for piece in pieces]),
        joints=joints,
        tubes=tubes,
        hanging=hanging,
        below_rest=body[below, REST],
        below_weights=body[below, WEIGHTS],
        materials=materials,
        look=look,
        outfit=outfit,
    )


def _tail(garment: Top, part: int, margin: float) -> Tube:
    """What of a dress or a coat hangs below its hem."""
    start, phase = garment.hem + 0.05, garment.cloth.phase
    return Tube(part, start, garment.length, garment.flare, margin, garment.opening, phase)
