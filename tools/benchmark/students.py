"""The costs of each student, for docs/students.md: parameters, GFLOPs, images per second, patches, width."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tools.benchmark.figures import write_figures
from tools.benchmark.markers import replace_between


class Student(NamedTuple):
    """A line of the table: ``MODEL.BACKBONE.NAME`` and ``DEPTH``, other keys, and the source of the weights."""

    name: str
    depth: str
    keys: dict[str, Any] = {}
    weights: str = "downloaded by fast-reid"


BY_PATH = "by PRETRAIN_PATH"
FROM_TIMM = "downloaded by timm"

STUDENTS: tuple[Student, ...] = (
    Student("build_resnet_backbone", "18x"),
    Student("build_resnet_backbone", "50x"),
    Student("build_resnet_backbone", "50x", {"WITH_IBN": True}),
    Student("build_resnet_backbone", "50x", {"WITH_NL": True}),
    Student("build_resnet_backbone", "101x", {"WITH_IBN": True, "WITH_SE": True}),
    Student("build_resnext_backbone", "101x", {"WITH_IBN": True}),
    Student("build_resnest_backbone", "50x"),
    Student("build_osnet_backbone", "x1_0"),
    Student("build_osnet_backbone", "x0_25"),
    Student("build_mobilenetv2_backbone", "1.0x", weights="by the demo, or PRETRAIN_PATH"),
    Student("build_mobilenetv2_last_stride_backbone", "1.0x", weights="by the demo, or PRETRAIN_PATH"),
    Student("build_mobilenetv3_last_stride_backbone", "Large"),
    Student("build_shufflenetv2_last_stride_backbone", "1.0x", weights=BY_PATH),
    Student("build_repvgg_backbone", "B0", weights=BY_PATH),
    Student("build_regnet_backbone", "800y"),
    Student("build_effnet_backbone", "b0"),
    Student("build_vit_backbone", "base", weights=BY_PATH),
    Student("build_timm_backbone", "tf_efficientnet_lite0", weights=FROM_TIMM),
    Student("build_timm_backbone", "convnext_tiny", weights=FROM_TIMM),
    Student("build_timm_backbone", "swin_tiny_patch4_window7_224", weights=FROM_TIMM),
    Student("build_timm_backbone", "vit_small_patch16_224", weights=FROM_TIMM),
    Student("build_timm_backbone", "vit_small_patch14_dinov2", weights=FROM_TIMM),
    Student("build_timm_backbone", "eva02_small_patch14_224", weights=FROM_TIMM),
    Student("build_timm_backbone", "eva02_base_patch16_clip_224", weights=FROM_TIMM),
)

REFERENCE = STUDENTS[1]
"""The paper's student; speeds are divided by its speed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's options."""
    parser.add_argument(
        "--size", type=int, nargs=2, default=(256, 128), metavar=("H", "W"), help="size of the images (256 128)"
    )
    parser.add_argument("--batch", type=int, default=16, help="images per forward pass (16)")
    parser.add_argument("--only", default="", help="measure only students whose name or depth contains this")
    parser.add_argument("--device", default="", help="cpu or cuda (cuda if there is one)")
    parser.add_argument("--repeats", type=int, default=3, help="measurements, the median is printed; 0: no speeds (3)")
    parser.add_argument("--markdown", metavar="FILE", default="", help="put the table between the markers of FILE")
    parser.add_argument("--json", metavar="FILE", default="", help="also write the figures to FILE")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures forward passes in eval mode, with random weights, prints a table and returns the figures.

    ResNet-50 is measured again with each student, so that ``relative`` compares speeds of the same moment.

    Returns:
        ``rows``: a list of {name, depth, keys, weights, parameters, gflops, patches [h, w], width, images_per_second,
        relative (divided by ResNet-50)}, and ``device``, ``batch``, ``size``. Without repeats both speeds are None.
        ``gflops`` counts a multiply-add as one operation, as the papers on person ReID do.
    """
    from tqdm import tqdm

    from fastreid_clip3d.common.devices import find_device
    from fastreid_clip3d.errors import ClearError

    device = str(find_device(arguments.device))
    chosen = [student for student in STUDENTS if arguments.only in f"{student.name} {student.depth}"]
    if not chosen:
        raise ClearError(f"--only {arguments.only}: no name or depth of a student of the table contains this.")
    size = tuple(arguments.size)
    images = torch.randn(arguments.batch, 3, *size, device=device)
    reference = _build(REFERENCE, size).to(device)
    rows = []
    for student in tqdm(chosen, desc="students", disable=None):
        rows.append(_row(student, size, images, reference, arguments.repeats))
    figures = {
        "device": _device_name(device),
        "batch": arguments.batch,
        "size": list(size),
        "rows": rows,
    }
    table = _markdown(figures)
    print(table)
    if arguments.markdown:
        replace_between(Path(arguments.markdown), table)
    write_figures(arguments.json, figures)
    return figures


def _build(student: Student, size: tuple[int, int]) -> torch.nn.Module:
    from fastreid_clip3d import modeling  # noqa: F401 (registers)
    from fastreid_clip3d.config import get_cfg
    from fastreid_clip3d.modeling.backbones import build_student

    cfg = get_cfg()
    options = cfg.MODEL.BACKBONE
    options.NAME, options.DEPTH, options.FEAT_DIM = student.name, student.depth, 0  # 0: that of the backbone
    for key, value in student.keys.items():
        options[key] = value
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = list(size)
    return build_student(cfg).eval()


@torch.no_grad()
def _row(
    student: Student, size: tuple[int, int], images: torch.Tensor, reference: torch.nn.Module, repeats: int
) -> dict[str, Any]:
    from torch.utils.flop_counter import FlopCounterMode

    from fastreid_clip3d.modeling.backbones import student_maps

    model = _build(student, size).to(images.device)
    with FlopCounterMode(display=False) as counter:
        feature_map = student_maps(model, images[:1])[1]
    ours, theirs = [], []
    for repeat in range(repeats + 1 if repeats else 0):
        taken = _seconds(model, images), _seconds(reference, images)
        if repeat:  # the first round is a warm-up
            ours.append(taken[0])
            theirs.append(taken[1])
    return {
        "name": student.name,
        "depth": student.depth,
        "keys": student.keys,
        "weights": student.weights,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "gflops": counter.get_total_flops() / 2e9,
        "patches": list(feature_map.shape[2:]),
        "width": feature_map.shape[1],
        "images_per_second": len(images) / statistics.median(ours) if ours else None,
        "relative": statistics.median(theirs) / statistics.median(ours) if ours else None,
    }


def _seconds(model: torch.nn.Module, images: torch.Tensor) -> float:
    if images.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    model(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _markdown(figures: dict[str, Any]) -> str:
    lines = [
        f"{figures['size'][0]} x {figures['size'][1]}, batch {figures['batch']}, {figures['device']}.",
        "",
        "| `MODEL.BACKBONE.NAME` | `DEPTH` | other keys | parameters (M) | GFLOPs | N | d' | images/s | by ResNet-50 "
        "| weights |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in figures["rows"]:
        keys = ", ".join(row["keys"]) or "-"
        height, width = row["patches"]
        speed, relative = (
            "-" if value is None else f"{value:.{digits}f}"
            for value, digits in ((row["images_per_second"], 1), (row["relative"], 2))
        )
        lines.append(
            f"| `{row['name']}` | `{row['depth']}` | {keys} | {row['parameters'] / 1e6:.1f} | {row['gflops']:.2f} | "
            f"{height * width} ({height} x {width}) | {row['width']} | {speed} | "
            f"{relative} | {row['weights']} |"
        )
    return "\n".join(lines)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else f"cpu, {torch.get_num_threads()} threads"
