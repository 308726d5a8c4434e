"""The build step that pyproject.toml cannot describe: the wheel carries the repository's configs/."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONFIGS = Path(__file__).parent / "configs"


class BuildWithConfigs(build_py):
    """Copies configs/ to fastreid_clip3d/configs in a build. An editable install reads the checkout's own folder."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree(CONFIGS, Path(self.build_lib, "fastreid_clip3d", "configs"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigs})
