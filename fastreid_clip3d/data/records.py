"""One item of a dataset: fast-reid's 3-tuple (path, pid, camid), with clothes and frames as attributes."""

from __future__ import annotations

from typing import Any


class Record(tuple):
    """An image, or a tracklet of images, of one person.

    For fast-reid it is the tuple ``(path, pid, camid)``: it has length 3, unpacks and compares as that tuple, so
    samplers, ``CommDataset`` and ``combine_all`` take it.

    Attributes:
        path: the image; of a tracklet its first frame, for code that reads images only.
        pid: the person, in train a string ``<dataset>_<number>`` (as in fast-reid, unique over datasets), in query and
            gallery an int of one id space.
        camid: the camera, a string or an int in the same way.
        clothes_id: the outfit, 0 or more, of one person of this split; -1: not known. Query and gallery share one id
            space. Over several training sets, ``(pid, clothes_id)`` is unique.
        frames: the paths of a tracklet in order of time; empty for an image.
    """

    path: str
    pid: int | str
    camid: int | str
    clothes_id: int
    frames: tuple[str, ...]

    def __new__(
        cls, path: str, pid: int | str, camid: int | str, clothes_id: int = -1, frames: tuple[str, ...] = ()
    ) -> Record:
        record = super().__new__(cls, (path, pid, camid))
        record.__dict__.update(path=path, pid=pid, camid=camid, clothes_id=clothes_id, frames=tuple(frames))
        return record

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Record cannot be changed; use record.replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Record cannot be changed")

    def __reduce__(self) -> tuple[Any, ...]:
        # A tuple's own recipe would rebuild it from its three elements and fail on the signature above.
        return type(self), (self.path, self.pid, self.camid, self.clothes_id, self.frames)

    def __repr__(self) -> str:
        frames = f", frames=<{len(self.frames)}>" if self.frames else ""
        return f"Record({self.path!r}, pid={self.pid!r}, camid={self.camid!r}, clothes_id={self.clothes_id}{frames})"

    def replace(self, **changes: Any) -> Record:
        """A copy with some of the five attributes changed."""
        fields = dict(vars(self))
        unknown = set(changes) - set(fields)
        if unknown:
            raise TypeError(f"a Record has no {', '.join(sorted(unknown))}")
        return type(self)(**{**fields, **changes})


def clothes_of(record: tuple) -> int:
    """The clothes id of a record; -1 for fast-reid's plain tuple."""
    return getattr(record, "clothes_id", -1)


def paths_of(record: tuple) -> tuple[str, ...]:
    """The image files of a record or of fast-reid's plain tuple: the frames of a tracklet, or the one image."""
    return getattr(record, "frames", ()) or (record[0],)
