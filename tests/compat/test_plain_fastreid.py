"""Importing the plug-in changes nothing for a plain fast-reid config, and makes fast-reid run without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

BASELINE_LOSSES = """
import json, sys, warnings
warnings.simplefilter("ignore")
if sys.argv[1] == "with":
    import fastreid_clip3d
import torch
from fastreid.config import get_cfg
from fastreid.modeling.meta_arch import build_model
from fastreid.utils.events import EventStorage
cfg = get_cfg()
if sys.argv[1] == "with":
    fastreid_clip3d.add_clip3d_config(cfg)
cfg.MODEL.DEVICE, cfg.MODEL.BACKBONE.DEPTH, cfg.MODEL.BACKBONE.FEAT_DIM = "cpu", "18x", 512
cfg.MODEL.HEADS.NUM_CLASSES, cfg.MODEL.HEADS.WITH_BNNECK = 5, True
cfg.MODEL.LOSSES.NAME = ("CrossEntropyLoss", "TripletLoss")
torch.manual_seed(0)
model = build_model(cfg).train()
results = []
with EventStorage():
    for step in range(2):
        batch = {"images": 255 * torch.rand(8, 3, 64, 32), "targets": torch.arange(8) // 2}
        losses = model(batch)
        sum(losses.values()).backward()
        results.append({name: loss.item() for name, loss in losses.items()})
results.append(model.backbone.conv1.weight.grad.double().sum().item())
print(json.dumps(results))
"""


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


def test_baseline_gives_the_same_losses_with_and_without_the_plug_in() -> None:
    without, with_plug_in = (run_python(BASELINE_LOSSES, how) for how in ("without", "with"))
    assert without.returncode == 0, without.stderr
    assert json.loads(without.stdout.splitlines()[-1]) == json.loads(with_plug_in.stdout.splitlines()[-1])


def test_the_import_prints_nothing_and_leaves_nothing_in_python_or_torch() -> None:
    code = (
        "import fastreid_clip3d, fastreid.engine, fastreid.evaluation, collections, sys; "
        "print(hasattr(collections, 'Mapping'), 'torch._six' in sys.modules)"
    )
    started = run_python(code)
    assert started.returncode == 0 and started.stderr == "" and started.stdout == "False False\n"


def test_applying_twice_changes_nothing() -> None:
    code = """
import fastreid_clip3d.compat as compat, fastreid.data.build as build, fastreid.evaluation.rank as rank
before = (build.DataLoaderX, rank.eval_market1501)
compat.apply()
import fastreid.modeling.backbones.regnet.effnet as effnet
assert before == (build.DataLoaderX, rank.eval_market1501)
assert not isinstance(effnet.effnet_cfg._node, type(effnet.effnet_cfg))
print("same")
"""
    result = run_python(code)
    assert result.stdout.strip() == "same", result.stderr


def test_checkout_named_by_the_environment_is_used(tmp_path: Path) -> None:
    import fastreid

    checkout = tmp_path / "fast-reid"
    checkout.mkdir()
    (checkout / "fastreid").symlink_to(Path(fastreid.__file__).parent)
    for shadow in ("tests", "tools", "configs"):
        (checkout / shadow).mkdir()
        (checkout / shadow / "__init__.py").write_text("raise RuntimeError('shadowed')")
    code = (
        "import fastreid_clip3d, fastreid, sys; print(fastreid.__file__); "
        "print([path for path in sys.path if 'fast-reid' in path])"
    )
    result = run_python(code, FASTREID_HOME=str(checkout))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [str(checkout / "fastreid" / "__init__.py"), "[]"]


def test_checkout_that_is_none_is_an_error_that_names_it(tmp_path: Path) -> None:
    result = run_python("import fastreid_clip3d", FASTREID_HOME=str(tmp_path))
    assert result.returncode != 0 and str(tmp_path) in result.stderr.splitlines()[-1]


def test_families_with_packaged_configs_build_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from fastreid.modeling.backbones import build_backbone

    from fastreid_clip3d import get_cfg

    monkeypatch.chdir(tmp_path)
    for name, depth in (("build_effnet_backbone", "b0"), ("build_regnet_backbone", "400x")):
        cfg = get_cfg()
        cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.DEPTH = name, depth
        assert build_backbone(cfg)(torch.rand(1, 3, 64, 32)).shape[0] == 1


def test_small_galleries_are_evaluated() -> None:
    """Two queries that keep 1 and 2 gallery items: AP 1 and 1/2 by hand."""
    from fastreid.evaluation.rank import evaluate_rank

    distances = np.array([[0.1, 0.2], [0.1, 0.2]])
    cmc, precisions, penalties = evaluate_rank(
        distances, np.array([0, 1]), np.array([0, 1]), np.array([5, 5]), np.array([6, 6]), max_rank=5
    )
    assert precisions == [1.0, 0.5] and penalties == [1.0, 0.5]
    np.testing.assert_allclose(cmc, [0.5, 1, 1, 1, 1])


def test_evaluator_neither_compiles_nor_exits() -> None:
    from fastreid.evaluation import ReidEvaluator

    from fastreid_clip3d import get_cfg

    evaluator = ReidEvaluator(get_cfg(), num_query=1)
    evaluator.reset()
    assert evaluator._predictions == []
