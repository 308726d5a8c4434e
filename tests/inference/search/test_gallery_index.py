"""The index of a gallery follows its folder, computes only what changed, and survives a kill at any moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest

from fastreid_clip3d.common import files
from fastreid_clip3d.common.images import UnreadableImage
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.inference.pictures import Entry, list_images
from fastreid_clip3d.inference.search import index as module
from fastreid_clip3d.inference.search.index import Gallery, index_folder, open_gallery
from fastreid_clip3d.inference.search.run import nearest

DIMS = 8


def vector_of(content: bytes) -> np.ndarray:
    vector = np.random.default_rng(list(content)).standard_normal(DIMS)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class Computing:
    """Vectors from the files' bytes; files that hold "bad" are unreadable; notes what it was asked for."""

    def __init__(self, after: Callable[[int], None] = lambda count: None) -> None:
        self.asked: list[str] = []
        self.after = after

    def __call__(self, entries):
        for entry in entries:
            self.after(len(self.asked))
            self.asked.append(os.path.basename(entry.name))
            content = b"".join(frame.read_bytes() for frame in entry.frames)
            yield entry, UnreadableImage(f"{entry.name}: bad") if b"bad" in content else vector_of(content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(10):
        (pictures / f"{number}.jpg").write_bytes(b"picture %d" % number)
    (pictures / "5.jpg").write_bytes(b"bad")
    return pictures


def opened(folder: Path, computing: Computing | None = None, **options) -> tuple[Gallery, list[str]]:
    computing = computing or Computing()
    gallery = open_gallery(folder, list_images([folder]), index_folder(folder, "key"), DIMS, computing, **options)
    return gallery, computing.asked


def check(gallery: Gallery, folder: Path) -> None:
    """The gallery is what a fresh look at the folder gives."""
    readable = [entry for entry in list_images([folder]) if b"bad" not in entry.frames[0].read_bytes()]
    assert gallery.entries == readable
    assert gallery.vectors.shape == (len(readable), DIMS)
    for entry, vector in zip(gallery.entries, gallery.vectors):
        assert np.array_equal(vector, vector_of(entry.frames[0].read_bytes()))


def test_the_second_time_nothing_is_computed_nor_written(folder: Path) -> None:
    gallery, asked = opened(folder)
    assert asked == [f"{number}.jpg" for number in range(10)]
    assert [name for name, _ in gallery.unreadable] == [str(folder / "5.jpg")]
    check(gallery, folder)
    before = {path: path.stat().st_mtime_ns for path in gallery.folder.iterdir()}
    assert len(before) == 2
    again, asked = opened(folder)
    assert asked == [] and again.unreadable == gallery.unreadable
    check(again, folder)
    assert before == {path: path.stat().st_mtime_ns for path in gallery.folder.iterdir()}


def test_added_changed_and_removed_pictures(folder: Path) -> None:
    opened(folder)
    (folder / "0a.jpg").write_bytes(b"new, and first")
    (folder / "3.jpg").write_bytes(b"picture 3, changed")
    (folder / "5.jpg").write_bytes(b"good now")
    (folder / "8.jpg").unlink()
    (folder / "7.jpg").rename(folder / "z.jpg")
    gallery, asked = opened(folder)
    assert sorted(asked) == ["0a.jpg", "3.jpg", "5.jpg", "z.jpg"] and gallery.unreadable == []
    assert (gallery.computed, gallery.removed) == (4, 2)
    check(gallery, folder)
    again, asked = opened(folder)
    assert asked == [] and again.removed == 0
    check(again, folder)


def test_a_changed_time_counts_as_a_change(folder: Path) -> None:
    opened(folder)
    os.utime(folder / "2.jpg", ns=(1, 1))
    assert opened(folder)[1] == ["2.jpg"]


def test_only_removed_pictures(folder: Path) -> None:
    opened(folder)
    for number in range(9):
        (folder / f"{number}.jpg").unlink()
    gallery, asked = opened(folder)
    assert asked == [] and len(gallery.entries) == 1
    check(gallery, folder)


def test_everything_unreadable_or_removed(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(b"bad")
    gallery, asked = opened(folder)
    assert gallery.vectors.shape == (0, DIMS) and len(gallery.unreadable) == len(asked) == 10
    assert opened(folder)[1] == []
    assert nearest(np.zeros((1, DIMS)), gallery, [Entry("q", (folder / "1.jpg",))], 3) == ([[]], [[]])


def test_rebuilding_computes_all(folder: Path) -> None:
    opened(folder)
    gallery, asked = opened(folder, rebuild=True)
    assert len(asked) == 10 and len(list(gallery.folder.iterdir())) == 2
    check(gallery, folder)


def test_a_moved_gallery_keeps_its_index(folder: Path, tmp_path: Path) -> None:
    opened(folder)
    folder.rename(tmp_path / "elsewhere")
    gallery, asked = opened(tmp_path / "elsewhere")
    assert asked == []
    check(gallery, tmp_path / "elsewhere")


def killed(work: Callable[[], None]) -> None:
    """Runs it in a process of its own, which must end by os._exit(9), as if killed."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def exit_after(wanted: int) -> Callable[[int], None]:
    return lambda count: os._exit(9) if count == wanted else None


def test_a_kill_while_computing_keeps_what_was_computed(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 3)
    killed(lambda: opened(folder, Computing(exit_after(8))))
    gallery, asked = opened(folder)
    assert asked == ["6.jpg", "7.jpg", "8.jpg", "9.jpg"]
    assert [name for name, _ in gallery.unreadable] == [str(folder / "5.jpg")]
    check(gallery, folder)
    assert sorted(path.suffix for path in gallery.folder.iterdir()) == [".faiss", ".npz"]


@pytest.mark.parametrize("moment", ["vectors-", "listing"])
def test_a_kill_while_writing_leaves_the_old_index_and_all_vectors(folder: Path, monkeypatch, moment: str) -> None:
    opened(folder)
    (folder / "new.jpg").write_bytes(b"new")
    replace = os.replace

    def die(source: Path, target: Path) -> None:
        if target.name.startswith(moment):
            os._exit(9)
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", die)
        killed(lambda: opened(folder))
    files._swept.clear()  # the next run is another process
    gallery, asked = opened(folder)
    assert asked == []
    check(gallery, folder)
    (folder / "newer.jpg").write_bytes(b"newer")
    gallery, _ = opened(folder)
    assert len(list(gallery.folder.iterdir())) == 2


@pytest.mark.parametrize("name", ["listing.npz", "vectors-*.faiss"])
@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_damaged_files_are_computed_again(folder: Path, name: str, damage: bytes | None) -> None:
    gallery, _ = opened(folder)
    (path,) = gallery.folder.glob(name)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    gallery, asked = opened(folder)
    assert len(asked) == 10
    check(gallery, folder)
    assert opened(folder)[1] == []


def test_a_header_that_asks_for_too_much_memory_is_computed_again(folder: Path) -> None:
    gallery, _ = opened(folder)
    (path,) = gallery.folder.glob("vectors-*.faiss")
    content = bytearray(path.read_bytes())
    content[37:45] = (1 << 37).to_bytes(8, "little")  # the number of bytes of vectors in faiss's format "IxFI"
    path.write_bytes(content)
    gallery, asked = opened(folder)
    assert len(asked) == 10
    check(gallery, folder)


def test_an_index_of_another_width_is_computed_again(folder: Path) -> None:
    gallery, _ = opened(folder)
    other = faiss.IndexFlatIP(DIMS + 1)
    other.add(np.zeros((9, DIMS + 1), np.float32))
    (path,) = gallery.folder.glob("vectors-*.faiss")
    faiss.write_index(other, str(path))
    gallery, asked = opened(folder)
    assert len(asked) == 10
    check(gallery, folder)


def test_a_folder_that_cannot_be_written_to(folder: Path, tmp_path: Path) -> None:
    (folder / ".fastreid_clip3d").write_text("a file where the folder should be")
    with pytest.raises(ClearError, match="--index FOLDER"):
        opened(folder)
    elsewhere = index_folder(folder, "key", tmp_path / "indices")
    assert elsewhere != index_folder(tmp_path / "other" / "pictures", "key", tmp_path / "indices")
    check(open_gallery(folder, list_images([folder]), elsewhere, DIMS, Computing()), folder)


def test_a_read_only_index_that_is_up_to_date_is_used(folder: Path, monkeypatch) -> None:
    opened(folder)

    def refuse(*arguments):
        raise ClearError("read-only")

    monkeypatch.setattr(module, "write_index", refuse)
    monkeypatch.setattr(module, "_check_writable", refuse)
    (folder / "4.jpg").unlink()
    gallery, asked = opened(folder)
    assert asked == []
    check(gallery, folder)
    (folder / "new.jpg").write_bytes(b"new")
    with pytest.raises(ClearError, match="read-only"):
        opened(folder)


def random_gallery(count: int, clusters: int, folder: Path) -> Gallery:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((clusters, 16))[rng.integers(0, clusters, count)] * 2 + rng.standard_normal(
        (count, 16)
    )
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    exact = faiss.IndexFlatIP(16)
    exact.add(vectors)
    return Gallery([Entry(f"{row}", (Path(f"{row}.jpg"),)) for row in range(count)], exact, [], folder, "a" * 32)


def test_the_exact_index_finds_what_brute_force_finds(tmp_path: Path) -> None:
    gallery = random_gallery(700, 30, tmp_path)
    queries = np.random.default_rng(1).standard_normal((40, 16)).astype(np.float32)
    asking = [Entry("q", (Path("elsewhere.jpg"),))] * 39 + [Entry("q", (Path("17.jpg"),))]
    rows, similarities = nearest(queries, gallery, asking, 10)
    products = queries.astype(np.float64) @ gallery.vectors.T.astype(np.float64)
    products[-1, 17] = -np.inf  # the query's own file
    for found, values, product in zip(rows, similarities, products):
        expected = np.argsort(-product, kind="stable")[:10]
        assert found == expected.tolist()
        assert values == pytest.approx(np.clip(product[expected], -1, 1), abs=1e-5)
