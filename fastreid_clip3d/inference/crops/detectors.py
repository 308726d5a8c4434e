"""People in a frame by a detector that the user has: ultralytics, or torchvision's Faster R-CNN and SSDLite.

We ship no detector and download no weights. ultralytics, and roboflow's trackers and supervision, are imported by name
when they are asked for; they are no requirements of this package.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torchvision.models import detection

from fastreid_clip3d.common.devices import find_device
from fastreid_clip3d.common.names import printable
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.crops.box_files import Box
from fastreid_clip3d.inference.pictures import signature_of
from fastreid_clip3d.modeling.weights import read_file

DetectorName = Literal["", "ultralytics", "torchvision"]
LOWEST_SCORE = 0.05
"""torchvision's own threshold; :func:`~fastreid_clip3d.inference.crops.cut.cut_crops` applies the user's."""
PERSON_OF_TORCHVISION, PERSON_OF_ULTRALYTICS = 1, 0
"""COCO's class of people as the two count classes."""

TORCHVISION_WEIGHTS = {
    "fasterrcnn_resnet50_fpn_v2": detection.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
    "fasterrcnn_resnet50_fpn": detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    "fasterrcnn_mobilenet_v3_large_fpn": detection.FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1,
    "fasterrcnn_mobilenet_v3_large_320_fpn": detection.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1,
    "ssdlite320_mobilenet_v3_large": detection.SSDLite320_MobileNet_V3_Large_Weights.COCO_V1,
}
"""torchvision's detectors, the best one first, and where their weights are published."""


class Detector(Protocol):
    """Boxes of the people in a frame, uint8 [H, W, 3], BGR. A tracking detector takes a video's frames in order."""

    def __call__(self, frame: np.ndarray) -> list[Box]: ...


def build_detectors(name: DetectorName, weights: str, tracked: Sequence[bool], device: str = "") -> list[Detector]:
    """A detector for each video or set of photos: each has its own tracker; those of torchvision share one network.

    Args:
        tracked: by video or set of photos. The others and the errors are those of :func:`build_detector`.
    """
    if _is_ultralytics(name, weights):
        return [UltralyticsDetector(weights, one, device) for one in tracked]
    detector = TorchvisionDetector(weights, device)
    return [ByteTracked(detector) if one else detector for one in tracked]


def build_detector(name: DetectorName, weights: str, tracked: bool, device: str = "") -> Detector:
    """A detector for the frames of one video, or for photos.

    Args:
        name: "": torchvision for weights that end in .pth, else ultralytics; without weights torchvision, if its
            weights lie in torch's cache.
        weights: the file; "": torchvision's in torch's cache.
        tracked: whether boxes carry the track of their person. ultralytics tracks itself; for torchvision ByteTrack of
            roboflow's ``trackers`` does it.
        device: as in ``load_model``.

    Raises:
        ClearError: a library or weights are missing; the message says what to install or download.
    """
    return build_detectors(name, weights, [tracked], device)[0]


def _is_ultralytics(name: DetectorName, weights: str) -> bool:
    return name == "ultralytics" or bool(not name and weights and not weights.endswith(".pth"))


class UltralyticsDetector:
    """A YOLO model of ultralytics, with its own tracker where tracks are wanted."""

    def __init__(self, weights: str, tracked: bool, device: str = "") -> None:
        if not weights:
            raise ClearError("Name the weights of the YOLO model: --weights FILE.pt. They are not downloaded.")
        if not Path(weights).exists():
            raise ClearError(f"{printable(weights)}: no such weights file. They are not downloaded.")
        library = _library("ultralytics", "ultralytics, or take boxes from a file with --boxes")
        self.model, self.tracked = library.YOLO(weights), tracked
        self.about = _about("ultralytics", Path(weights), tracked)
        self.device = str(find_device(device))

    def __call__(self, frame: np.ndarray) -> list[Box]:
        options = {
            "classes": [PERSON_OF_ULTRALYTICS],
            "conf": LOWEST_SCORE,
            "verbose": False,
            "device": self.device,
        }
        if self.tracked:
            found = self.model.track(frame, persist=True, **options)[0].boxes
        else:
            found = self.model.predict(frame, **options)[0].boxes
        corners, scores = found.xyxy.cpu().tolist(), found.conf.cpu().tolist()
        tracks = [""] * len(corners) if found.id is None else [str(int(track)) for track in found.id.cpu().tolist()]
        return [_box(corner, score, track) for corner, score, track in zip(corners, scores, tracks)]


class TorchvisionDetector:
    """Faster R-CNN or SSDLite of torchvision, from a file of its weights (COCO's 91 classes)."""

    def __init__(self, weights: str, device: str = "") -> None:
        path = Path(weights) if weights else _cached_weights()
        self.about = _about("torchvision", path, tracked=False)
        state = _read_state(path)
        name = _architecture(path, state)
        self.model: Any = detection.__dict__[name](weights=None, weights_backbone=None, num_classes=91)
        self.model.load_state_dict(state)
        self.device = find_device(device)
        self.model.eval().requires_grad_(False).to(self.device)

    @torch.no_grad()
    def __call__(self, frame: np.ndarray) -> list[Box]:
        image = torch.from_numpy(np.ascontiguousarray(frame[:, :, ::-1])).permute(2, 0, 1)
        (found,) = self.model([image.to(self.device).float() / 255])
        people = (found["labels"] == PERSON_OF_TORCHVISION) & (found["scores"] >= LOWEST_SCORE)
        corners, scores = found["boxes"][people].cpu().tolist(), found["scores"][people].cpu().tolist()
        return [_box(corner, score) for corner, score in zip(corners, scores)]


class ByteTracked:
    """A detector whose boxes ByteTrack of roboflow's ``trackers`` joins to tracks."""

    def __init__(self, detector: Detector) -> None:
        hint = "trackers (ByteTrack joins the boxes of a video to tracks), or give --no-tracks"
        self.detector, self.about = detector, {**getattr(detector, "about", {}), "tracked": True}
        self.tracker: Any = _library("trackers", hint).ByteTrackTracker()
        self.supervision = _library("supervision", hint)

    def __call__(self, frame: np.ndarray) -> list[Box]:
        return self.join(self.detector(frame))

    def join(self, boxes: list[Box]) -> list[Box]:
        """The boxes of the next frame with their tracks."""
        corners = np.array([box[:4] for box in boxes], dtype=np.float32).reshape(-1, 4)
        scores = np.array([box.score for box in boxes], dtype=np.float32)
        found = self.tracker.update(self.supervision.Detections(xyxy=corners, confidence=scores))
        tracks = found.tracker_id if found.tracker_id is not None else np.full(len(found), -1)
        return [
            _box(corner, float(score), "" if track < 0 else str(int(track)))
            for corner, score, track in zip(found.xyxy.tolist(), found.confidence, tracks)
        ]


def _about(name: str, weights: Path, tracked: bool) -> dict[str, Any]:
    """What decides the boxes of a detector, as json takes it."""
    signature = signature_of([(weights.name, weights)])
    return {"detector": name, "weights": printable(weights.name), "signature": signature, "tracked": tracked}


def _box(corners: Sequence[float], score: float, track: str = "") -> Box:
    x1, y1, x2, y2 = corners
    return Box(x1, y1, x2, y2, score, track)


def _library(name: str, hint: str) -> Any:
    if importlib.util.find_spec(name) is None:
        raise ClearError(f"This needs {name}, which is not installed: pip install {hint}.")
    return importlib.import_module(name)


def _cached_weights() -> Path:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for weights in TORCHVISION_WEIGHTS.values():
        path = folder / weights.url.rsplit("/", 1)[-1]
        if path.is_file():
            return path
    small = TORCHVISION_WEIGHTS["ssdlite320_mobilenet_v3_large"].url
    raise ClearError(
        f"There are no weights of a detector: none of torchvision's lie in {folder}. Give --weights FILE.pt of a YOLO "
        f"model (pip install ultralytics), or download torchvision's (the smallest: {small}) and give --weights "
        "FILE.pth, or take boxes from a file with --boxes."
    )


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    state = read_file(path, "--weights")
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ClearError(f"{printable(str(path))} is no dict of weights, as torchvision publishes its detectors.")
    return state


def _architecture(path: Path, state: dict[str, torch.Tensor]) -> str:
    """The detector that a file's weights fit; files of the same weights are told apart by their names."""
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    by_name = sorted(TORCHVISION_WEIGHTS, key=lambda name: (not path.name.startswith(f"{name}_coco"), len(name)))
    for name in by_name:
        with torch.device("meta"):
            model = detection.__dict__[name](weights=None, weights_backbone=None, num_classes=91)
        if {key: tuple(value.shape) for key, value in model.state_dict().items()} == shapes:
            return name
    raise ClearError(
        f"{printable(str(path))} fits none of torchvision's detectors with COCO's 91 classes: "
        f"{', '.join(TORCHVISION_WEIGHTS)}."
    )
