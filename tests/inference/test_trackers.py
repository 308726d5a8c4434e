"""TrackerEncoder against the real `reid`, `trackers` and `supervision`, and against the call that boxmot publishes."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import supervision
import torch
from reid import Interpolation, ReIDModel, ReIDPreprocessing, distance_matrix
from torch import nn
from trackers import ByteTrackTracker

from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.boxes import whole_pixels
from fastreid_clip3d.inference.model import TorchModel
from fastreid_clip3d.inference.trackers import TrackerEncoder
from tests.inference.conftest import picture

BOXES = np.array([[12, 8, 52, 88], [70, 20, 110, 100], [100, 0, 160, 120]], dtype=np.float32)


class StudentOfReid(nn.Module):
    """Our network behind reid's own cropping, resizing and scaling (0..1)."""

    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        self.network = model.network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network({"images": images * 255})


@pytest.fixture
def frame() -> np.ndarray:
    """uint8 [120, 160, 3], BGR, with three different people."""
    frame = np.array(picture(50, 120, 160))
    for seed, (left, top, right, bottom) in enumerate(BOXES.astype(int)):
        frame[top:bottom, left:right] = np.array(picture(seed, bottom - top, right - left))[:, :, ::-1]
    return frame


@pytest.fixture
def encoder(model: TorchModel) -> TrackerEncoder:
    return TrackerEncoder(model)


@pytest.fixture
def theirs(model: TorchModel) -> ReIDModel:
    settings = ReIDPreprocessing(
        input_size=model.size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation=Interpolation.BICUBIC
    )
    return ReIDModel(StudentOfReid(model), torch.device("cpu"), settings)


def test_reid_crops_and_computes_the_same_embeddings(
    encoder: TrackerEncoder, theirs: ReIDModel, frame: np.ndarray
) -> None:
    detections = supervision.Detections(xyxy=BOXES)
    raw = theirs.extract_embeddings(detections, frame)
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    ours = encoder.extract_embeddings(detections, frame)
    assert ours.dtype == np.float32 and np.abs(ours - expected).max() < 1e-5
    assert np.diag(distance_matrix(ours, raw)).max() < 1e-5 < distance_matrix(ours, raw)[0, 1]
    swapped = encoder.extract_embeddings(detections, np.ascontiguousarray(frame[:, :, ::-1]))
    assert np.abs(swapped - expected).max() > 1e-3, "the frame's colours are BGR"


def test_reid_embeds_the_same_files(encoder: TrackerEncoder, theirs: ReIDModel, folder: Path) -> None:
    paths = [str(path) for path in sorted(folder.glob("*.png"))]
    raw = theirs.extract_embeddings_from_paths(paths)
    ours = encoder.extract_embeddings_from_paths(paths, batch_size=4)
    assert np.abs(ours - raw / np.linalg.norm(raw, axis=1, keepdims=True)).max() < 1e-5


@pytest.mark.parametrize("name", ["extract_embeddings", "extract_embeddings_from_paths"])
def test_the_signatures_are_those_of_reid(name: str) -> None:
    def call(owner: type) -> list[tuple]:
        return [(p.name, p.kind, p.default) for p in inspect.signature(getattr(owner, name)).parameters.values()]

    assert call(TrackerEncoder) == call(ReIDModel)


def test_a_tracker_of_roboflow_gives_its_detections(encoder: TrackerEncoder, frame: np.ndarray) -> None:
    tracker = ByteTrackTracker(minimum_consecutive_frames=1)
    for step in range(3):
        moved = supervision.Detections(xyxy=BOXES + 2 * step, confidence=np.full(3, 0.9, dtype=np.float32))
        tracked = tracker.update(moved)
        features = encoder.extract_features(tracked, frame)
        assert features.shape == (len(tracked), encoder.model.feature_dim)
    assert sorted(tracked.tracker_id) == sorted(set(tracked.tracker_id)) and len(tracked) == 3
    assert features == pytest.approx(encoder(frame, tracked.xyxy))
    # the protocol ReIDEncoder, as roboflow/trackers publishes it in its pull request 511: it may meet no detection
    nobody = encoder.extract_features(supervision.Detections.empty(), frame)
    assert nobody.dtype == np.float32 and nobody.ndim == 2 and len(nobody) == 0


def test_boxmot_asks_with_boxes_and_image(encoder: TrackerEncoder, frame: np.ndarray) -> None:
    """BotSort(reid_model=...) calls get_features(boxes float [B, 4], image) on each frame, without boxes too."""
    detections = np.concatenate([BOXES, np.full((3, 2), 0.9, dtype=np.float32)], axis=1)
    features = encoder.get_features(detections[:, :4], frame)
    assert features.dtype == np.float32 and np.linalg.norm(features, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    crops = [frame[8:88, 12:52], frame[20:100, 70:110], frame[0:120, 100:160]]
    assert np.abs(features - encoder.model(crops, channels="BGR").numpy()).max() < 1e-6
    assert encoder.get_features(detections[:0, :4], frame).shape == (0, encoder.model.feature_dim)
    assert encoder.get_features(xyxys=BOXES, img=frame).shape == features.shape


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([10.4, 10.6, 20.5, 30.49], [10, 11, 20, 30]),  # round() of 20.5 is the even number
        ([-30, -5, 20, 30], [0, 0, 20, 30]),
        ([150, 100, 400, 400], [150, 100, 160, 120]),
        ([30, 30, 30, 30], [30, 30, 31, 31]),
        ([500, 500, 600, 600], [159, 119, 160, 120]),
        ([1e300, 0, -1e300, 10], [159, 0, 160, 10]),
    ],
)
def test_boxes_are_cut_at_the_edges_and_keep_a_pixel(box: list[float], expected: list[int]) -> None:
    assert whole_pixels(np.array([box]), 120, 160).tolist() == [expected]


def test_a_margin_is_a_share_of_the_boxs_size() -> None:
    assert whole_pixels(np.array([[50, 40, 70, 80]]), 120, 160, margin=0.1).tolist() == [[48, 36, 72, 84]]


@pytest.mark.parametrize(
    ("frame", "boxes", "message"),
    [
        (np.zeros((9, 9, 3), np.float32), [[0, 0, 5, 5]], "float32"),
        (np.zeros((9, 9), np.uint8), [[0, 0, 5, 5]], r"uint8 \(9, 9\)"),
        (np.zeros((9, 9, 3), np.uint8), [[0, 0, 5, 5, 0.1]], "without rotation"),
        (np.zeros((9, 9, 3), np.uint8), [[0, 0, 5, 5], [0, float("nan"), 5, 5]], "Box 1 of 2"),
    ],
)
def test_other_frames_and_boxes_are_refused(
    frame: np.ndarray, boxes: list, message: str, encoder: TrackerEncoder
) -> None:
    with pytest.raises(ClearError, match=message):
        encoder(frame, boxes)
