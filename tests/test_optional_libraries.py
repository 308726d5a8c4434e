"""Without the optional libraries, training, evaluation and the command work, and messages name what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastreid_clip3d.compat.imports import missing_faiss
from fastreid_clip3d.compat.replacement import ABSENT
from fastreid_clip3d.errors import OPTIONAL, ClearError
from tests.conftest import REPOSITORY
from tests.engine.tiny_run import CONFIG, options, write_datasets

WITHOUT = """
import sys

class Hidden:
    '''A finder of modules that does not find some of them.'''
    names = {names!r}
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in self.names else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path = [Hidden(finder) for finder in sys.meta_path]
sys.argv = ["clip3d", *sys.argv[1:]]
sys.orig_argv = [sys.executable, "-m", "fastreid_clip3d"]
from fastreid_clip3d.cli import main
main()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_datasets(tmp_path_factory.mktemp("datasets"))


def clip3d_without(libraries: tuple[str, ...], data: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = WITHOUT.format(names=set(libraries))
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "FASTREID_DATASETS": str(data)}
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=data, env=environment, capture_output=True, text=True
    )


def test_training_and_evaluation_need_no_optional_library(data: Path, tmp_path: Path) -> None:
    """smplx too: a user's body files need it, the embedded bodies do not."""
    words = ("train", "--config-file", CONFIG, *options(data, tmp_path))
    done = clip3d_without((*OPTIONAL, "smplx"), data, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| CC " in done.stdout + done.stderr, "it was evaluated"
    assert (tmp_path / "model_final.pth").is_file()


@pytest.mark.parametrize(
    ("library", "words"),
    [
        ("pytorch3d", ("render-bodies", "--bodies", "2", "--poses-per-body", "1", "--output", "bodies")),
        ("faiss", ("search", "--model", "RUN", "--query", "dataset.csv", "--gallery", ".")),
    ],
)
def test_a_verb_whose_library_is_missing_says_what_to_install(library: str, words: tuple[str, ...], data: Path) -> None:
    done = clip3d_without((library,), data, *words)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-3000:]
    assert f"this needs {library}, which is not installed: pip install {OPTIONAL[library]}" in done.stderr


def test_re_ranking_without_faiss_says_what_to_install(data: Path, tmp_path: Path) -> None:
    words = ("train", "--config-file", CONFIG, *options(data, tmp_path, TEST__RERANK__ENABLED="True"))
    done = clip3d_without(("faiss",), data, *words)
    assert done.returncode == 2
    assert "faiss" in done.stderr and done.stderr.rstrip().endswith("pip install faiss-cpu")
    assert (tmp_path / "model_final.pth").is_file(), "the training is not lost"


def test_the_stand_in_for_faiss_can_be_imported_and_not_used() -> None:
    stand_in = missing_faiss(ABSENT)
    assert stand_in.METRIC_L2 == 1
    with pytest.raises(ClearError, match="pip install faiss-cpu"):
        stand_in.IndexFlatL2(3)
