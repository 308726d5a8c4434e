"""Every config key that the plug-in adds, with its meaning, unit, allowed values and the paper's symbol.

``fastreid_clip3d.get_cfg()`` gives fast-reid's defaults with these keys added. Keys of fast-reid keep their meaning,
with one thing to know: ``SOLVER.IMS_PER_BATCH`` counts the REAL images of a batch, so that fast-reid's epoch stays one
pass over the real images; the synthetic ones come on top (``DATALOADER.SYNTHETIC_PER_BATCH``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from fastreid.config import CfgNode as CN
from fastreid.config import get_cfg as fastreid_cfg


class Allowed(NamedTuple):
    """The values that a key may have: in words, as a test, and by name where they are words."""

    text: str
    holds: Callable[[Any], bool]
    words: tuple[str, ...] = ()


def _at_least(low: float, high: float = math.inf) -> Allowed:
    return Allowed(f"at least {low}" if high == math.inf else f"{low} to {high}", lambda value: low <= value <= high)


def _one_of(*words: str) -> Allowed:
    return Allowed(", ".join(word or '""' for word in words), lambda value: value in words, words)


_ABOVE_0 = Allowed("above 0", lambda value: value > 0)

ALLOWED: dict[str, Allowed] = {
    "SEED": _at_least(-1, 2**31 - 1),
    "WRITE_PERIOD": _at_least(1),
    "TENSORBOARD.GRADIENT_SHARES_PERIOD": _at_least(0),
    "SOLVER.WARMUP_EPOCHS": _at_least(0),
    "SOLVER.AMP.DTYPE": _one_of("float16", "bfloat16"),
    "MODEL.HEADS.MLP.HIDDEN_DIM": _at_least(0),
    "MODEL.HEADS.MLP.OUT_DIM": _at_least(0),
    "MODEL.BODY.NUM_BETAS": _at_least(1),
    "MODEL.SYNTHETIC_STATISTICS": _one_of("shared", "separate"),
    "MODEL.TEACHER.RESIZE": _one_of("squash", "pad"),
    "MODEL.TEACHER.PRECISION": _one_of("amp", "bf16", "fp32"),
    "MODEL.TEACHER.MODE": _one_of("online", "cached", "auto"),
    "MODEL.LOSSES.OT.SCALE": _at_least(0),
    "MODEL.LOSSES.OT.SYNTHETIC_SCALE": _at_least(0),
    "MODEL.LOSSES.OT.REG": _ABOVE_0,
    "MODEL.LOSSES.OT.NUM_ITERS": _at_least(1),
    "MODEL.LOSSES.OT.TOLERANCE": _at_least(0),
    "MODEL.LOSSES.OT.HIDDEN_DIM": _at_least(0),
    "MODEL.LOSSES.OT.CENTER": _one_of("none", "image", "batch"),
    "MODEL.LOSSES.OT.CONTRAST": _at_least(0),
    "MODEL.LOSSES.OT.CONTRAST_TEMPERATURE": _ABOVE_0,
    "MODEL.LOSSES.GLOBAL_DISTILL.SCALE": _at_least(0),
    "MODEL.LOSSES.GLOBAL_DISTILL.REDUCTION": _one_of("mean", "sum", "cosine", "centred_cosine", "kl"),
    "MODEL.LOSSES.GLOBAL_DISTILL.TEMPERATURE": _ABOVE_0,
    "MODEL.LOSSES.GLOBAL_DISTILL.HIDDEN_DIM": _at_least(0),
    "MODEL.LOSSES.GLOBAL_DISTILL.FEATURE": _one_of("", "before", "after"),
    "MODEL.LOSSES.BODY_SHAPE.SCALE": _at_least(0),
    "MODEL.LOSSES.BODY_SHAPE.FEATURE": _one_of("", "before", "after"),
    "MODEL.LOSSES.BODY_SHAPE.HIDDEN_DIM": _at_least(0),
    "MODEL.LOSSES.CLOTHES_ADVERSARIAL.SCALE": _at_least(0),
    "MODEL.LOSSES.CLOTHES_ADVERSARIAL.CLASSIFIER_SCALE": _ABOVE_0,
    "MODEL.LOSSES.CLOTHES_ADVERSARIAL.EPSILON": _at_least(0, 1),
    "MODEL.LOSSES.CLOTHES_ADVERSARIAL.START_EPOCH": _at_least(0),
    "DATALOADER.SYNTHETIC_PER_BATCH": _at_least(0),
    "DATALOADER.SYNTHETIC_CACHE_MIB": _at_least(0),
    "TEST.NFC.K1": _at_least(1),
    "TEST.NFC.K2": _at_least(1),
    "TEST.EVALUATION.MAX_MEMORY": _at_least(1),
    "TEST.EVALUATION.PER_QUERY": _one_of("", "csv", "parquet"),
    "TEST.EVALUATION.TOP_MATCHES": _at_least(1),
}
"""The keys whose type alone does not say which values make sense. ``load_config`` checks them."""


def add_clip3d_config(cfg: CN) -> None:
    """Adds the plug-in's keys, with the paper's settings as defaults, to a fast-reid config."""
    # Seed of every random choice: weights, augmentation, samplers. -1: a new one for each run.
    cfg.SEED = -1

    # Modules with classes of your own (datasets, backbones, losses ...), imported before the config is used, e.g.
    # ("my_reid",). Python finds them in the working folder or on PYTHONPATH. The config.yaml of a run keeps them. When
    # the run is loaded later, load_model(..., allow_imports=True) or --allow-imports allows the import.
    cfg.IMPORTS = ()

    # Iterations between two lines of the log, of metrics.json and of the TensorBoard curves; each epoch's end adds one.
    cfg.WRITE_PERIOD = 50

    # What a training writes for TensorBoard beyond fast-reid's curves.
    cfg.TENSORBOARD = CN()
    # Iterations between two measurements of each loss's share of the gradient at the student's feature map. One
    # measurement costs one backward pass through head and losses per loss. 0: none.
    cfg.TENSORBOARD.GRADIENT_SHARES_PERIOD = 0

    # Length of the warm-up in epochs, such as 0.5, in place of SOLVER.WARMUP_ITERS, which must then be 0. It fits a
    # training set of any size. 0: SOLVER.WARMUP_ITERS counts.
    cfg.SOLVER.WARMUP_EPOCHS = 0.0
    # Arithmetic under SOLVER.AMP.ENABLED. float16: CUDA only, with a loss scale. bfloat16: CUDA and CPU, without one.
    cfg.SOLVER.AMP.DTYPE = "float16"

    _add_teacher(cfg)
    _add_losses(cfg)
    _add_data(cfg)
    _add_evaluation(cfg)

    # One-hidden-layer MLP between pooling and the neck, whose output is f_id (paper, Section 3.1).
    cfg.MODEL.HEADS.MLP = CN()
    # Width of the hidden layer; 0: as wide as the pooled features, d'.
    cfg.MODEL.HEADS.MLP.HIDDEN_DIM = 0
    # Width of f_id, which is also what searching compares; 0: d'.
    cfg.MODEL.HEADS.MLP.OUT_DIM = 0
    # Adds the pooled features to the MLP's output, so that a pretrained student starts from its own features. Needs an
    # OUT_DIM of 0 or d'.
    cfg.MODEL.HEADS.MLP.RESIDUAL = False

    # The body whose shape phi predicts and whose surface the loss compares.
    cfg.MODEL.BODY = CN()
    # Folder with SMPL_{FEMALE,MALE,NEUTRAL} files, or one file; "": the body model that ships with the package.
    cfg.MODEL.BODY.PATH = ""
    # Number of shape coefficients, |beta|.
    cfg.MODEL.BODY.NUM_BETAS = 10

    # The backbone's batch-norm statistics of the synthetic half while training. shared: one pass over both halves (the
    # paper); separate: the halves are normalised apart and only real images enter the running statistics.
    cfg.MODEL.SYNTHETIC_STATISTICS = "shared"
    # Memory layout of the images, and with it of the student's arithmetic. It halves the time of a CPU step of a small
    # convolutional student.
    cfg.MODEL.CHANNELS_LAST = False
    # torch.compile on the student's backbone (worth it on CUDA, for long trainings).
    cfg.MODEL.COMPILE = False


def _add_teacher(cfg: CN) -> None:
    """The frozen CLIP model, E_I and E_L (paper, Section 3.1)."""
    cfg.MODEL.TEACHER = CN()
    # An open_clip model name ("ViT-L-14", "ViT-B-32", "ViT-B-16", ...), "local-dir:FOLDER", or "embedded" for the small
    # teacher that ships with the package.
    cfg.MODEL.TEACHER.NAME = "ViT-L-14"
    # open_clip's pretrained tag ("openai"), or the path of a weights file.
    cfg.MODEL.TEACHER.PRETRAINED = "openai"
    # How a 1:2 person crop becomes the teacher's square. squash: as CLIP-based ReID does; pad: borders of mean colour.
    cfg.MODEL.TEACHER.RESIZE = "squash"
    # Arithmetic of the teacher on CUDA: amp (float16 autocast), bf16, fp32. On a CPU always fp32.
    cfg.MODEL.TEACHER.PRECISION = "amp"
    # Where g and the labels come from. online: the teacher runs in every step; cached: from `clip3d cache-teacher`;
    # auto: cached where a valid cache exists, online otherwise.
    cfg.MODEL.TEACHER.MODE = "auto"
    # Folder of the cache; "": teacher_cache below the folder of the datasets.
    cfg.MODEL.TEACHER.CACHE_DIR = ""


def _add_losses(cfg: CN) -> None:
    """Names for MODEL.LOSSES.NAME: OTLoss, GlobalDistillLoss, BodyShapeLoss, ClothesAdversarialLoss."""
    losses = cfg.MODEL.LOSSES

    # L_OT and L_OT^syn: optimal transport between local features and phrases (Eq. 4 to 7).
    losses.OT = CN()
    losses.OT.SCALE = 0.3  # alpha, weight of L_OT on real images; 0: not computed
    losses.OT.SYNTHETIC_SCALE = 0.3  # gamma, weight of L_OT^syn on synthetic images; 0: not computed
    losses.OT.REG = 1.0  # lambda, weight of the entropy
    losses.OT.NUM_ITERS = 1  # t, Sinkhorn iterations at most
    # Stops iterating when the row marginals are this close (L1); 0: never stops early. A CPU looks every 10 iterations.
    # CUDA never looks: all NUM_ITERS run there.
    losses.OT.TOLERANCE = 0.0
    losses.OT.DIFFERENTIABLE = False  # gradient through the plan T* as well; False: T* is a constant (envelope theorem)
    losses.OT.HIDDEN_DIM = 0  # hidden width of Psi; 0: d'
    # Mean that is subtracted from the patches before cosines are taken: none (the paper); image: of the image's own
    # patches; batch: of all patches of this half of the batch, on this process.
    losses.OT.CENTER = "none"
    # Weight of a term that is not in the paper: it pulls an image nearer to its own phrase than to the opposite one.
    # L_OT alone lets all phrases become one direction. 0: left out.
    losses.OT.CONTRAST = 0.0
    losses.OT.CONTRAST_TEMPERATURE = 0.1  # its temperature, in units of cosine

    # L_global: MSE between Phi(g) and f_id (Eq. 8).
    losses.GLOBAL_DISTILL = CN()
    losses.GLOBAL_DISTILL.SCALE = 0.5  # beta
    # Over features: mean (torch's MSE), sum (Eq. 8 to the letter), cosine (2 - 2 cos, which a short f_id cannot meet),
    # or centred_cosine (the same after the batch's means are subtracted, which a direction that all images share cannot
    # meet either); these two are not in the paper. kl: in place of Eq. 8 the student's class logits follow those of a
    # linear classifier of g, which learns beside it (the released code).
    losses.GLOBAL_DISTILL.REDUCTION = "mean"
    losses.GLOBAL_DISTILL.TEMPERATURE = 2.0  # of the logits, for kl; the loss is multiplied by its square
    losses.GLOBAL_DISTILL.HIDDEN_DIM = 0  # hidden width of Phi; 0: d'
    # The f_id that it sees: before or after the neck (after: the vector that is searched); "": as MODEL.HEADS.NECK_FEAT
    # says.
    losses.GLOBAL_DISTILL.FEATURE = ""

    # L_3D: squared distance of the predicted and the true body surface (Eq. 9).
    losses.BODY_SHAPE = CN()
    losses.BODY_SHAPE.SCALE = 0.3  # gamma
    losses.BODY_SHAPE.HIDDEN_DIM = 0  # hidden width of phi; 0: d'
    # The f_id that it sees: before or after the neck (after: the vector that is searched); "": as MODEL.HEADS.NECK_FEAT
    # says.
    losses.BODY_SHAPE.FEATURE = ""
    # Leaves a body's size and position out of the distance, since a tight box around a person hides them (78 % of L_3D
    # is stature); not in the paper.
    losses.BODY_SHAPE.IGNORE_SIZE = False

    # A comparator, not part of the method: CAL, the clothes-based adversarial loss (Gu et al., CVPR 2022).
    losses.CLOTHES_ADVERSARIAL = CN()
    losses.CLOTHES_ADVERSARIAL.SCALE = 1.0  # weight of loss_cal
    losses.CLOTHES_ADVERSARIAL.CLASSIFIER_SCALE = 16.0  # 1 / tau, scale of the cosine logits
    losses.CLOTHES_ADVERSARIAL.EPSILON = 0.1  # weight spread over all clothes of the person, 0..1
    losses.CLOTHES_ADVERSARIAL.START_EPOCH = 25  # loss_cal counts from this epoch on; the classifier learns at once
    # Person class of each clothes class; filled in from the training set, like MODEL.HEADS.NUM_CLASSES.
    losses.CLOTHES_ADVERSARIAL.CLOTHES_PERSONS = []


def _add_data(cfg: CN) -> None:
    """The synthetic half of a batch, and dataset files of the user's own."""
    # Folder of rendered bodies (`clip3d render-bodies`), below the folder of the datasets or absolute.
    cfg.DATASETS.SYNTHETIC = "SyntheticBodies"
    # Datasets of your own: (name, file) pairs, e.g. (("MyData", "my_data.csv"),). Use the name in NAMES and TESTS. The
    # columns are path, pid, camid, clothes, split; clothes may be absent.
    cfg.DATASETS.CSV = ()
    # Synthetic images of a batch over all processes, S. Used by SAMPLER_TRAIN "MixedIdentitySampler"; 0: none.
    cfg.DATALOADER.SYNTHETIC_PER_BATCH = 64
    # Synthetic images are decoded once and kept in memory while they fit into this many MiB; 0: read every time.
    cfg.DATALOADER.SYNTHETIC_CACHE_MIB = 2048


def _add_evaluation(cfg: CN) -> None:
    """Scoring by protocol."""
    cfg.TEST.EVALUATION = CN()
    # Protocols to score, among the dataset's own and general, CC, SC, nothing; (): those that the dataset declares.
    cfg.TEST.EVALUATION.PROTOCOLS = ()
    # Memory for distances while scoring, MiB.
    cfg.TEST.EVALUATION.MAX_MEMORY = 1024
    # Where distances are computed: "": on MODEL.DEVICE; cpu; cuda.
    cfg.TEST.EVALUATION.DEVICE = ""
    # Writes the features of query and gallery to OUTPUT_DIR/evaluation, as `clip3d evaluate` reads them.
    cfg.TEST.EVALUATION.SAVE_FEATURES = False
    # Writes AP, rank of the first match and top matches of every query there: "": no; csv; parquet.
    cfg.TEST.EVALUATION.PER_QUERY = ""
    # Gallery items listed per query in that file.
    cfg.TEST.EVALUATION.TOP_MATCHES = 10
    cfg.TEST.NFC = CN()
    # NFC of Pose2ID (Yuan et al., CVPR 2025): each feature moves towards its mutual nearest neighbours, before AQE and
    # re-ranking. Query among query, gallery among gallery.
    cfg.TEST.NFC.ENABLED = False
    # A mutual neighbour is among the K1 nearest images, and has the image among its own K2 nearest.
    cfg.TEST.NFC.K1 = 2
    cfg.TEST.NFC.K2 = 2  # see K1


def get_cfg() -> CN:
    """fast-reid's default config with the plug-in's keys.

    >>> cfg = get_cfg()
    >>> cfg.MODEL.LOSSES.OT.SCALE, cfg.MODEL.LOSSES.GLOBAL_DISTILL.SCALE, cfg.MODEL.LOSSES.BODY_SHAPE.SCALE
    (0.3, 0.5, 0.3)
    """
    cfg = fastreid_cfg()
    add_clip3d_config(cfg)
    return cfg
