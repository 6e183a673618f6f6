"""StyleGAN2's fully connected layer and mapping network, and truncation.

Karras et al., "A Style-Based Generator Architecture for Generative Adversarial Networks", 2019, and its successors; the
conditional form is EG3D's. Letters: B batch, Z and W widths of z and w, L rows of a W+ code.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from e3dge_video.models.activations import bias_act


def normalize_second_moment(x: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Scale every row to mean square 1. [B, C]"""
    return x * (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate: stored weights have unit variance and are scaled when used."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        bias_init: float = 0.0,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([outputs], float(bias_init))) if bias else None
        self.activation = activation
        self.weight_gain = lr_multiplier / math.sqrt(inputs)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """[B, I] → [B, O]"""
        if self.bias is None:
            x = x @ (self.weight * self.weight_gain).t()
        else:
            x = torch.addmm(self.bias, x, self.weight.t(), beta=self.bias_gain, alpha=self.weight_gain)
        return bias_act(x, activation=self.activation)

    @torch.no_grad()
    def start_from(self, other: FullyConnected) -> None:
        """Compute what a smaller layer computes; what it lacks of inputs has no effect on its outputs yet.

        Raises:
            ValueError: The other layer has more outputs.
        """
        rows, columns = other.weight.shape
        if self.weight.shape[0] < rows:
            raise ValueError(f"a layer of {rows} units does not fit into one of {self.weight.shape[0]}")
        # The stored weights are scaled by the number of inputs when used.
        self.weight[:rows, :columns] = other.weight * (other.weight_gain / self.weight_gain)
        self.weight[:rows, columns:] = 0
        if self.bias is not None and other.bias is not None:
            self.bias[:rows] = other.bias * (other.bias_gain / self.bias_gain)


class MappingNetwork(nn.Module):
    """(z, condition) → w, and the running mean of w for truncation.

    Args:
        z_dim: Width of z; 0 for a network of the condition alone.
        condition_dim: Width of the condition (EG3D: the 25 camera numbers); 0 for none.
        w_dim: Width of w.
        layers: Fully connected layers after the embedding of the condition.
        track_mean: Keep the mean of w, which truncation needs.
    """

    mean_latents: Tensor | None

    def __init__(
        self,
        z_dim: int,
        condition_dim: int,
        w_dim: int,
        *,
        layers: int = 8,
        embed_width: int | None = None,
        hidden_width: int | None = None,
        lr_multiplier: float = 0.01,
        track_mean: bool = True,
    ) -> None:
        super().__init__()
        embedded = (embed_width or w_dim) if condition_dim else 0
        self.z_dim = z_dim
        self.embed = FullyConnected(condition_dim, embedded) if condition_dim else None
        widths = [z_dim + embedded, *[hidden_width or w_dim] * (layers - 1), w_dim]
        self.layers = nn.ModuleList(
            FullyConnected(inputs, outputs, activation="lrelu", lr_multiplier=lr_multiplier)
            for inputs, outputs in pairwise(widths)
        )
        self.register_buffer("mean_latents", torch.zeros(w_dim) if track_mean else None)

    @torch.no_grad()
    def start_from(self, other: MappingNetwork) -> None:
        """Compute what a narrower network computes: units that it lacks begin without effect on the rest.

        Raises:
            ValueError: The other network has more units, other layers or other inputs.
        """
        if len(self.layers) != len(other.layers) or self.z_dim != other.z_dim:
            raise ValueError("another number of layers or inputs in the mapping network")
        if self.embed is not None and other.embed is not None:
            self.embed.load_state_dict(other.embed.state_dict())
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            assert isinstance(mine, FullyConnected) and isinstance(theirs, FullyConnected)
            mine.start_from(theirs)
        if self.mean_latents is not None and other.mean_latents is not None:
            self.mean_latents.copy_(other.mean_latents)

    def forward(self, z: Tensor | None, condition: Tensor | None = None) -> Tensor:
        """z [B, Z], condition [B, C] → w [B, W], not truncated."""
        parts = []
        if self.z_dim:
            assert z is not None
            parts.append(normalize_second_moment(z))
        if self.embed is not None:
            assert condition is not None
            parts.append(normalize_second_moment(self.embed(condition)))
        w = torch.cat(parts, dim=1)
        for layer in self.layers:
            w = layer(w)
        return w

    @torch.no_grad()
    def update_mean(self, w: Tensor, *, decay: float = 0.998) -> None:
        """Move the running mean towards the mean of a training batch. [B, W]"""
        assert self.mean_latents is not None
        self.mean_latents.lerp_(w.mean(dim=0), 1 - decay)


def broadcast_latents(
    w: Tensor, rows: int, *, mean: Tensor | None = None, truncation: float = 1.0, cutoff: int | None = None
) -> Tensor:
    """One row of W to all rows of W+; the first `cutoff` rows (None: all) are drawn towards the mean.

    Args:
        w: [B, W]
        mean: Mean of w; needed when truncation is not 1. [W]
        truncation: 0 gives the mean, 1 gives w.
    """
    if truncation == 1.0:
        return w.unsqueeze(1).repeat(1, rows, 1)
    assert mean is not None
    truncated = mean.lerp(w, truncation)
    kept = rows if cutoff is None else min(cutoff, rows)
    return torch.stack([truncated] * kept + [w] * (rows - kept), dim=1)
