"""The multilayer perceptron with a single hidden layer behind Psi, Phi and phi."""

from __future__ import annotations

import torch
from torch import nn


class MLP(nn.Sequential):
    """Linear, ReLU, Linear: [..., in_dim] -> [..., out_dim].

    Raises:
        ValueError: if a width is under 1.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        for name, width in (("in_dim", in_dim), ("hidden_dim", hidden_dim), ("out_dim", out_dim)):
            if width < 1:
                raise ValueError(f"MLP: {name} must be at least 1, got {width}")
        super().__init__(nn.Linear(in_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of the inputs."""
        return next(self.parameters()).dtype
