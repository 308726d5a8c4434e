"""Which cache a training reads, and what is loaded for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastreid_clip3d.teacher import TeacherCache, build_cache, guidance
from tests.standins import small_config


@pytest.fixture(autouse=True)
def forget_loaded() -> None:
    guidance._guidance.cache_clear()
    guidance._loaded_teacher.cache_clear()


def config(model_folder: Path, folder: Path, *names: str):
    cfg = small_config(f"local-dir:{model_folder}")
    cfg.MODEL.TEACHER.CACHE_DIR, cfg.MODEL.TEACHER.MODE, cfg.DATASETS.NAMES = str(folder), "auto", names
    return cfg


def test_each_training_set_has_a_cache_of_its_own(teacher, model_folder, pictures, tmp_path) -> None:
    first, second = (config(model_folder, tmp_path / "caches", name) for name in ("SynthCCTiny", "MyData"))
    assert guidance.cache_folder(first) != guidance.cache_folder(second)
    build_cache(pictures[:4], teacher, guidance.cache_folder(first), progress=False)
    build_cache(pictures[4:], teacher, guidance.cache_folder(second), progress=False)
    for cfg, own in ((first, pictures[:4]), (second, pictures[4:])):
        cache = TeacherCache(guidance.cache_folder(cfg))
        assert len(cache) == len(own) and not cache.missing(own)
    assert guidance.cache_folder(config(model_folder, tmp_path, "A", "B")) == guidance.cache_folder(
        config(model_folder, tmp_path, "B", "A")
    )


def test_auto_runs_the_teacher_where_the_training_set_has_no_cache(teacher, model_folder, pictures, tmp_path) -> None:
    with_cache, without = (config(model_folder, tmp_path / "caches", name) for name in ("SynthCCTiny", "MyData"))
    build_cache(pictures, teacher, guidance.cache_folder(with_cache), progress=False)
    assert guidance.guidance_from_config(with_cache).cache is not None
    assert guidance.guidance_from_config(without).teacher is not None


def test_with_a_cache_no_teacher_stays_in_memory(teacher, model_folder, pictures, tmp_path, monkeypatch) -> None:
    cfg = config(model_folder, tmp_path, "SynthCCTiny")
    build_cache(pictures, teacher, guidance.cache_folder(cfg), progress=False)
    devices = []
    original = guidance.load_teacher

    def record(name, pretrained, resize, device, precision):
        devices.append(device)
        return original(name, pretrained, resize, device, precision)

    monkeypatch.setattr(guidance, "load_teacher", record)
    cfg.MODEL.DEVICE = "cuda"
    found = guidance.guidance_from_config(cfg)
    assert found.teacher is None and devices == ["cpu"]
    assert guidance._loaded_teacher.cache_info().currsize == 0
