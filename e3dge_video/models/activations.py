"""Bias, activation, gain and clamp in one call, with StyleGAN2's gains (chosen to keep the variance)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.models.parallel import needs_gradient

#: Factor applied after each activation unless another gain is asked for.
DEFAULT_GAINS = {
    "linear": 1.0,
    "relu": math.sqrt(2),
    "lrelu": math.sqrt(2),
    "tanh": 1.0,
    "sigmoid": 1.0,
    "elu": 1.0,
    "selu": 1.0,
    "softplus": 1.0,
    "swish": math.sqrt(2),
}
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "swish": F.silu,
}


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) within 6e-7. Overwrites x on a CPU where no gradient is asked for. Any shape

    On a CPU log1p is the slow part of torch's own.
    """
    if x.device.type != "cpu":
        return F.softplus(x)
    return _Softplus.apply(x) if needs_gradient(x) else _softplus_into(x)


def _softplus_into(x: Tensor) -> Tensor:
    rest = x.abs().sigmoid_().log_()  # log(1 / (1 + exp(−|x|)))
    return x.clamp_min_(0).sub_(rest)


class _Softplus(torch.autograd.Function):
    """`softplus` of an x that stays; its derivative is the sigmoid. Half precision is left inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _softplus_into(x.to(torch.promote_types(x.dtype, torch.float32), copy=True)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * x.sigmoid()


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    dim: int = 1,
    activation: str = "linear",
    slope: float = 0.2,
    gain: float | None = None,
    clamp: float | None = None,
    inplace: bool = False,
) -> Tensor:
    """Add a bias along `dim`, apply the activation and its gain, limit to ±clamp.

    Args:
        x: Any shape.
        bias: One value for each index of `dim`.
        slope: Of the leaky ReLU's negative side.
        gain: None for the activation's own.
        inplace: Allow overwriting x; only for a fresh result of an operation whose gradient does not need it.
    """
    if bias is not None:
        shaped = bias.to(x.dtype).reshape([-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)])
        x = x.add_(shaped) if inplace else x + shaped
    if activation == "lrelu":
        # Fresh after adding a bias, and the gradient of a leaky ReLU can be told from its result.
        x = F.leaky_relu(x, slope, inplace=inplace or bias is not None)
    elif activation != "linear":
        x = _FUNCTIONS[activation](x)
    gain = DEFAULT_GAINS[activation] if gain is None else gain
    if gain != 1.0:
        x = x * gain
    if clamp is None:
        return x
    return x.clamp_(-clamp, clamp) if inplace and not x.requires_grad else x.clamp(-clamp, clamp)
