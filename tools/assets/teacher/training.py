"""Trains a small open_clip model on the 32 phrases, with pictures of people whose descriptors are known.

Shape letters: N pictures, B a batch, 3 x H x W the model's input, d embedding width.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import nn
from tqdm import tqdm

from fastreid_clip3d.common.files import replacing, write_atomically
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.vocabulary import NUM_PAIRS
from tools.assets.teacher.augment import augment
from tools.assets.teacher.captions import WORDINGS, draw_captions, single_phrase_sentences
from tools.assets.teacher.losses import caption_loss, pair_loss, relation_loss
from tools.assets.teacher.model import create_clip, load_whole, split_trunk
from tools.assets.teacher.pictures import NUM_SHAPES, LabelledPictures, choices_of
from tools.assets.teacher.settings import TrainingSettings

STATE_NAME = "training_state.pt"

_STEPS_BETWEEN_READS = 20  # of the losses
_OPPOSITE_COSINE = -0.5  # of opposite phrases at the start, see TeacherTraining._separate_phrases


def _digest_of_data(pictures: LabelledPictures, start: nn.Module | None) -> str:
    """SHA-256 of the people, of their labels, of the pictures' number and size, and of the weights `start`.

    The projection of the images is left out: ``export`` scales it, to rounding that depends on the machine.
    """
    digest = hashlib.sha256(str(pictures.images.shape).encode())
    for values in (pictures.pids, pictures.targets):
        digest.update(np.ascontiguousarray(values))
    for name, value in sorted(start.state_dict().items()) if start is not None else ():
        if name != "visual.head.proj.weight":
            digest.update(name.encode())
            digest.update(value.detach().cpu().reshape(-1).numpy())
    return digest.hexdigest()


class TeacherTraining:
    """One training. It is seeded, and an interruption does not change its result.

    Args:
        settings: see :class:`TrainingSettings`.
        pictures: training pictures of the model's input size.
        folder: the training state is kept in it.
        visual_weights: ImageNet weights of the visual trunk, "" for none.
        device: device of the training.
        start_from: weights of a whole model (``open_clip_model.safetensors``) to start from instead.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        pictures: LabelledPictures,
        folder: str | Path,
        visual_weights: str | Path = "",
        device: str = "cpu",
        start_from: str | Path = "",
    ) -> None:
        self.settings, self.pictures, self.folder = settings, pictures, Path(folder)
        self.device = torch.device(device)
        if pictures.images.shape[1:3] != tuple(settings.image_size):
            raise ClearError(
                f"The pictures are {pictures.images.shape[1:3]}, but the model takes {tuple(settings.image_size)}."
            )
        self.model = create_clip(settings, visual_weights).to(self.device, memory_format=torch.channels_last)
        self._started = bool(start_from)
        if start_from:
            load_whole(self.model, Path(start_from))
        start = self.model if start_from else self.model.visual.trunk if visual_weights else None
        self._data_digest = _digest_of_data(pictures, start)
        self.shape_head = nn.Linear(settings.embed_dim, NUM_SHAPES).to(self.device)
        self._early, self._late = split_trunk(self.model.visual, settings.frozen_stages)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self._parameter_groups(), lr=settings.learning_rate)
        self.step = 0
        self.seconds = 0.0  # of all steps, without interruptions
        self.tokenizer = open_clip.SimpleTokenizer(context_length=settings.context_length)
        self.sentences = torch.stack([self.tokenizer(single_phrase_sentences(wording)) for wording in WORDINGS])
        self._tokens: dict[str, torch.Tensor] = {}  # of the captions so far; there are 28,000 different ones
        self.mean = torch.tensor(settings.mean, device=self.device).view(3, 1, 1)
        self.std = torch.tensor(settings.std, device=self.device).view(3, 1, 1)
        self._images = torch.from_numpy(pictures.images).to(self.device)  # a copy only on CUDA
        self._views: np.ndarray | None = None
        order = np.argsort(pictures.pids, kind="stable")
        starts = np.flatnonzero(np.diff(pictures.pids[order], prepend=-1))
        self._people = np.split(order, starts[1:])  # indices of each person's pictures

    def run(self, save_every: int = 200, progress: bool = True) -> CLIP:
        """Trains to the last step, from a saved state if there is one; returns the averaged model."""
        return self.run_until(self.settings.steps, save_every, progress)

    def run_until(self, last_step: int, save_every: int = 200, progress: bool = False) -> CLIP:
        """Trains to `last_step` of the whole schedule and saves the state; returns the averaged model."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._resume() and not self._started:
            self._separate_phrases()
        if self.step < last_step and self.settings.views:
            self._views = self._compute_views(progress)
        bar = tqdm(
            total=self.settings.steps,
            initial=self.step,
            desc="teacher",
            unit="step",
            disable=not progress,
            mininterval=2,
        )
        while self.step < last_step:
            started = time.monotonic()
            losses = self.train_step()
            if self.step % _STEPS_BETWEEN_READS == 0 or self.step == last_step:  # a read waits for the device
                values = {name: value.item() for name, value in losses.items()}
                if not math.isfinite(values["total"]):
                    raise ClearError(f"The teacher's loss is not finite at step {self.step}. Lower --learning-rate.")
                bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()}, refresh=False)
            self.seconds += time.monotonic() - started
            bar.update()
            if self.step % save_every == 0 or self.step == last_step:
                self._save()
        bar.close()
        return self.average

    def _separate_phrases(self) -> None:
        """Trains the text tower alone before step 1: opposite phrases get distant embeddings, others orthogonal ones.

        The pair loss sees only the differences of text embeddings. A new text tower maps similar sentences to nearly
        the same embedding, so that the differences would be zero and the images would get no gradient.
        """
        rng = np.random.default_rng([self.settings.seed, 1])
        text = [p for name, p in self.model.named_parameters() if not name.startswith(("visual", "logit"))]
        optimizer = torch.optim.Adam(text, lr=2e-3)
        opposite = torch.arange(2 * NUM_PAIRS) ^ 1
        wanted = torch.eye(2 * NUM_PAIRS, device=self.device)
        wanted[torch.arange(2 * NUM_PAIRS), opposite] = _OPPOSITE_COSINE
        for _ in range(self.settings.text_steps):
            first, second = rng.choice(len(WORDINGS), 2)
            tokens = torch.cat((self.sentences[first], self.sentences[second])).to(self.device)
            one, other = F.normalize(self.model.encode_text(tokens), dim=-1).chunk(2)
            loss = F.mse_loss(one @ other.T, wanted)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        self.average.load_state_dict(self.model.state_dict())

    def train_step(self) -> dict[str, torch.Tensor]:
        """One optimiser step; its random numbers depend on the seed and the step alone. Returns the losses."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.step])
        rows = self._draw_rows(rng)
        views = self._draw_views(rows, rng)
        targets, shapes = (
            torch.from_numpy(values[rows]).to(self.device) for values in (self.pictures.targets, self.pictures.shapes)
        )
        if settings.mixup and rng.random() < settings.mixup:
            share, order = rng.uniform(0.5, 1.0), torch.from_numpy(rng.permutation(len(rows))).to(self.device)
            views, targets, shapes = (share * own + (1 - share) * own[order] for own in (views, targets, shapes))
        captions, fits = draw_captions(choices_of(self.pictures.targets[rows]), rng)
        wording = 0 if rng.random() < 0.5 else int(rng.integers(len(WORDINGS)))

        self.model.train()
        self._early.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self._schedule()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))  # dropout, the same after an interruption
            features = self._late(views)
        text = self.model.encode_text(torch.cat((self.sentences[wording], self._tokenized(captions))).to(self.device))
        scale = self.model.logit_scale.exp().clamp(max=100)
        pairs = pair_loss(features, text[:32], scale, targets)
        contrast = caption_loss(features, text[32:], scale, torch.from_numpy(fits).to(self.device))
        shape = F.smooth_l1_loss(self.shape_head(features), shapes)
        loss = pairs + settings.caption_weight * contrast + settings.shape_weight * shape
        losses = {"pairs": pairs, "captions": contrast, "shape": shape}
        if settings.relation_weight:
            losses["relation"] = relation_loss(features, shapes)
            loss = loss + settings.relation_weight * losses["relation"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return {name: value.detach() for name, value in {"total": loss, **losses}.items()}

    def _tokenized(self, captions: list[str]) -> torch.Tensor:
        """The tokenizer's answer, which takes longer than a step on a fast device; int64 [B, context length]."""
        for text in captions:
            if text not in self._tokens:
                self._tokens[text] = self.tokenizer(text)[0]
        return torch.stack([self._tokens[text] for text in captions])

    def _draw_rows(self, rng: np.random.Generator) -> np.ndarray:
        """Indices of about `batch` pictures: people at random, each with all of their pictures."""
        people = rng.permutation(len(self._people))
        sizes = np.cumsum([len(self._people[person]) for person in people[: self.settings.batch]])
        count = max(1, int(np.searchsorted(sizes, self.settings.batch, side="right")))
        return np.sort(np.concatenate([self._people[person] for person in people[:count]]))

    @torch.no_grad()
    def _draw_views(self, rows: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """A random view of each picture, as input of the trained stages: [B, C, h, w]."""
        if self.settings.views:
            if self._views is None:
                self._views = self._compute_views(progress=False)
            stored = torch.from_numpy(self._views[rows, rng.integers(self.settings.views, size=len(rows))])
            return stored.to(self.device).float().contiguous(memory_format=torch.channels_last)
        self._early.eval()
        images = self._images[torch.from_numpy(rows).to(self.device)].permute(0, 3, 1, 2).float() / 255
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        seen = augment(images, generator, hidden=self.settings.hidden)
        return self._early(((seen - self.mean) / self.std).contiguous(memory_format=torch.channels_last))

    @torch.no_grad()
    def _compute_views(self, progress: bool) -> np.ndarray:
        """Output of the frozen stages for random views of each picture, float16 [N, views, C, h, w], in a file."""
        settings = self.settings
        name = f"views-{settings.seed}-{settings.views}-{settings.frozen_stages}-{self._data_digest[:16]}.npy"
        path = self.folder / name
        count = len(self.pictures.images)
        if path.is_file():
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
            if stored.shape[:2] == (count, settings.views):
                return stored
        self.folder.mkdir(parents=True, exist_ok=True)
        self._early.eval()
        with replacing(path) as temporary:
            self._write_views(temporary, progress)
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def _write_views(self, path: Path, progress: bool) -> None:
        count, views = len(self.pictures.images), None
        for start in tqdm(range(0, count, 64), desc="views", unit="batch", disable=not progress, mininterval=2):
            images = self._images[start : start + 64].permute(0, 3, 1, 2).float() / 255
            for view in range(self.settings.views):
                generator = torch.Generator().manual_seed((self.settings.seed * 1_000_003 + start) * 64 + view)
                seen = (augment(images, generator) - self.mean) / self.std
                out = self._early(seen.contiguous(memory_format=torch.channels_last)).half().cpu().numpy()
                if views is None:
                    shape = (count, self.settings.views, *out.shape[1:])
                    views = np.lib.format.open_memmap(path, "w+", np.float16, shape)
                views[start : start + len(out), view] = out
        views.flush()

    def _schedule(self) -> float:
        settings = self.settings
        if self.step < settings.warmup:
            return (self.step + 1) / settings.warmup
        done = (self.step - settings.warmup) / max(1, settings.steps - settings.warmup)
        return 0.5 * (1 + math.cos(math.pi * done)) * 0.98 + 0.02

    def _parameter_groups(self) -> list[dict]:
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        frozen = {id(parameter) for parameter in self._early.parameters()}
        for name, parameter in self.model.named_parameters():
            if id(parameter) in frozen:
                continue
            rate = self.settings.learning_rate * (1.0 if name.startswith("visual.trunk") else 2.0)
            decay = self.settings.weight_decay if parameter.ndim > 1 and "embedding" not in name else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        groups.setdefault((2.0 * self.settings.learning_rate, 0.0), []).extend(self.shape_head.parameters())
        return [
            {"params": parameters, "base_lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ]

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.settings.average_decay, (1 + self.step) / (10 + self.step))
        for averaged, current in zip(self.average.state_dict().values(), self.model.state_dict().values()):
            if averaged.is_floating_point():
                averaged.lerp_(current, 1 - decay)
            else:
                averaged.copy_(current)

    def _save(self) -> None:
        state = {
            "settings": json.dumps(asdict(self.settings), sort_keys=True),
            "data": self._data_digest,
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "shape_head": self.shape_head.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        write_atomically(self.folder / STATE_NAME, lambda stream: torch.save(state, stream))

    def _resume(self) -> bool:
        path = self.folder / STATE_NAME
        if not path.is_file():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["settings"] != json.dumps(asdict(self.settings), sort_keys=True):
            raise ClearError(f"{path} is from a training with other settings. Give another --output or delete it.")
        if state.get("data", self._data_digest) != self._data_digest:  # older states do not know their pictures
            raise ClearError(
                f"{path} is from a training on other people or pictures, or from other starting weights. Give another "
                "--output or delete it."
            )
        self.step, self.seconds = state["step"], state["seconds"]
        self.model.load_state_dict(state["model"])
        self.shape_head.load_state_dict(state["shape_head"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        return True
