"""MODEL.TEACHER.MODE auto: a cache that does not hold all training images is no reason to stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastreid_clip3d.config_loading import load_config
from fastreid_clip3d.engine.trainer import CLIP3DTrainer
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.teacher.cache import build_cache
from fastreid_clip3d.teacher.clip import load_teacher
from fastreid_clip3d.teacher.guidance import cache_folder
from tests.engine.tiny_run import CONFIG, options, write_datasets


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "datasets").mkdir()
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "datasets"))
    return write_datasets(tmp_path / "datasets")


def config(data: Path, output: Path, mode: str):
    cfg = load_config(
        CONFIG, options(data, output, MODEL__TEACHER__MODE=mode, MODEL__TEACHER__CACHE_DIR=str(data / "c"))
    )
    cfg.freeze()
    return cfg


def test_auto_trains_online_where_the_cache_lacks_images(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    cfg = config(data, tmp_path / "run", "auto")
    some = sorted(data.glob("train_*.png"))[:5]
    build_cache(some, load_teacher(cfg.MODEL.TEACHER.NAME), cache_folder(cfg), root=data, progress=False)
    trainer = CLIP3DTrainer(cfg)
    assert trainer.model.guidance.teacher is not None and trainer.cfg.MODEL.TEACHER.MODE == "online"
    assert "teacher_images" in next(iter(trainer.data_loader))
    with pytest.raises(ClearError, match="27 images are not in the cache"):
        CLIP3DTrainer(config(data, tmp_path / "run", "cached"))
