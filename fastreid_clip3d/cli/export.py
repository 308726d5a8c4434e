"""Writes a trained student as one file for deployment: ONNX, TorchScript or torch.export."""

from __future__ import annotations

import argparse

from fastreid_clip3d.cli.run_options import add_batch_size, add_data, add_model, add_root, given_flags, model_source
from fastreid_clip3d.errors import ClearError

EXAMPLES = """\
examples:
  clip3d export --model logs/demo/clip3d --output student.onnx
  clip3d export --model logs/demo/clip3d --output student.pt2 --images datasets/demo/SynthCC-tiny/query
  clip3d export --model logs/demo/clip3d/model_final.pth --output student.pt --format torchscript
  clip3d export --model logs/demo/clip3d --output student.onnx --input normalised    for a tracker such as BoxMOT
  # half and a quarter of the bits: the loss is printed, and too large a loss is refused
  clip3d export --model logs/demo/clip3d --output student16.onnx --precision float16
  clip3d export --model logs/demo/clip3d --output student8.onnx --precision int8 \\
      --calibration datasets/demo/SynthCC-tiny/train --data SynthCCTinyVal --root datasets/demo --max-loss 0.5

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
    parser.add_argument(
        "--precision", default="float32", choices=("float32", "float16", "int8"),
        help="numbers inside an .onnx file (default: float32); its input and output stay float32",
    )  # fmt: skip
    parser.add_argument(
        "--calibration", nargs="+", default=[], metavar="IMAGE",
        help="for int8: pictures like those that the file will see; every fourth only checks the result",
    )  # fmt: skip
    add_data(parser, "dataset or CSV file on which float16 or int8 loses at most --max-loss points of mAP")
    add_root(parser)
    add_batch_size(parser)
    parser.add_argument(
        "--max-loss", type=float, metavar="PERCENT",
        help="largest loss of float16 or int8: points of mAP on --data, else 1 - cosine in percent (default: 1)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Writes the file and checks it against PyTorch."""
    of_fewer_bits = given_flags(arguments, "calibration", "data") or (arguments.max_loss is not None and "--max-loss")
    if arguments.precision == "float32" and of_fewer_bits:
        raise ClearError(f"{of_fewer_bits}: only for --precision float16 or int8. Leave it out, or add that.")
    if arguments.root and not arguments.data:
        raise ClearError("--root is the folder of the dataset that --data names. Give --data, or leave --root out.")
    from os.path import getsize

    from fastreid_clip3d.common.files import check_writable
    from fastreid_clip3d.inference.export import export, exportable, format_of, real_pictures
    from fastreid_clip3d.inference.precision import ScoredSet, calibration_pictures, export_reduced

    chosen = format_of(check_writable(arguments.output), arguments.format)
    model = exportable(model_source(arguments).load("cpu"))
    pictures = list(real_pictures(model, arguments.images)) if arguments.images else None
    if arguments.precision != "float32":
        calibration, check = calibration_pictures(model, arguments.calibration) if arguments.calibration else ([], [])
        test_set = ScoredSet(arguments.data, arguments.root, arguments.batch_size) if arguments.data else None
        loss = export_reduced(
            model,
            arguments.output,
            arguments.precision,
            calibration=calibration,
            pictures=pictures or check,
            pixels=arguments.input,
            test_set=test_set,
            max_loss=1.0 if arguments.max_loss is None else arguments.max_loss,
        )
        print(f"{arguments.output}: {arguments.precision}, {getsize(arguments.output) / 1e6:.1f} MB. {loss}.")
        return 0
    exported = export(model, arguments.output, chosen, pictures, arguments.input)
    kind = "real" if arguments.images else "drawn"
    print(
        f"{exported.path}: {exported.format}, {exported.path.stat().st_size / 1e6:.1f} MB, {model.backbone_name}, "
        f"{arguments.input} input {model.size[0]} x {model.size[1]}, {model.feature_dim} numbers. Run on "
        f"{exported.num_random} random and {exported.num_real} {kind} images: at most {exported.difference:.1e} from "
        "PyTorch in cosine."
    )
    return 0
