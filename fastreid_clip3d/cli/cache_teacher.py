"""Computes the teacher's answers for every training image and its mirror image, once, for training to read."""

from __future__ import annotations

import argparse
import os

from fastreid_clip3d.cli.run_options import add_batch_size, not_negative, positive

EXAMPLES = """\
examples:
  # the training images of a config, into datasets/teacher_cache (or MODEL.TEACHER.CACHE_DIR);
  # the same command goes on after an interruption and replaces what has changed
  clip3d cache-teacher --config-file CLIP3D/celeb.yml

  # four GPUs; torchrun's own flags start several machines. Each process computes its own shards
  torchrun --nproc-per-node 4 -m fastreid_clip3d cache-teacher --config-file CLIP3D/celeb.yml --workers 4

  # what has changed since? This reads every image and computes nothing
  clip3d cache-teacher --config-file CLIP3D/celeb.yml --check

  # another teacher into another folder
  clip3d cache-teacher --config-file CLIP3D/celeb.yml MODEL.TEACHER.NAME ViT-B-32 \\
      MODEL.TEACHER.CACHE_DIR caches/vit-b-32

Training reads the cache with MODEL.TEACHER.MODE cached (or auto).
exit code: 0 complete, 1 other processes have not finished their shards yet, 2 an error
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("--config-file", default="", help="the training's config: its datasets and its teacher")
    add_batch_size(parser)
    parser.add_argument(
        "--workers", type=not_negative, help="processes that read images (default: up to 8 beside CUDA, 0 on a CPU)"
    )
    parser.add_argument(
        "--images-per-shard",
        type=positive,
        default=1024,
        help="images that an interruption loses at most (default: 1024)",
    )
    parser.add_argument("--rebuild", action="store_true", help="replace a cache that another teacher made")
    parser.add_argument("--check", action="store_true", help="only report whether the cache fits teacher and images")
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="changes to the config")


def run(arguments: argparse.Namespace) -> int:
    """Computes the missing answers, or checks the cache."""
    from fastreid_clip3d.common.dataset_root import dataset_root
    from fastreid_clip3d.common.devices import find_local_device
    from fastreid_clip3d.config_loading import load_config
    from fastreid_clip3d.data.datasets.from_config import training_records
    from fastreid_clip3d.data.records import paths_of
    from fastreid_clip3d.teacher.cache import TeacherCache, build_cache
    from fastreid_clip3d.teacher.clip import load_teacher
    from fastreid_clip3d.teacher.guidance import cache_folder
    from fastreid_clip3d.teacher.listing import reading_processes

    cfg = load_config(arguments.config_file, arguments.options)
    rank, world_size = int(os.getenv("RANK", "0")), int(os.getenv("WORLD_SIZE", "1"))
    images = [path for record in training_records(cfg) for path in paths_of(record)]
    keys = cfg.MODEL.TEACHER
    teacher = load_teacher(
        keys.NAME, keys.PRETRAINED, keys.RESIZE, str(find_local_device(cfg.MODEL.DEVICE)), keys.PRECISION
    )
    folder = cache_folder(cfg)
    if arguments.check:
        TeacherCache(folder).require(teacher.fingerprint, images, content=True)
        print(f"teacher cache {folder}: all {len(set(images))} images are there and unchanged, and so is the teacher")
        return 0
    result = build_cache(
        images,
        teacher,
        folder,
        root=_root(images, dataset_root()),
        images_per_shard=arguments.images_per_shard,
        batch=arguments.batch_size,
        num_workers=reading_processes(teacher) if arguments.workers is None else arguments.workers,
        rank=rank,
        world_size=world_size,
        rebuild=arguments.rebuild,
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
