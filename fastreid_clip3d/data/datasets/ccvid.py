"""CCVID: tracklets. Lists of lines ``sessionS/PID_CAM... pid clothes``; the frames lie in the folder of the first
field."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from fastreid.data.datasets import DATASET_REGISTRY

from fastreid_clip3d.data.datasets.base import ClothesDataset, Item
from fastreid_clip3d.data.datasets.listing import SplitNotes, image_names, list_lines
from fastreid_clip3d.evaluation.protocols import Protocol

TRACKLET = re.compile(r"(?P<session>[^/]+)/[^_/]+_(?P<camera>[0-9]{1,9})(?![0-9])")
CAMERAS_OF_A_SESSION = 12


@DATASET_REGISTRY.register()
class CCVID(ClothesDataset):
    """CCVID (Gu et al., "Clothes-Changing Person Re-identification with RGB Modality Only", CVPR 2022).

    Every record is a tracklet with its ``frames``. In train the loader draws one frame per tracklet and pass, so that
    long tracklets weigh no more than short ones. The cameras of session3 differ from those of the first two.

    Protocols: ``general`` and ``CC`` with the published pooling of clips, and the same with the mean of all frames.
    """

    dataset_dir = "CCVID"
    dataset_name = "ccvid"
    layout = (
        "CCVID/{train,query,gallery}.txt with lines 'sessionS/PID_CAM pid clothes', frames in CCVID/sessionS/PID_CAM/"
    )
    official_counts = {
        "train": (75, 948),
        "query": (None, 834),
        "gallery": (None, 1074),
        "test": (151, None),
        "all": (226, 2856),
    }
    how_to_obtain = "from its authors, see https://github.com/guxinqian/Simple-CCReID."
    protocols = (
        Protocol("general", "general", tracklet_pooling="clips"),
        Protocol("CC", "CC", tracklet_pooling="clips"),
        Protocol("general-mean-of-frames", "general", tracklet_pooling="frames"),
        Protocol("CC-mean-of-frames", "CC", tracklet_pooling="frames"),
    )

    def read_split(self, split: str, notes: SplitNotes) -> Iterator[Item]:
        path = self.existing(f"{split}.txt")
        for number, line in list_lines(path):
            fields = line.replace("\\", "/").split()
            match = TRACKLET.match(fields[0])
            if len(fields) != 3 or match is None or not re.fullmatch(r"-?[0-9]{1,18}", fields[1]):
                notes.unmatched.append(f"{path}:{number}: {line}")
                continue
            tracklet, person, clothes = fields[0], int(fields[1]), fields[2]
            if person < 0:
                notes.junk.append(tracklet)
                continue
            folder = os.path.join(self.dataset_dir, *tracklet.split("/"))
            names = image_names(folder, notes) if os.path.isdir(folder) else []
            frames = tuple(os.path.join(folder, name) for name in names)
            if not frames:
                notes.missing.append(tracklet)
                continue
            camera = int(match["camera"]) + (CAMERAS_OF_A_SESSION if match["session"] == "session3" else 0)
            yield Item(frames[0], person, camera, outfit=f"{person}_{clothes}", frames=frames)
