"""The table of replacements: every row is explained, its probe is right, and it takes effect where it is needed."""

from __future__ import annotations

import json
import os
import pwd
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastreid.utils.events import EventStorage
from torch import nn

from fastreid_clip3d import compat
from fastreid_clip3d.compat import launch, metrics, optimizer
from fastreid_clip3d.compat.blocks import backbones_built_by, batch_size_left_open, watch_loading
from fastreid_clip3d.compat.replacement import ABSENT, Replacement, constant, current, in_force
from fastreid_clip3d.compat.table import TABLE
from tests.compat.test_plain_fastreid import run_python

PERMANENT = [row for row in TABLE if row.when == "always"]
LENT = [row for row in TABLE if row.when == "while fast-reid is imported"]
OTHERS = [row for row in TABLE if row.when != "while fast-reid is imported"]

UNTOUCHED = """
import json, sys, types
plug_in = types.ModuleType("fastreid_clip3d")  # its own __init__ would apply the table
plug_in.__path__ = ["fastreid_clip3d"]
sys.modules["fastreid_clip3d"] = plug_in
from fastreid_clip3d import compat
from fastreid_clip3d.compat.replacement import current
while_imported = {row.names[0]: row.is_needed() for row in compat.TABLE if row.when == "while fast-reid is imported"}
compat.locate.make_importable()
compat.import_fastreid()
rows = [row for row in compat.TABLE if row.when != "while fast-reid is imported"]
needed = [row.is_needed() for row in rows]
originals = [[current(name) for name in row.names] for row in rows]
compat.apply()
changed = [[current(name) is not original for name, original in zip(row.names, of_row)]
           for row, of_row in zip(rows, originals)]
same = [len({id(original) for original in of_row}) == 1 for of_row in originals]
replaced = [original for row, of_row in zip(rows, originals) if row.when == "always" for original in of_row]
left = [f"{name}:{attribute}" for name, module in sorted(sys.modules.items()) if name.startswith("fastreid.")
        for attribute, value in vars(module).items() if any(value is original for original in replaced)]
print(json.dumps({"while_imported": while_imported, "needed": needed, "changed": changed, "same": same, "left": left}))
"""


def user_has_a_name() -> bool:
    named_by_environment = any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME"))
    return named_by_environment or os.getuid() in {entry.pw_uid for entry in pwd.getpwall()}


@pytest.fixture(scope="module")
def untouched() -> dict:
    result = run_python(UNTOUCHED)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.names[0])
def test_every_row_is_explained_and_its_probe_answers(row: Replacement) -> None:
    assert row.names and all(name.count(":") <= 1 and " " not in name for name in row.names)
    assert row.why.endswith(".") and len(row.why.split()) >= 8
    assert row.until.endswith(".") and len(row.until.split()) >= 4
    assert isinstance(row.is_needed(), bool)


NAMELESS = """
import os, pwd
def no_entry(user):
    raise KeyError(f"getpwuid(): uid not found: {user}")
pwd.getpwuid = no_entry
for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
    os.environ.pop(variable, None)
import torch, fastreid_clip3d
torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])  # imports torch's compiler at the latest
print("imported")
"""


def test_a_user_id_without_a_name_can_import_everything() -> None:
    """As in a container that was started with ``--user 1234``."""
    result = run_python(NAMELESS)
    assert result.stdout.strip() == "imported", result.stderr


def test_with_the_locked_versions_every_row_is_needed(untouched: dict) -> None:
    """requirements.lock names fast-reid as released and today's torch and NumPy; a row not needed there can go.

    Two rows depend on the machine: whether faiss is installed, and whether the user has a name.
    """
    by_machine = {"faiss": find_spec("faiss") is None, "getpass:getuser": not user_has_a_name()}
    assert untouched["while_imported"] == {row.names[0]: by_machine.get(row.names[0], True) for row in LENT}
    assert untouched["needed"] == [True] * len(OTHERS)


def test_all_names_of_a_row_hold_one_object_and_it_is_replaced_at_each(untouched: dict) -> None:
    assert untouched["same"] == [True] * len(OTHERS)
    assert untouched["changed"] == [[row.when == "always"] * len(row.names) for row in OTHERS]


def test_no_module_of_fastreid_keeps_what_is_replaced(untouched: dict) -> None:
    """A row names every module that holds a copy, but for comparisons with torch's DDP class and the wrapped config."""
    left = [name for name in untouched["left"] if not name.endswith(":DistributedDataParallel")]
    assert left == [f"fastreid.modeling.backbones.regnet.config:{name}" for name in ("_C", "cfg")]


@pytest.mark.parametrize("row", PERMANENT, ids=lambda row: row.names[0])
def test_after_it_is_applied_a_row_is_needed_no_more(row: Replacement) -> None:
    assert not row.is_needed()
    assert len({id(current(name)) for name in row.names}) == 1


def test_applying_twice_replaces_nothing_again() -> None:
    before = [current(name) for row in PERMANENT for name in row.names]
    compat.apply()
    assert all(current(name) is old for name, old in zip((name for row in PERMANENT for name in row.names), before))


def test_names_for_the_import_alone_are_removed() -> None:
    assert current("torch._six") is ABSENT and current("collections:Mapping") is ABSENT
    six, mapping = (row for row in LENT if row.names[0] in ("torch._six", "collections:Mapping"))
    with in_force(six), in_force(mapping):
        from collections import Mapping  # noqa: UP035  (fast-reid's own line)

        from torch._six import string_classes
    assert isinstance({}, Mapping) and isinstance("", string_classes)
    assert current("torch._six") is ABSENT and current("collections:Mapping") is ABSENT


def test_a_row_that_is_not_needed_changes_nothing() -> None:
    row = Replacement(("torch.nn:ReLU",), lambda original: False, constant(None), "", "")
    row.apply()
    with in_force(row):
        assert nn.ReLU is not None
    assert nn.ReLU is not None


@pytest.mark.parametrize(
    "name", ["fastreid.modeling.meta_arch.baseline:build_backbone", "torch.nn:Module.load_state_dict",
             "fastreid.modeling.backbones.shufflenet:ShuffleV2Block.channel_shuffle"],
)  # fmt: skip
def test_a_block_puts_the_original_back_even_after_an_error(name: str) -> None:
    original = current(name)
    with pytest.raises(RuntimeError), backbones_built_by(nn.Module), watch_loading(), batch_size_left_open():
        assert current(name) is not original
        raise RuntimeError
    assert current(name) is original


def test_channels_are_shuffled_as_fastreid_does() -> None:
    x = torch.randn(3, 8, 2, 5)
    name = "fastreid.modeling.backbones.shufflenet:ShuffleV2Block.channel_shuffle"
    expected = current(name)(None, x)
    with batch_size_left_open():
        found = current(name)(None, x)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


# -- probes that say no: what a mended fast-reid would look like --


def test_probes_of_the_optimiser_see_a_repaired_version() -> None:
    from fastreid.solver.build import build_optimizer

    as_released = build_optimizer.__wrapped__.__wrapped__
    assert optimizer.removes_gradients(as_released) and optimizer.steps_unfused(as_released)
    kept, fused = optimizer.with_gradients_kept(as_released), optimizer.fused(as_released)
    assert not optimizer.removes_gradients(kept) and optimizer.steps_unfused(kept)
    assert optimizer.removes_gradients(fused) and not optimizer.steps_unfused(fused)


# -- losses on their way into the log --


def test_losses_are_logged_with_their_sum_and_the_waiting_time() -> None:
    losses = {"a": torch.tensor(1.5), "b": torch.tensor([0.25]), "c": torch.tensor(2.0, dtype=torch.float16)}
    with EventStorage() as storage:
        metrics.write_metrics(SimpleNamespace(iter=0), losses, 0.125)
    logged = {name: value for name, (value, _) in storage.latest().items()}
    assert logged == {"a": 1.5, "b": 0.25, "c": 2.0, "total_loss": 3.75, "data_time": 0.125}


def test_losses_of_all_processes_are_averaged_and_the_longest_wait_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastreid.utils import comm

    monkeypatch.setattr(comm, "gather", lambda mine: [mine, [({"a": 4.0, "b": 1.0}, 0.5)]])
    with EventStorage() as storage:
        metrics.write_metrics(SimpleNamespace(iter=0), {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}, 0.25)
    logged = {name: value for name, (value, _) in storage.latest().items()}
    assert logged == {"a": 3.0, "b": 2.0, "total_loss": 5.0, "data_time": 0.5}


def test_a_single_loss_is_logged_as_the_total_only() -> None:
    with EventStorage() as storage:
        metrics.write_metrics(SimpleNamespace(iter=0), {"a": torch.tensor(2.0)}, 0.0)
    assert set(storage.latest()) == {"total_loss", "data_time"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_named(value: float) -> None:
    losses = {"a": torch.tensor(1.0), "b": torch.tensor(value)}
    with EventStorage(), pytest.raises(FloatingPointError, match=f"iteration=7(.|\n)*'b': {value}"):
        metrics.write_metrics(SimpleNamespace(iter=7), losses, 0.0)


# -- groups of processes that wait long enough --


def test_every_group_of_a_run_has_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr("torch.distributed.init_process_group", lambda **keywords: made.append(keywords["timeout"]))
    monkeypatch.setattr("torch.distributed.new_group", lambda *ranks, **keywords: made.append(keywords["timeout"]))
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    monkeypatch.setattr("torch.distributed.get_backend", lambda: "nccl")
    monkeypatch.setattr("fastreid.utils.comm._LOCAL_PROCESS_GROUP", None)
    with launch.process_group(use_cuda=False, local_rank=0, processes_per_machine=1):
        launch.global_gloo_group.__wrapped__()
    assert made == [launch.PATIENCE] * 4  # the run, two machines, gathering
    assert launch.PATIENCE.total_seconds() > 30 * 60  # more than torch's own


def test_probes_draw_no_random_numbers() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    for row in TABLE:
        row.is_needed()
    assert torch.equal(torch.get_rng_state(), torch_state) and (np.random.get_state()[1] == numpy_state).all()
