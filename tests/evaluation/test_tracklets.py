"""Clips of the published protocol, and frames added up as they come."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.evaluation.tracklets import TrackletPool, clips_of, frame_weights


def test_clips_by_hand() -> None:
    assert clips_of(3) == [[0, 1, 2, 0, 1, 2, 0, 1]]
    assert clips_of(8) == [list(range(8))]
    assert clips_of(11) == [list(range(8)), [8, 9, 10, 8, 9, 10, 8, 9]]
    # 17 frames: two clips of every second frame, then the last one eight times
    assert clips_of(17) == [list(range(0, 16, 2)), list(range(1, 16, 2)), [16] * 8]
    # 41: four clips at stride 4, one at stride 1, and the last frame
    assert clips_of(41) == [list(range(offset, 32, 4)) for offset in range(4)] + [list(range(32, 40)), [40] * 8]


def test_every_frame_is_in_a_clip() -> None:
    for length in range(1, 140):
        clips = clips_of(length)
        assert all(len(clip) == 8 for clip in clips)
        assert sorted({frame for clip in clips for frame in clip}) == list(range(length))
        assert frame_weights(length, "clips").sum() == pytest.approx(1.0)


def test_both_poolings_agree_for_some_lengths_only() -> None:
    equal = [n for n in range(1, 70) if np.allclose(frame_weights(n, "clips"), frame_weights(n, "frames"))]
    assert equal == [1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64]


def test_frames_in_any_order_and_of_two_processes() -> None:
    torch.manual_seed(0)
    lengths = [11, 1, 19]
    frames = [torch.randn(length, 6) for length in lengths]
    tracklets = torch.tensor([tracklet for tracklet, length in enumerate(lengths) for _ in range(length)])
    numbers = torch.cat([torch.arange(length) for length in lengths])
    order = torch.randperm(sum(lengths))
    pools = [TrackletPool(["clips", "frames"]) for _ in range(2)]
    for pool, part in zip(pools, (order[:13], order[13:])):
        for batch in part.split(5):
            features = torch.cat(frames)[batch]
            pool.add(features, tracklets[batch], numbers[batch], torch.tensor(lengths)[tracklets[batch]])
    whole = TrackletPool(["clips", "frames"])
    for pool in pools:
        whole.merge(pool.state())
    clips = torch.stack([torch.stack([f[clip].mean(0) for clip in clips_of(len(f))]).mean(0) for f in frames])
    torch.testing.assert_close(whole.features("clips", 3), F.normalize(clips, dim=1))
    means = torch.stack([f.mean(0) for f in frames])
    torch.testing.assert_close(whole.features("frames", 3), F.normalize(means, dim=1))
    assert not torch.allclose(whole.features("clips", 3), whole.features("frames", 3), atol=1e-3)


def test_missing_and_repeated_frames_are_reported() -> None:
    pool = TrackletPool(["frames"])
    pool.add(torch.ones(3, 2), torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]), torch.tensor([2, 2, 4]))
    with pytest.raises(ClearError, match=r"1 \(1 of 4 frames\), 2 \(0 of \? frames\), 2 in all"):
        pool.features("frames", 3)
    twice = TrackletPool(["frames"])  # the first frame twice, the last one never, on two processes
    for frames in ([0, 1], [0]):
        part = TrackletPool(["frames"])
        place = torch.tensor(frames)
        part.add(torch.ones(len(frames), 2), torch.zeros_like(place), place, torch.full_like(place, 3))
        twice.merge(part.state())
    with pytest.raises(ClearError, match=r"each of their frames once: 0 \(2 of 3 frames, 1 of them more than once\)"):
        twice.features("frames", 1)
    with pytest.raises(ClearError, match="pooling 'mean' is unknown; known: clips, frames"):
        frame_weights(3, "mean")
    for pooling in ("clips", "frames"):
        with pytest.raises(ClearError, match="no frames"):
            frame_weights(0, pooling)
