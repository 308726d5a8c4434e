"""Images per second of labelling from image files, and of open_clip's bare forward pass on ready tensors."""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tools.benchmark.figures import write_figures
from tools.benchmark.memory import mib_text, peak_mib

LEAST_RATIO = 0.9
"""Least allowed speed of labelling from files, divided by that of the bare forward pass."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's options."""
    parser.add_argument(
        "--teacher", default="embedded", help="open_clip model, local-dir:FOLDER or embedded (embedded)"
    )
    parser.add_argument("--pretrained", default="", help="open_clip's pretrained tag or a weights file")
    parser.add_argument(
        "--random-weights", metavar="NAME", default="",
        help="this model of open_clip with random weights instead of --teacher: ViT-L-14 is as fast as with real ones",
    )  # fmt: skip
    parser.add_argument(
        "--images",
        type=int,
        default=512,
        help="images per measurement, which includes the start of the reading processes (512)",
    )
    parser.add_argument(
        "--size", type=int, nargs=2, default=(256, 128), metavar=("H", "W"), help="size of the image files (256 128)"
    )
    parser.add_argument("--batch", type=int, default=64, help="images per forward pass (64)")
    parser.add_argument("--workers", type=int, help="processes that read and resize (2 with CUDA, else 0)")
    parser.add_argument("--device", default="", help="cpu or cuda (cuda if there is one)")
    parser.add_argument("--repeats", type=int, default=3, help="measurements, taken in turn; the median is printed (3)")
    parser.add_argument("--json", metavar="FILE", default="", help="also write the figures to FILE")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures, prints a table and returns the figures.

    The bare pass is that of the model as open_clip loads it, in the teacher's precision and memory format, on one
    normalised batch on the device. Labelling starts its reading processes, reads JPEG files, resizes, copies, encodes,
    scores and chooses.

    Returns:
        ``bare_per_second``, ``labelled_per_second``, their ``ratio`` (1: reading and choosing cost nothing),
        ``limit`` and ``met`` (whether the ratio reaches it), ``bare_peak_mib`` and ``labelled_peak_mib`` (memory above
        the loaded teacher: device memory on CUDA, resident memory of the main process on a CPU, None where the system
        does not report it), ``device``, ``teacher``, ``batch``, ``workers``.
    """
    if not arguments.random_weights:
        return _measure(arguments, arguments.teacher, arguments.pretrained)
    with random_teacher(arguments.random_weights) as name:
        return _measure(arguments, name, "")


@contextlib.contextmanager
def random_teacher(model: str) -> Iterator[str]:
    """A folder with random weights of one of open_clip's models, under the name that ``--teacher`` takes.

    Raises:
        ClearError: open_clip has no such model; names similar ones.
    """
    import open_clip
    from safetensors.torch import save_file

    from fastreid_clip3d.common.near_names import did_you_mean
    from fastreid_clip3d.errors import ClearError

    model = model.replace("/", "-")
    known = open_clip.list_models()
    if model not in known:
        raise ClearError(f"--random-weights {model} is no model of open_clip. {did_you_mean(model, known)}")
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        made = open_clip.create_model(model, pretrained=None, pretrained_image=False, pretrained_text=False)
        config = {
            "model_cfg": open_clip.get_model_config(model),
            "preprocess_cfg": {"size": made.visual.image_size, "mean": open_clip.OPENAI_DATASET_MEAN,
                               "std": open_clip.OPENAI_DATASET_STD},
        }  # fmt: skip
        weights = {name: value.contiguous() for name, value in made.state_dict().items()}
        save_file(weights, Path(folder) / "open_clip_model.safetensors")
        (Path(folder) / "open_clip_config.json").write_text(json.dumps(config))
        yield f"local-dir:{folder}"


def _measure(arguments: argparse.Namespace, name: str, pretrained: str) -> dict[str, Any]:
    from fastreid_clip3d.common.devices import find_device
    from fastreid_clip3d.teacher import load_teacher
    from fastreid_clip3d.teacher.clip import create_open_clip
    from fastreid_clip3d.teacher.listing import label_images, reading_processes
    from fastreid_clip3d.teacher.preprocess import normalize
    from fastreid_clip3d.teacher.sources import find_weights

    device = str(find_device(arguments.device))
    teacher = load_teacher(name, pretrained, device=device)
    workers = reading_processes(teacher) if arguments.workers is None else arguments.workers
    source = find_weights(name, pretrained)
    model = create_open_clip(source, name, pretrained).eval().to(device)
    if teacher._channels_last:
        model = model.to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        paths = _write_images(Path(folder), arguments.images, tuple(arguments.size))
        batch = torch.randint(0, 256, (arguments.batch, 3, *teacher.image_size), dtype=torch.uint8, device=device)
        ready = normalize(batch, teacher._mean, teacher._std)
        if teacher._channels_last:
            ready = ready.contiguous(memory_format=torch.channels_last)

        @torch.no_grad()
        def bare() -> None:
            for _ in range(-(-arguments.images // arguments.batch)):
                with teacher._autocast():
                    model.encode_image(ready)

        def labelled() -> None:
            for _ in label_images(teacher, paths, arguments.batch, workers):
                pass

        passes = -(-arguments.images // arguments.batch) * arguments.batch
        (bare_peak, _), (labelled_peak, _) = peak_mib(bare, device), peak_mib(labelled, device)
        bare_speeds, labelled_speeds = [], []
        for repeat in range(arguments.repeats + 1):
            speeds = passes / _seconds(bare, device), arguments.images / _seconds(labelled, device)
            if repeat:  # the first round is a warm-up
                bare_speeds.append(speeds[0])
                labelled_speeds.append(speeds[1])
    bare_speed, labelled_speed = statistics.median(bare_speeds), statistics.median(labelled_speeds)
    figures = {
        "device": torch.cuda.get_device_name()
        if device.startswith("cuda")
        else f"cpu, {torch.get_num_threads()} threads",
        "teacher": f"{arguments.random_weights} (random weights)"
        if arguments.random_weights
        else f"{arguments.teacher} {arguments.pretrained}".strip(),
        "batch": arguments.batch,
        "workers": workers,
        "bare_per_second": bare_speed,
        "labelled_per_second": labelled_speed,
        "ratio": labelled_speed / bare_speed,
        "limit": LEAST_RATIO,
        "met": labelled_speed >= LEAST_RATIO * bare_speed,
        "bare_peak_mib": bare_peak,
        "labelled_peak_mib": labelled_peak,
    }
    place = f"on {figures['device']}, batch {arguments.batch}, {workers} reading processes"
    print(f"teacher {figures['teacher']} {place}")
    print(f"{'open_clip, ready tensors':<28}{bare_speed:>10.1f} images/s{mib_text(bare_peak):>8} MiB")
    print(f"{'labelling from files':<28}{labelled_speed:>10.1f} images/s{mib_text(labelled_peak):>8} MiB")
    verdict = "met" if figures["met"] else "NOT met"
    print(f"ratio {figures['ratio']:.2f} (at least {LEAST_RATIO}: {verdict})")
    write_figures(arguments.json, figures)
    return figures


def _write_images(folder: Path, count: int, size: tuple[int, int]) -> list[str]:
    from PIL import Image

    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        small = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
        path = folder / f"{number:05d}.jpg"
        Image.fromarray(small).resize((size[1], size[0]), Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(str(path))
    return paths


def _seconds(work: Callable[[], None], device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started
