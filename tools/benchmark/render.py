"""Pictures of bodies per second: our renderer on a CPU or PyTorch3D's rasteriser on CUDA, and PyTorch3D on a CPU."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from tools.benchmark.figures import write_figures

MOST_SCENES = 20
"""Bodies in memory, ten pictures each, on which the rasteriser alone is measured."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this benchmark's options."""
    parser.add_argument("--images", type=int, default=200, help="pictures of our renderer, rounded up to tens (200)")
    parser.add_argument("--stock-images", type=int, default=2, help="pictures of PyTorch3D's renderer (2)")
    parser.add_argument("--device", default="cpu", help="where our renderer draws: cpu or cuda (cpu)")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(256, 128),
        metavar=("H", "W"),
        help="size of a picture in pixels (256 128)",
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of each renderer (2)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="measurements of our renderer; the median is printed (3)"
    )
    parser.add_argument("--json", metavar="FILE", default="", help="also write the figures to FILE")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures, prints a table and returns the figures.

    On CUDA our renderer shades what PyTorch3D's rasteriser finds, as ``clip3d render-bodies --device cuda`` does. The
    comparison is PyTorch3D's whole renderer on a CPU in both cases.

    Returns:
        ``device``, ``pictures_per_second`` (poses, rasteriser, shading, PNG), ``rasterizer_per_second`` and
        ``stock_rasterizer_per_second`` (rasteriser alone), ``stock_pictures_per_second`` (the same pictures with
        PyTorch3D's MeshRenderer), ``ratio`` (ours divided by theirs) of the rasterisers, ``ratio_of_pictures``,
        ``largest_difference`` between the pictures in grey levels (0..255), ``seconds_for_10000``.
    """
    from pytorch3d.renderer import BlendParams, HardPhongShader, MeshRasterizer, MeshRenderer, TexturesVertex

    from fastreid_clip3d.body.encoding import encode_png
    from fastreid_clip3d.body.rendering import GreyRenderer, draw, lights_of, stand_on_ground, to_bytes, views_of
    from fastreid_clip3d.body.synthetic_settings import SyntheticSettings
    from fastreid_clip3d.body.synthetic_writer import PICTURES_AT_ONCE, SyntheticSet
    from fastreid_clip3d.common.devices import find_device

    device = find_device(arguments.device)
    size = tuple(arguments.size)
    bodies = max(-(-arguments.images // PICTURES_AT_ONCE), 1)
    chosen = SyntheticSettings(bodies=bodies, poses_per_body=PICTURES_AT_ONCE, image_size=size)
    made = SyntheticSet("", chosen, device=str(device))
    renderer = GreyRenderer(made.models[0].faces, size)

    def posed(body: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        model = made.models[body % 2]
        betas = torch.from_numpy(made.betas[body]).expand(count, -1)
        vertices = stand_on_ground(model.pose(betas, made.pool[made.pose_rows(body)[:count]])[0])
        draws = [draw(np.random.default_rng([body, pose])) for pose in range(count)]
        return vertices, views_of(vertices, draws, size, "crop"), lights_of(draws)

    settings = renderer.settings(posed(0, 1)[0])
    rasterized = min(bodies, MOST_SCENES)
    scenes = [
        renderer.scene(*(part.to(device) for part in posed(body, PICTURES_AT_ONCE))) for body in range(rasterized)
    ]

    def picture(body: int) -> None:
        for image in made.render_body(body)[0]:
            encode_png(image)

    def rasterize(body: int) -> None:
        meshes, cameras, _, _ = scenes[body]
        with torch.no_grad():
            renderer.rasterizer(meshes, cameras=cameras, raster_settings=settings)
            if device.type == "cuda":
                torch.cuda.synchronize()

    total = bodies * PICTURES_AT_ONCE
    with torch.no_grad():
        pictures = _per_second(picture, bodies, total, arguments)
        ours = _per_second(rasterize, rasterized, rasterized * PICTURES_AT_ONCE, arguments)

        torch.set_num_threads(arguments.threads)
        vertices, views, lights = posed(0, arguments.stock_images)
        meshes, cameras, lamps, materials = renderer.scene(vertices, views, lights)
        meshes.textures = TexturesVertex(torch.full_like(vertices, renderer.grey))
        blend = BlendParams(background_color=(renderer.background,) * 3)
        stock = MeshRenderer(
            MeshRasterizer(cameras, settings), HardPhongShader("cpu", cameras, lamps, materials, blend)
        )
        start = time.perf_counter()
        fragments = stock.rasterizer(meshes)
        middle = time.perf_counter()
        reference = stock.shader(fragments, meshes)[..., 0].clamp(0, 1)
        end = time.perf_counter()
        drawn = renderer.render(*(part.to(device) for part in (vertices, views, lights)))
        difference = np.abs(to_bytes(reference).astype(int) - to_bytes(drawn).astype(int))

    count = arguments.stock_images
    figures = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {arguments.threads} threads",
        "pictures_per_second": pictures,
        "stock_pictures_per_second": count / (end - start),
        "ratio_of_pictures": pictures * (end - start) / count,
        "rasterizer_per_second": ours,
        "stock_rasterizer_per_second": count / (middle - start),
        "ratio": ours * (middle - start) / count,
        "largest_difference": int(difference.max()),
        "seconds_for_10000": 10000 / pictures,
        "size": list(size),
        "faces": len(made.models[0].faces),
        "threads": arguments.threads,
        "images": total,
        "stock_images": count,
    }
    _print(figures)
    write_figures(arguments.json, figures)
    return figures


def _per_second(work: Callable[[int], None], bodies: int, images: int, arguments: argparse.Namespace) -> float:
    """Median images per second over the repeats, after a warm-up."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    try:
        with ThreadPoolExecutor(arguments.threads) as executor:
            list(executor.map(work, range(min(bodies, arguments.threads))))
            for _ in range(arguments.repeats):
                start = time.perf_counter()
                list(executor.map(work, range(bodies)))
                times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return images / statistics.median(times)


def _print(figures: dict[str, Any]) -> None:
    height, width = figures["size"]
    print(f"{figures['faces']} faces, {height} x {width} pixels, on {figures['device']}, images per second:")
    print(f"{'':34s}{'ours':>10s}{'PyTorch3D CPU':>16s}{'ratio':>9s}")
    rows = (
        ("rasteriser", "rasterizer_per_second", "stock_rasterizer_per_second", "ratio"),
        ("picture (ours: with pose and PNG)", "pictures_per_second", "stock_pictures_per_second", "ratio_of_pictures"),
    )
    for name, ours, stock, ratio in rows:
        print(f"{name:34s}{figures[ours]:10.1f}{figures[stock]:16.2f}{figures[ratio]:9.0f}")
    print(f"largest difference of a pixel: {figures['largest_difference']} of 255 grey levels")
    print(f"10,000 pictures on this machine: {figures['seconds_for_10000']:.0f} s")
