"""A video of people who walk past a wall, made from the crops of tests/footage (its NOTICE.txt says whose they are)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "tests" / "footage"
HEIGHT, WIDTH = 240, 480
FRAMES = 12


def people() -> dict[str, list[np.ndarray]]:
    """person1 ... person5 -> two crops each, uint8 [160, 64, 3], BGR."""
    return {
        folder.name: [cv2.imread(str(path)) for path in sorted(folder.glob("*.jpg"))]
        for folder in sorted(FOLDER.glob("person*"))
    }


def frames_and_boxes(names: tuple[str, ...] = ("person1", "person3", "person5")) -> tuple[list, list]:
    """uint8 frames [240, 480, 3], BGR, and truth (frame from 1, track, x, y, width, height); tracks are 1, 2, 3 ..."""
    crops, frames, truth = people(), [], []
    for number in range(1, FRAMES + 1):
        frame = np.full((HEIGHT, WIDTH, 3), (190, 200, 210), dtype=np.uint8)
        frame[180:] = (60, 90, 130)
        for track, name in enumerate(names, start=1):
            left, top = 20 + 150 * (track - 1) + 4 * number, 40 + 10 * track
            frame[top : top + 160, left : left + 64] = crops[name][number % 2]
            truth.append((number, track, left, top, 64, 160))
        frames.append(frame)
    return frames, truth


def write_video(path: Path, frames: list[np.ndarray]) -> Path:
    """Motion JPEG in .avi, which every OpenCV writes and reads, or MPEG-4 in .mp4."""
    height, width = frames[0].shape[:2]
    codec = cv2.VideoWriter_fourcc(*("mp4v" if path.suffix == ".mp4" else "MJPG"))
    writer = cv2.VideoWriter(str(path), codec, 10, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def write_mot(path: Path, truth: list[tuple]) -> Path:
    """MOTChallenge's text: frame,id,x,y,w,h,conf,-1,-1,-1."""
    path.write_text("".join(f"{','.join(map(str, row))},0.9,-1,-1,-1\n" for row in truth))
    return path
