"""Local distillation: the student's patches are transported to the descriptors of the image (paper, Eq. 3 to 7).

B: images. N: patches. M: descriptors of an image (16). d: width of the text space. d': width of the student.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastreid_clip3d.modeling.losses.directions import scale_and_norms
from fastreid_clip3d.modeling.losses.mlp import MLP
from fastreid_clip3d.modeling.losses.sinkhorn import LOG_DOMAIN_BELOW, sinkhorn

Center = Literal["none", "image", "batch"]
CENTERS: tuple[Center, ...] = get_args(Center)


class OTLoss(nn.Module):
    """Mean over the images of ``<T*, C>`` with ``C[n, m] = 1 - cos(f_n, Psi(h_m))`` (L_OT in Eq. 10, and in Eq. 9).

    As written, the loss falls when all patches and all phrases become one direction: then C = 0 for every label. Two
    settings, which are not in the paper, replace this minimum:

    - ``center`` puts ``f_n - mean f`` in the place of ``f_n``. The part that all patches share is gone, and the rest
      sums to zero, so no direction is near to all patches. Plans become structured, but a phrase and its opposite may
      still coincide.
    - ``contrast`` adds ``contrast * softplus((cos to the opposite phrase - cos to the own phrase) / temperature)``
      (:meth:`opposition`). Where the two phrases coincide, each pair costs log 2 whatever the label is; less is
      possible only where the features follow the labels.

    Psi is applied to the table of 2 M phrases once per step: ``table = loss.project(phrase_table)``, and then
    ``loss(local_features, table, phrase_choices)`` for the real half and again for the synthetic half.

    Args:
        text_dim: d.
        feat_dim: d'.
        hidden_dim: hidden width of Psi; 0 means ``feat_dim``.
        reg: lambda of Eq. 6, in units of 1 - cosine (costs lie in [0, 2]).
        num_iters: t, Sinkhorn iterations.
        tolerance: early stop of :func:`sinkhorn`; 0 runs all iterations.
        differentiable: False takes T* as a constant (envelope theorem, exact at convergence); True differentiates
            through the iterations.
        center: the mean that is subtracted: "none"; "image": of the image's own patches; "batch": of all patches that
            the loss is called with (one half of the batch of one process). The gradient passes through the mean.
        contrast: weight of :meth:`opposition`; 0 leaves it out.
        contrast_temperature: its temperature, in units of cosine.

    One patch that points along phrase 0 of four. The image has phrases 0 and 2, so half of the patch's mass goes to
    each, at the costs 1 - 1 and 1 - 0:

    >>> loss = OTLoss(text_dim=4, feat_dim=4)
    >>> table = torch.eye(4)  # the projected phrases; loss.project(phrase_table) in a training
    >>> patches, phrase_choices = table[None, :1], torch.tensor([[0, 0]])
    >>> loss.cost(patches, table, phrase_choices)
    tensor([[[0., 1.]]])
    >>> loss(patches, table, phrase_choices)
    tensor(0.5000)
    """

    def __init__(
        self,
        text_dim: int,
        feat_dim: int,
        hidden_dim: int = 0,
        reg: float = 1.0,
        num_iters: int = 1,
        tolerance: float = 0.0,
        differentiable: bool = False,
        contrast: float = 0.0,
        contrast_temperature: float = 0.1,
        center: Center = "none",
    ) -> None:
        super().__init__()
        self.projection = MLP(text_dim, hidden_dim or feat_dim, feat_dim)
        self.reg = float(reg)
        self.num_iters = int(num_iters)
        self.tolerance = float(tolerance)
        self.differentiable = bool(differentiable)
        self.contrast = float(contrast)
        self.contrast_temperature = float(contrast_temperature)
        self.center = center
        if center not in CENTERS:
            raise ValueError(f"OTLoss: center must be one of {', '.join(CENTERS)}, got {center!r}")
        if self.contrast < 0 or self.contrast_temperature <= 0:
            raise ValueError(
                "OTLoss: contrast must be 0 or more and its temperature above 0, got "
                f"{contrast} and {contrast_temperature}"
            )
        # One call now, so that wrong settings raise when the model is built and not at the first step.
        sinkhorn(torch.zeros(1, 1, 1), self.reg, self.num_iters, tolerance=self.tolerance)

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor], prefix: str = "ot_loss.") -> OTLoss:
        """The loss of a checkpoint with its trained Psi; the settings of the transport are the defaults.

        Args:
            weights: tensors by name. prefix: what stands before this loss's names.
        """
        own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        first, second = own["projection.0.weight"], own["projection.2.weight"]  # [hidden, d], [d', hidden]
        loss = cls(first.shape[1], second.shape[0], first.shape[0])
        loss.load_state_dict(own)
        return loss

    def project(self, phrase_table: Tensor) -> Tensor:
        """Psi of the text embeddings, L2-normalised: [2 M, d] -> [2 M, d'], float32 (or float64)."""
        projected = self.projection(phrase_table.to(self.projection.dtype))
        with torch.autocast(device_type=projected.device.type, enabled=False):
            scaled, norms = scale_and_norms(projected)
            return scaled / norms[..., None]

    def cost(self, local_features: Tensor, projected_table: Tensor, phrase_choices: Tensor) -> Tensor:
        """C of Eq. 4, of centred patches where ``center`` says so: [B, N, M], in [0, 2], float32 (or float64).

        Args:
            local_features: F, [B, N, d']; any strides, so ``feature_map.flatten(2).transpose(1, 2)`` is not copied.
            projected_table: what :meth:`project` returned, [2 M, d'].
            phrase_choices: int64 [B, M], 0 or 1.

        Raises:
            ValueError: if the shapes do not belong together.
        """
        return 1.0 - self._chosen(self._cosines(local_features, projected_table, phrase_choices), phrase_choices)

    def _cosines(self, local_features: Tensor, projected_table: Tensor, phrase_choices: Tensor) -> Tensor:
        """cos(f_n, Psi(h)) for all phrases: [B, N, 2 M]."""
        num_phrases, feat_dim = projected_table.shape
        if local_features.dim() != 3 or local_features.shape[2] != feat_dim:
            raise ValueError(f"OTLoss: local features must be [B, N, {feat_dim}], got {tuple(local_features.shape)}")
        if tuple(phrase_choices.shape) != (len(local_features), num_phrases // 2):
            raise ValueError(
                f"OTLoss: phrase_choices must be [{len(local_features)}, {num_phrases // 2}] for "
                f"{len(local_features)} images and {num_phrases} phrases, got {tuple(phrase_choices.shape)}"
            )
        with torch.autocast(device_type=local_features.device.type, enabled=False):
            scaled, norms = scale_and_norms(self._centred(local_features))
            return (scaled @ projected_table.to(scaled.dtype).t()) / norms[..., None]

    def _centred(self, local_features: Tensor) -> Tensor:
        """The patches minus their mean, times one half: [B, N, d']. The half keeps finite differences finite."""
        if self.center == "none":
            return local_features
        halves = local_features * 0.5 if local_features.dtype == torch.float64 else local_features.float() * 0.5
        dims = (1,) if self.center == "image" else (0, 1)
        count = max(math.prod(halves.shape[dim] for dim in dims), 1)
        return halves - (halves / count).sum(dims, keepdim=True)

    @staticmethod
    def _chosen(cosines: Tensor, phrase_choices: Tensor) -> Tensor:
        """The columns of an image's own phrases: [B, N, 2 M] -> [B, N, M]."""
        first_rows = torch.arange(0, cosines.shape[2], 2, device=phrase_choices.device)
        return cosines.gather(2, (first_rows + phrase_choices)[:, None, :].expand(-1, cosines.shape[1], -1))

    def opposition(self, cosines: Tensor, phrase_choices: Tensor) -> Tensor:
        """Mean over images and pairs of ``softplus((mean_n cos(f_n, opposite) - mean_n cos(f_n, own)) / temperature)``.

        It pulls an image closer to its own phrase than to the opposite one.

        Args:
            cosines: [B, N, 2 M]; phrase_choices: [B, M].
        """
        own = self._chosen(cosines, phrase_choices).mean(1)
        opposite = self._chosen(cosines, 1 - phrase_choices).mean(1)
        terms = functional.softplus((opposite - own) / self.contrast_temperature)
        return terms.sum() / max(terms.numel(), 1)

    def plan(self, cost: Tensor) -> Tensor:
        """T* of Eq. 7 for a cost of :meth:`cost`: [B, N, M], each plan sums to 1."""
        return sinkhorn(
            cost if self.differentiable else cost.detach(),
            self.reg,
            self.num_iters,
            tolerance=self.tolerance,
            # A cosine cost lies in [0, 2], so reg alone decides and no device has to be asked for the range.
            log_domain=self.reg < LOG_DOMAIN_BELOW,
        )

    def forward(self, local_features: Tensor, projected_table: Tensor, phrase_choices: Tensor) -> Tensor:
        """The loss, a scalar; arguments as for :meth:`cost`. No images give a zero that is part of the graph."""
        cosines = self._cosines(local_features, projected_table, phrase_choices)
        cost = 1.0 - self._chosen(cosines, phrase_choices)
        transport = (self.plan(cost) * cost).sum() / max(len(cost), 1)
        if self.contrast == 0:
            return transport
        return transport + self.contrast * self.opposition(cosines, phrase_choices)
