"""The host never waits for the device in a step, copies are pinned, and loading overlaps the step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fastreid.solver import build_optimizer
from fastreid.utils.events import EventStorage
from torch import Tensor, nn
from torch.utils.data import Dataset

from fastreid_clip3d.compat.loader import DeviceLoader, use_device
from fastreid_clip3d.compat.metrics import write_metrics
from fastreid_clip3d.modeling.meta_arch import CLIP3DReID
from fastreid_clip3d.teacher.guidance import Guidance
from tests.modeling.test_cuda_without_a_device import OURS, WIDTH, config
from tests.standins import random_batch, tiny_teacher_folder

DTYPES = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


@contextlib.contextmanager
def waiting_is_an_error(device: str) -> Iterator[None]:
    """On CUDA torch raises wherever it would wait for the device."""
    if device != "cuda":
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Step:
    """A model, its optimiser and a batch with the answers of a cached teacher, on a device."""

    def __init__(self, device: str, dtype: torch.dtype | None, **keys: str) -> None:
        cfg = config(losses=("CrossEntropyLoss", "TripletLoss", *OURS))
        cfg.MODEL.DEVICE = device
        cfg.merge_from_list([text for key, value in keys.items() for text in (key.replace("__", "."), value)])
        torch.manual_seed(0)
        self.model: nn.Module = CLIP3DReID(cfg, guidance=Guidance(torch.zeros(32, WIDTH))).to(device).train()
        self.optimizer, self.wrapper = build_optimizer(cfg, self.model)
        self.device, self.dtype = device, dtype
        # A small scale, since with the usual one the first steps overflow and change nothing.
        self.scaler = torch.amp.GradScaler(device, init_scale=256.0, enabled=dtype is torch.float16)
        batch = random_batch()
        del batch["teacher_images"]
        batch |= {"teacher_features": torch.randn(6, WIDTH), "phrase_choices": torch.zeros(6, 16, dtype=torch.int64)}
        self.batch = {key: value.to(device) for key, value in batch.items()}

    def __call__(self) -> dict[str, Tensor]:
        batch = {key: value.clone() for key, value in self.batch.items()}
        with EventStorage() as storage, torch.autocast(self.device, self.dtype, enabled=self.dtype is not None):
            storage.epoch = 0
            losses = self.model(batch)
            total = sum(losses.values())
            write_metrics(SimpleNamespace(iter=0, losses_wait=True), losses, 0.0)
        self.optimizer.zero_grad()
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return losses


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"SOLVER__OPT": "SGD", "MODEL__SYNTHETIC_STATISTICS": "separate"},
        {"MODEL__LOSSES__OT__NUM_ITERS": "50", "MODEL__LOSSES__OT__TOLERANCE": "1e-3"},
    ],
    ids=["as in the paper", "SGD, separate statistics", "50 iterations"],
)
def test_a_step_waits_for_nothing(keys: dict[str, str], dtype: str, device: str) -> None:
    if device == "cpu" and dtype == "float16":
        pytest.skip("training refuses float16 on a CPU, where it is slow and overflows")
    step = Step(device, DTYPES[dtype], **keys)
    before = step.model.backbone.conv1.weight.detach().clone()
    step()
    with waiting_is_an_error(device):
        losses = step()
    assert all(torch.isfinite(value) for value in losses.values())
    assert not torch.equal(step.model.backbone.conv1.weight, before), "it trains"


@pytest.mark.cuda
def test_waiting_is_noticed() -> None:
    value = torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError), waiting_is_an_error("cuda"):
        value.sum().item()


@pytest.mark.cuda
def test_reading_the_losses_for_the_log_is_noticed() -> None:
    losses = {"loss_cls": torch.ones((), device="cuda")}
    with EventStorage(), pytest.raises(RuntimeError), waiting_is_an_error("cuda"):
        write_metrics(SimpleNamespace(iter=0, losses_wait=False), losses, 0.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_online_teacher_waits_for_nothing(dtype: str, device: str, tmp_path: Path) -> None:
    from fastreid_clip3d.teacher.clip import load_teacher

    teacher = load_teacher(tiny_teacher_folder(tmp_path / "teacher"), device=device)
    guidance = Guidance(teacher.phrase_table, teacher=teacher)
    batch = {"teacher_images": random_batch()["teacher_images"].to(device)}
    guidance.answers_for(batch)
    with waiting_is_an_error(device), torch.autocast(device, DTYPES[dtype], enabled=dtype != "float32"):
        features, choices = guidance.answers_for(batch)
    assert features.dtype == torch.float32 and choices.dtype == torch.int64


# -- loading --


class Pictures(Dataset):
    def __len__(self) -> int:
        return 512

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"images": torch.full((3, 256, 128), float(index))}


def loader_on(device: str, workers: int = 0) -> DeviceLoader:
    use_device(device)
    return DeviceLoader(0, dataset=Pictures(), batch_size=64, num_workers=workers, pin_memory=True)


def test_batches_arrive_whole_and_in_order(device: str) -> None:
    for number, batch in enumerate(loader_on(device)):
        assert batch["images"].device.type == device
        expected = torch.arange(64 * number, 64 * number + 64).float()
        assert torch.equal(batch["images"][:, 0, 0, 0].cpu(), expected)
    assert number == 7


Interval = tuple[float, float]


def covered_share(of: Sequence[Interval], by: Sequence[Interval]) -> float:
    """Which share of the first intervals' length lies inside the second ones (disjoint among themselves)."""
    inside = sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in of for b in by)
    return inside / sum(end - start for start, end in of)


def test_the_share_of_an_overlap() -> None:
    assert covered_share([(0, 4), (10, 12)], [(1, 2), (3, 11)]) == pytest.approx(3 / 6)


@pytest.mark.cuda
def test_copies_are_pinned_and_run_beside_the_step(record_property: pytest.RecordProperty) -> None:
    """By a trace: copies to the device come from pinned memory, and most of their time lies inside kernels' time."""
    from torch.profiler import ProfilerActivity, profile

    weight = torch.randn(4096, 4096, device="cuda")
    batches = iter(loader_on("cuda", workers=2))
    for _ in range(2):
        next(batches)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        for _ in range(5):
            batch = next(batches)
            for _ in range(20):  # as long as a step
                weight = weight @ weight * 1e-3
            batch["images"].mean()
        torch.cuda.synchronize()
    events = [event for event in trace.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    copies = [event for event in events if "Memcpy HtoD" in event.name and event.time_range.elapsed_us() > 100]
    assert copies and all("Pinned" in event.name for event in copies), {event.name for event in copies}
    kernels = [
        (event.time_range.start, event.time_range.end)
        for event in events
        if "Memcpy" not in event.name and "Memset" not in event.name
    ]
    share = covered_share([(event.time_range.start, event.time_range.end) for event in copies], kernels)
    record_property("share of copying inside kernels", round(share, 3))
    assert share > 0.5
