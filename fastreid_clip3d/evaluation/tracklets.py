"""One feature from the frames of a tracklet.

Two poolings, by name:

- ``clips``: the published protocol of clothes-changing video ReID. Each stretch of 8 x 4 = 32 frames gives 4 clips of
  every 4th frame. The rest gives clips of 8 frames with the largest possible stride. The last frames, fewer than 8,
  are repeated in turn to fill a clip. The tracklet's feature is the mean of the clips' features.
- ``frames``: the mean of all frames.

A clip's feature is the mean of its frames' features, so both poolings are weighted means of frames, and
:class:`TrackletPool` adds up one frame at a time. The two are equal for 1, 2 and 4 frames and for multiples of 8; else
the repeated frames weigh more. Both are L2-normalised at the end.

Shape letters: B frames of a batch, D feature dimensions, N tracklets, T frames of a tracklet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict, get_args

import numpy as np
import torch
import torch.nn.functional as F

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.protocols import Pooling

CLIP_LENGTH = 8
CLIP_STRIDE = 4


def clips_of(num_frames: int, length: int = CLIP_LENGTH, stride: int = CLIP_STRIDE) -> list[list[int]]:
    """The clips of a tracklet, each as `length` frame numbers from 0.

    Raises:
        ClearError: a tracklet without frames.
    """
    if num_frames < 1:
        raise ClearError("a tracklet has no frames")
    stretch = length * stride
    clips = [
        list(range(begin + offset, begin + stretch, stride))
        for begin in range(0, num_frames - stretch + 1, stretch)
        for offset in range(stride)
    ]
    begin = num_frames // stretch * stretch
    smaller = (num_frames - begin) // length
    clips += [list(range(begin + offset, begin + length * smaller, smaller)) for offset in range(smaller)]
    rest = list(range(num_frames // length * length, num_frames))
    if rest:
        clips.append([rest[place % len(rest)] for place in range(length)])
    return clips


def frame_weights(num_frames: int, pooling: Pooling) -> np.ndarray:
    """The weight of each frame in the tracklet's mean, float64 [T], sum 1.

    Raises:
        ClearError: an unknown pooling, or a tracklet without frames.
    """
    if pooling not in get_args(Pooling):
        raise ClearError(f"tracklet pooling {pooling!r} is unknown; known: {', '.join(get_args(Pooling))}")
    if pooling == "frames":
        if num_frames < 1:
            raise ClearError("a tracklet has no frames")
        return np.full(num_frames, 1.0 / num_frames)
    clips = np.array(clips_of(num_frames))
    return np.bincount(clips.reshape(-1), minlength=num_frames) / clips.size


class PoolState(TypedDict):
    """A pool's tracklets, how often each of their frames came so far, int64 [T], and their sums [N, D] by pooling."""

    tracklets: list[int]
    seen: list[np.ndarray]
    sums: dict[Pooling, torch.Tensor]


class TrackletPool:
    """Adds up the features of frames, in any order, to one feature per tracklet and pooling.

    Memory: one float64 sum per tracklet and pooling, and one number per frame.
    """

    def __init__(self, poolings: Iterable[Pooling]) -> None:
        self.poolings = tuple(dict.fromkeys(poolings))
        self._sums: dict[Pooling, dict[int, torch.Tensor]] = {pooling: {} for pooling in self.poolings}
        self._weights: dict[tuple[int, Pooling], np.ndarray] = {}
        self._seen: dict[int, np.ndarray] = {}

    def add(self, features: torch.Tensor, tracklets: torch.Tensor, frames: torch.Tensor, lengths: torch.Tensor) -> None:
        """Adds frames: features [B, D]; int64 [B] each: tracklet, place in it, and its number of frames."""
        features = features.detach().to("cpu", torch.float64)
        for feature, tracklet, frame, length in zip(features, tracklets.tolist(), frames.tolist(), lengths.tolist()):
            if tracklet not in self._seen:
                self._seen[tracklet] = np.zeros(length, np.int64)
            self._seen[tracklet][frame] += 1
            for pooling in self.poolings:
                if (length, pooling) not in self._weights:
                    self._weights[length, pooling] = frame_weights(length, pooling)
                weighted = feature * self._weights[length, pooling][frame]
                sums = self._sums[pooling]
                sums[tracklet] = sums[tracklet] + weighted if tracklet in sums else weighted

    def state(self) -> PoolState:
        """The frames so far, for :meth:`merge` in another process."""
        tracklets = list(self._seen)
        sums = {
            pooling: torch.stack([self._sums[pooling][tracklet] for tracklet in tracklets])
            if tracklets
            else torch.empty(0)
            for pooling in self.poolings
        }
        return {"tracklets": tracklets, "seen": list(self._seen.values()), "sums": sums}

    def merge(self, state: PoolState) -> None:
        """Adds the frames of another pool."""
        for place, (tracklet, seen) in enumerate(zip(state["tracklets"], state["seen"])):
            for pooling, stacked in state["sums"].items():
                sums = self._sums[pooling]
                sums[tracklet] = sums[tracklet] + stacked[place] if tracklet in self._seen else stacked[place]
            self._seen[tracklet] = self._seen.get(tracklet, 0) + seen

    def features(self, pooling: Pooling, num_tracklets: int) -> torch.Tensor:
        """The normalised features of tracklets 0 to N - 1, float32 [N, D].

        Raises:
            ClearError: a tracklet is missing, or has not each of its frames once.
        """
        wrong = [
            f"{tracklet} ({self._frames_of(tracklet)})"
            for tracklet in range(num_tracklets)
            if tracklet not in self._seen or (self._seen[tracklet] != 1).any()
        ]
        if wrong:
            raise ClearError(
                f"tracklets that do not have each of their frames once: {', '.join(wrong[:5])}, {len(wrong)} in all"
            )
        if not num_tracklets:
            return torch.zeros((0, 1))
        sums = torch.stack([self._sums[pooling][tracklet] for tracklet in range(num_tracklets)])
        return F.normalize(sums, dim=1).float()

    def _frames_of(self, tracklet: int) -> str:
        """In words, which of a tracklet's frames came."""
        if tracklet not in self._seen:
            return "0 of ? frames"
        seen = self._seen[tracklet]
        repeated = int((seen > 1).sum())
        more = f", {repeated} of them more than once" if repeated else ""
        return f"{int((seen > 0).sum())} of {len(seen)} frames{more}"
