#!/usr/bin/env python
"""Computes the teacher's answers for every training image and its mirror image, once, for training to read."""

from __future__ import annotations

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fastreid_clip3d.errors import ClearError, run_tool  # noqa: E402

EXAMPLES = """\
examples:
  # the training images of a config, into datasets/teacher_cache (or MODEL.TEACHER.CACHE_DIR); again to go on or to mend
  python tools/cache_teacher.py --config-file configs/CLIP3D/celeb.yml

  # four GPUs (or machines: torchrun's own flags), every process its shards
  torchrun --nproc-per-node 4 tools/cache_teacher.py --config-file configs/CLIP3D/celeb.yml --workers 4

  # what changed since? reads the content of every image; computes nothing
  python tools/cache_teacher.py --config-file configs/CLIP3D/celeb.yml --check

  # another teacher into another folder
  python tools/cache_teacher.py --config-file configs/CLIP3D/celeb.yml MODEL.TEACHER.NAME ViT-B-32 \\
      MODEL.TEACHER.CACHE_DIR caches/vit-b-32

Training reads the cache with MODEL.TEACHER.MODE cached (or auto).
exit code: 0 complete, 1 other processes have not finished their shards yet, 2 an error
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default="", help="the training's config: its datasets and its teacher")
    parser.add_argument(
        "--batch", type=int, default=64, help="images a forward pass, each with its mirror image (default: 64)"
    )
    parser.add_argument("--workers", type=int, help="processes that read images (default: 2 beside CUDA, 0 on a CPU)")
    parser.add_argument(
        "--images-per-shard", type=int, default=1024, help="most that an interruption can lose (default: 1024)"
    )
    parser.add_argument("--rebuild", action="store_true", help="replace a cache that another teacher made")
    parser.add_argument("--check", action="store_true", help="only say whether the cache fits teacher and images")
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="changes to the config")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    from fastreid_clip3d.config import load_config
    from fastreid_clip3d.data.build import training_records
    from fastreid_clip3d.data.datasets import dataset_root
    from fastreid_clip3d.teacher.cache import TeacherCache, build_cache, local_device
    from fastreid_clip3d.teacher.clip import load_teacher
    from fastreid_clip3d.teacher.guidance import cache_folder
    from fastreid_clip3d.teacher.listing import reading_processes

    parsed = parse_arguments(arguments)
    if min(parsed.batch, parsed.images_per_shard) < 1 or (parsed.workers or 0) < 0:
        raise ClearError("--batch and --images-per-shard are at least 1, --workers at least 0.")
    cfg = load_config(parsed.config_file, parsed.options)
    rank, world_size = int(os.getenv("RANK", "0")), int(os.getenv("WORLD_SIZE", "1"))
    images = [path for record in training_records(cfg) for path in (getattr(record, "frames", ()) or (record[0],))]
    keys = cfg.MODEL.TEACHER
    teacher = load_teacher(keys.NAME, keys.PRETRAINED, keys.RESIZE, local_device(cfg.MODEL.DEVICE), keys.PRECISION)
    folder = cache_folder(cfg)
    if parsed.check:
        TeacherCache(folder).require(teacher.fingerprint, images, content=True)
        print(f"teacher cache {folder}: all {len(set(images))} images are there and unchanged, and so is the teacher")
        return 0
    result = build_cache(
        images,
        teacher,
        folder,
        root=_root(images, str(dataset_root())),
        images_per_shard=parsed.images_per_shard,
        batch=parsed.batch,
        num_workers=reading_processes(teacher) if parsed.workers is None else parsed.workers,
        rank=rank,
        world_size=world_size,
        rebuild=parsed.rebuild,
        progress=rank == 0,
    )
    print(
        f"teacher cache {folder}: {result.images} images; shards computed {result.computed}, kept {result.kept}, "
        f"still missing {result.missing}" + (f" (rank {rank} of {world_size})" if world_size > 1 else "")
    )
    return int(result.missing > 0 and world_size == 1)


def _root(images: list[str], datasets: str) -> str:
    """The folder of the datasets where all images lie below it, so that adding a dataset renames no image."""
    below = os.path.join(os.path.abspath(datasets), "")
    return datasets if all(os.path.abspath(path).startswith(below) for path in images) else ""


if __name__ == "__main__":
    run_tool(main)
