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
from fastreid_clip3d.synthcc.outfit import Bag, Cloth, Hat, Legs, Outfit, Shoes, Skirt, Top
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
    """Dresses a body of shape `betas` [K], from the inside to the outside."""
    person = _Dressing(figure, betas)
    if outfit.legs is not None:
        person.put_on_legs(outfit.legs)
    worn = _over_legs(outfit.top, outfit.legs)
    if outfit.skirt is not None:
        worn = _tucked_in(worn)
        person.put_on_skirt(outfit.skirt, margin=worn.offset + 0.007)
    person.put_on_top(worn)
    outermost = worn
    if outfit.outer is not None:
        outermost = _over_top(outfit.outer, outfit.top, worn)
        person.put_on_outerwear(outermost)
    elif outfit.top.hood:
        person.put_on_hood(TOP)
    person.put_on_shoes(outfit.shoes, outfit.legs)
    person.add_hair(look, outfit, outermost.offset)
    if outfit.hat is not None:
        person.put_on_hat(outfit.hat)
    if outfit.bag is not None:
        person.hang_on(outfit.bag, outermost.offset)
    person.add_skin(look)
    return person.finish(look, outfit)


def _over_legs(top: Top, legs: Legs | None) -> Top:
    """A top hangs over the trousers, so it is at least as far from the skin as they are."""
    return dataclasses.replace(top, offset=max(top.offset, legs.offset + 0.004 if legs is not None else 0.0, 0.0))


def _tucked_in(top: Top) -> Top:
    """A top whose hem is inside a skirt."""
    return dataclasses.replace(top, offset=min(top.offset, 0.010), drape=min(top.drape, 0.1))


def _over_top(outer: Top, top: Top, worn: Top) -> Top:
    """Outerwear that lies outside the top, as it is worn, and hangs at least as loosely."""
    return dataclasses.replace(
        outer,
        offset=max(outer.offset, worn.offset + 0.009),
        drape=max(outer.drape, top.drape),
        sleeve_drape=max(outer.sleeve_drape, top.sleeve_drape + 0.1),
    )


def _tail(garment: Top, part: int, margin: float) -> Tube:
    """What of a dress or a coat hangs below its hem."""
    start, phase = garment.hem + 0.05, garment.cloth.phase
    return Tube(part, start, garment.length, garment.flare, margin, garment.opening, phase)


class _Dressing:
    """A body and what it wears so far."""

    def __init__(self, figure: Figure, betas: np.ndarray) -> None:
        self.figure, self.marks = figure, figure.marks
        self.body, self.joints = figure.attributes(betas)
        self.points = self.body[:, CANONICAL]
        self.trunk = (self.points[:, 1] > self.marks.crotch - 0.12) & (self.points[:, 1] < self.marks.chin + 0.02)
        self.pieces: list[Piece] = []
        self.tubes: list[Tube] = []
        self.hanging: list[Hanging] = []
        self.materials: list[Cloth | None] = [None] * NUM_PARTS
        self.covered = np.full(len(self.body), -1.0, dtype=np.float32)
        """Metres inside the clothes of each vertex of the body, -1 where nothing is worn."""

    def put_on_legs(self, legs: Legs) -> None:
        self.pieces.append(make_legs(self.figure, self.body, self.joints, legs))
        self.materials[LEGWEAR] = legs.cloth
        self._cover(legs_field(legs, self.marks, self.points), self.body[:, ARMS].sum(1) < 0.05)

    def put_on_skirt(self, skirt: Skirt, margin: float) -> None:
        phase = skirt.cloth.phase
        self.tubes = [Tube(SKIRT, skirt.waist, skirt.length, skirt.flare, margin, phase=phase, tucked=False)]
        self.materials[SKIRT] = skirt.cloth

    def put_on_top(self, top: Top) -> None:
        self._put_on(top, TOP)
        self._cover(top_field(top, self.marks, self.points), self.trunk)
        if top.length:
            self.tubes.append(_tail(top, TOP, margin=top.offset + 0.004))

    def put_on_outerwear(self, outer: Top) -> None:
        self._put_on(outer, OUTER)
        if not outer.opening:
            self._cover(top_field(outer, self.marks, self.points), self.trunk)
        covered_from = outer.hem - (0.05 if outer.length else -0.01)
        window = outer.opening / 0.16 + 0.08 if outer.opening else 0.0
        self.tubes = [dataclasses.replace(tube, hidden_above=covered_from, window=window) for tube in self.tubes]
        if outer.length:
            self.tubes.append(_tail(outer, OUTER, margin=outer.offset + 0.008))
        if outer.hood:
            self.put_on_hood(OUTER)

    def put_on_hood(self, part: int) -> None:
        self.pieces.append(make_hood(self.figure, self.body, part))

    def put_on_shoes(self, shoes: Shoes, legs: Legs | None) -> None:
        inside = legs.offset if legs is not None and legs.width < 0.55 else 0.0  # narrow trousers go into boots
        self.pieces += make_shoes(self.figure, self.body, self.joints, shoes, inside=inside)
        self.materials[SHOE] = shoes.cloth
        heights = self.points[:, 1]
        self._cover([self.marks.ankle + shoes.height + shoes.sock - heights], heights < self.marks.knee)

    def add_hair(self, look: Appearance, outfit: Outfit, outermost: float) -> None:
        """Hair over clothes whose outermost layer is `outermost` metres from the skin."""
        over_hood = (outfit.outer or outfit.top).hood
        self.pieces += make_hair(
            self.figure, self.body, look, under_hat=outfit.hat is not None, over_hood=over_hood, outermost=outermost
        )
        self.materials[HAIR] = Cloth(np.stack([look.hair, look.hair * 0.7, look.hair]), shine=0.18, folds=0.0)

    def put_on_hat(self, hat: Hat) -> None:
        self.pieces += make_hat(self.figure, self.body, hat)
        self.materials[HAT] = hat.cloth

    def hang_on(self, bag: Bag, outermost: float) -> None:
        rigid, self.hanging = make_bag(self.figure, self.body, self.joints, bag, outermost=outermost)
        self.pieces += rigid
        self.materials[BAG] = bag.cloth

    def add_skin(self, look: Appearance) -> None:
        """The skin that nothing covers, as the first piece."""
        self.materials[SKIN] = Cloth(np.stack([look.skin, look.lips, look.eyes]), shine=0.06, folds=0.0)
        self.pieces.insert(0, make_skin(self.body, self.figure.faces, self.covered))

    def finish(self, look: Appearance, outfit: Outfit) -> Dressed:
        """All pieces as one mesh."""
        starts = np.cumsum([0, *(len(piece.attributes) for piece in self.pieces)])
        attributes = np.concatenate([piece.attributes for piece in self.pieces])
        faces = np.concatenate([piece.faces + start for piece, start in zip(self.pieces, starts)])
        rest = np.ascontiguousarray(attributes[:, REST])
        below = self.figure.below if self.tubes else self.figure.below[:0]
        return Dressed(
            figure=self.figure,
            canonical=np.ascontiguousarray(attributes[:, CANONICAL]),
            rest=rest,
            normals=vertex_normals(rest, faces).astype(np.float32),
            weights=np.ascontiguousarray(attributes[:, WEIGHTS]),
            edge=np.concatenate([piece.edge for piece in self.pieces]),
            faces=faces,
            face_part=np.concatenate([np.full(len(piece.faces), piece.part) for piece in self.pieces]),
            joints=self.joints,
            tubes=self.tubes,
            hanging=self.hanging,
            below_rest=self.body[below, REST],
            below_weights=self.body[below, WEIGHTS],
            materials=self.materials,
            look=look,
            outfit=outfit,
        )

    def _put_on(self, top: Top, part: int) -> None:
        """A top over all pieces so far; what lies inside it is removed from them."""
        for place, piece in enumerate(self.pieces):
            inside = np.min(top_field(top, self.marks, piece.attributes[:, CANONICAL]), axis=0)
            self.pieces[place] = without_hidden(piece, inside)
        self.pieces.append(make_top(self.figure, self.body, self.joints, top, part))
        self.materials[part] = top.cloth

    def _cover(self, fields: list[np.ndarray], where: np.ndarray) -> None:
        """Covers the skin inside the garment of these fields, among the vertices `where`."""
        self.covered[:] = np.maximum(self.covered, np.where(where, np.min(fields, axis=0), -1.0))
