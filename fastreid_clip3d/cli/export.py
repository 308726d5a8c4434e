"""Writes a trained student as one file for deployment: ONNX, TorchScript or torch.export."""

from __future__ import annotations

import argparse

from fastreid_clip3d.cli.run_options import add_model, model_source

EXAMPLES = """\
examples:
  clip3d export --model logs/demo/clip3d --output student.onnx
  clip3d export --model logs/demo/clip3d --output student.pt2 --images datasets/demo/SynthCC-tiny/query
  clip3d export --model logs/demo/clip3d/model_final.pth --output student.pt --format torchscript
  clip3d export --model logs/demo/clip3d --output student.onnx --input normalised    for a tracker such as BoxMOT

The file takes float32 RGB images [B, 3, height, width], any B, and gives L2-normalised features [B, d'].
--input says which pixels: raw (default) are 0..255; normalised are (x / 255 - mean) / std with ImageNet's mean and std.
We run the file on random and on real images beside PyTorch, and keep it if both agree to 1e-4 in cosine.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    add_model(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--format",
        default="",
        choices=("onnx", "torchscript", "torch.export"),
        help="default: by the ending of FILE (.onnx, .pt or .ts, .pt2)",
    )
    parser.add_argument(
        "--input",
        default="raw",
        choices=("raw", "normalised"),
        help="pixels that the file takes: 0..255 (default), or normalised by ImageNet's mean and std beforehand",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="real images for the check: files, folders, globs (default: drawn figures)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the file and checks it against PyTorch."""
    from fastreid_clip3d.common.files import check_writable
    from fastreid_clip3d.inference.export import export, exportable, format_of, real_pictures

    chosen = format_of(check_writable(arguments.output), arguments.format)
    model = exportable(model_source(arguments).load("cpu"))
    pictures = list(real_pictures(model, arguments.images)) if arguments.images else None
    exported = export(model, arguments.output, chosen, pictures, arguments.input)
    kind = "real" if arguments.images else "drawn"
    print(
        f"{exported.path}: {exported.format}, {exported.path.stat().st_size / 1e6:.1f} MB, {model.backbone_name}, "
        f"{arguments.input} input {model.size[0]} x {model.size[1]}, {model.feature_dim} numbers. Run on "
        f"{exported.num_random} random and {exported.num_real} {kind} images: at most {exported.difference:.1e} from "
        "PyTorch in cosine."
    )
    return 0
