"""Renders a SynthCC set with a progress bar."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from fastreid_clip3d.synthcc.generate import generate_set
from fastreid_clip3d.synthcc.plan import SetConfig


def generate_with_bar(root: str | Path, config: SetConfig, workers: int) -> Path:
    """Does the work of :func:`generate_set` and shows how many images are done; returns the set's folder."""
    with tqdm(unit="img", desc=config.folder, dynamic_ncols=True, smoothing=0.1) as bar:

        def show(done: int, total: int) -> None:
            if bar.total is None:  # what an earlier run made does not count as speed
                bar.total, bar.initial, bar.n = total, done, done
            bar.update(done - bar.n)
            bar.refresh()

        return generate_set(root, config, workers, show)
