"""Items and batches of the training set, and the loaders that a config builds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fastreid.data.transforms import build_transforms
from PIL import Image

from fastreid_clip3d.data.build import TestImages, build_train_loader
from fastreid_clip3d.data.records import Record
from fastreid_clip3d.data.synthetic_bodies import SyntheticBodies
from fastreid_clip3d.data.training_set import MixedImages, RealImages, collate
from fastreid_clip3d.errors import ClearError
from tests.standins import small_config, write_bodies


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


@pytest.fixture()
def image_files(tmp_path: Path) -> list[str]:
    """Six images whose left and right halves differ."""
    paths = []
    for number in range(6):
        array = np.zeros((16, 8, 3), dtype=np.uint8)
        array[:, :4] = 40 * number + 10
        path = tmp_path / f"{number}.png"
        Image.fromarray(array).save(path)
        paths.append(str(path))
    return paths


def records_of(paths: list[str]) -> list[Record]:
    return [
        Record(path, f"p{number // 2}", f"c{number % 2}", clothes_id=number // 2) for number, path in enumerate(paths)
    ]


class Answers:
    """Answers that tell which image and side was asked for."""

    def lookup(self, path: str, flipped: bool) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([float(Path(path).stem), float(flipped)]), torch.full((16,), int(flipped))


class Synthetic(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict:
        return {
            "synthetic_images": torch.full((3, 16, 8), float(index)),
            "synthetic_betas": torch.full((10,), float(index)),
            "synthetic_gender": index % 2,
            "synthetic_phrase_choices": torch.ones(16, dtype=torch.int64),
        }


def test_an_item_has_class_numbers_and_the_requested_parts(image_files: list[str]) -> None:
    real = RealImages(records_of(image_files), pixels)
    assert set(real[3]) == {"images", "targets", "camids", "clothes_ids", "img_paths"}
    assert (real[3]["targets"], real[3]["camids"], real[3]["clothes_ids"]) == (1, 1, 1)
    assert real.num_classes == 3 and real.num_cameras == 2
    assert torch.equal(real.clothes_of_person, torch.eye(3, dtype=torch.bool))
    online = RealImages(records_of(image_files), pixels, teacher_transform=pixels)
    assert torch.equal(online[2]["teacher_images"], online[2]["images"])


def test_teacher_sees_the_same_side_as_the_student(image_files: list[str]) -> None:
    torch.manual_seed(0)
    real = RealImages(records_of(image_files), pixels, 0.5, teacher_transform=pixels, teacher_answers=Answers())
    sides = []
    for _ in range(40):
        item = real[4]
        flipped = bool(item["images"][0, 0, 0] == 0)
        sides.append(flipped)
        assert torch.equal(item["images"], item["teacher_images"])
        assert item["teacher_features"].tolist() == [4.0, float(flipped)]
        assert item["phrase_choices"].tolist() == [int(flipped)] * 16
    assert 8 < sum(sides) < 32


def test_teacher_sees_no_appearance_augmentation(image_files: list[str]) -> None:
    cfg = small_config()
    cfg.INPUT.SIZE_TRAIN = [16, 8]
    cfg.INPUT.REA.ENABLED, cfg.INPUT.REA.PROB, cfg.INPUT.CJ.ENABLED, cfg.INPUT.CJ.PROB = True, 1.0, True, 1.0
    real = RealImages(records_of(image_files), build_transforms(cfg), teacher_transform=pixels)
    clean = pixels(Image.open(image_files[1]))
    item = real[1]
    assert torch.equal(item["teacher_images"], clean) and not torch.equal(item["images"], clean)


def test_plain_fastreid_tuples_have_no_clothes(image_files: list[str]) -> None:
    real = RealImages([(path, number, 0) for number, path in enumerate(image_files)], pixels)
    assert real[0]["clothes_ids"] == -1 and real.clothes_of_person.shape == (6, 0)


def test_a_tracklet_gives_one_of_its_frames(image_files: list[str]) -> None:
    real = RealImages([Record(image_files[0], "p0", "c0", frames=tuple(image_files))], pixels)
    torch.manual_seed(0)
    assert len({real[0]["img_paths"] for _ in range(50)}) == 6
    assert real.image_paths == image_files


def test_halves_of_a_batch_stay_apart(image_files: list[str]) -> None:
    mixed = MixedImages(RealImages(records_of(image_files), pixels), Synthetic())
    assert len(mixed) == 6 and mixed.num_classes == 3
    batch = collate([mixed[index] for index in (0, 7, 5, 10)])
    assert batch["images"].shape == (2, 3, 16, 8) and batch["targets"].tolist() == [0, 2]
    assert batch["synthetic_images"].shape == (2, 3, 16, 8)
    assert batch["synthetic_betas"][:, 0].tolist() == [1.0, 4.0] and batch["synthetic_gender"].tolist() == [1, 0]
    assert "synthetic_images" not in collate([mixed[0], mixed[1]])
    for value in batch.values():
        assert value is not None
    laid_out = collate([mixed[index] for index in (0, 7, 5, 10)], channels_last=True)
    for key in ("images", "synthetic_images"):
        assert laid_out[key].is_contiguous(memory_format=torch.channels_last) and torch.equal(laid_out[key], batch[key])


def test_frames_of_test_tracklets_say_whose_they_are(image_files: list[str]) -> None:
    records = [
        Record(image_files[0], 1, 0, 0, frames=tuple(image_files[:2])),
        Record(image_files[2], 2, 1, 1, frames=tuple(image_files[2:5])),
    ]
    test_set = TestImages(records, pixels)
    items = [test_set[index] for index in range(len(test_set))]
    assert [item["tracklet_ids"] for item in items] == [0, 0, 1, 1, 1]
    assert [item["frame_ids"] for item in items] == [0, 1, 0, 1, 2]
    assert [item["tracklet_lengths"] for item in items] == [2, 2, 3, 3, 3]
    assert [item["targets"] for item in items] == [1, 1, 2, 2, 2]
    assert [item["img_paths"] for item in items] == image_files[:5]
    assert "tracklet_ids" not in TestImages([Record(image_files[0], 1, 0)], pixels)[0]


def csv_of(root: Path, people: int = 6, images: int = 4) -> None:
    """A CSV dataset that CSVDataset reads: people x images, half of everybody's images as query and gallery."""
    generator = np.random.default_rng(0)
    lines = ["path,pid,camid,clothes,split"]
    for person in range(people):
        for number in range(images):
            for split in ("train", "query", "gallery") if number < 2 else ("train",):
                name = f"{split}_{person}_{number}.png"
                Image.fromarray(generator.integers(0, 255, (16, 8, 3), dtype=np.uint8)).save(root / name)
                lines.append(f"{name},{person},{number + (10 if split == 'gallery' else 0)},{number},{split}")
    (root / "dataset.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "sampler",
    [
        "MixedIdentitySampler",
        "NaiveIdentitySampler",
        "BalancedIdentitySampler",
        "TrainingSampler",
        "ImbalancedDatasetSampler",
    ],
)
def test_loader_gives_batches_of_the_configured_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    csv_of(tmp_path)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    cfg = small_config()
    cfg.DATASETS.NAMES = ("CSVDataset",)
    cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.NUM_INSTANCE, cfg.DATALOADER.NUM_WORKERS = sampler, 2, 0
    cfg.DATALOADER.SYNTHETIC_PER_BATCH, cfg.SOLVER.IMS_PER_BATCH = 0, 8
    loader = build_train_loader(cfg)
    assert len(loader.dataset) == 24 and loader.dataset.num_classes == 6
    batch = next(iter(loader))
    assert batch["images"].shape == (8, 3, 64, 32) and batch["targets"].shape == (8,)
    cfg.SOLVER.IMS_PER_BATCH = 26
    with pytest.raises(ClearError, match=r"\(CSVDataset\) has 24 images of 6 people, fewer images than one batch"):
        build_train_loader(cfg)
    cfg.SOLVER.IMS_PER_BATCH = 1
    with pytest.raises(ClearError, match="batch norm needs at least 2"):
        build_train_loader(cfg)


def test_a_damaged_training_image_stops_the_run_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv_of(tmp_path)
    for path in tmp_path.glob("train_3_*.png"):
        path.write_bytes(path.read_bytes()[:60])
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    cfg = small_config()
    cfg.DATASETS.NAMES = ("CSVDataset",)
    cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.NUM_INSTANCE, cfg.DATALOADER.NUM_WORKERS = "MixedIdentitySampler", 2, 1
    cfg.DATALOADER.SYNTHETIC_PER_BATCH, cfg.SOLVER.IMS_PER_BATCH = 0, 12
    with pytest.raises(ClearError, match=r"train_3_\d.png: cannot be read"):
        next(iter(build_train_loader(cfg)))


def test_synthetic_images_of_two_sizes_are_named(tmp_path: Path) -> None:
    folder = write_bodies(tmp_path / "bodies")
    Image.new("L", (24, 40)).save(folder / "images" / "00002_00.png")
    with np.load(folder / "index.npz") as arrays:
        changed = dict(arrays)
    changed["sizes"] = changed["sizes"].copy()
    changed["sizes"][2] = (folder / "images" / "00002_00.png").stat().st_size
    np.savez(folder / "index.npz", **changed)
    with pytest.raises(ClearError, match=r"00002_00.png is 24 x 40 pixels and .*00000_00.png 16 x 32: .*render-bodies"):
        SyntheticBodies(folder, pixels, cache_mib=100)


def test_unknown_sampler_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv_of(tmp_path)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    cfg = small_config()
    cfg.DATASETS.NAMES, cfg.DATALOADER.SAMPLER_TRAIN = ("CSVDataset",), "MixedIdentitySampl"
    with pytest.raises(ClearError, match="Did you mean MixedIdentitySampler"):
        build_train_loader(cfg)


def test_csv_files_named_in_the_config_are_datasets(tmp_path: Path) -> None:
    csv_of(tmp_path)
    cfg = small_config()
    cfg.DATASETS.NAMES, cfg.DATASETS.CSV = ("MyPeople",), (("MyPeople", str(tmp_path / "dataset.csv")),)
    cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.NUM_WORKERS, cfg.SOLVER.IMS_PER_BATCH = "TrainingSampler", 0, 4
    assert build_train_loader(cfg).dataset.num_classes == 6
