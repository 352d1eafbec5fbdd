"""Networks as plain functions of their parameters, so that losses can be differentiated, compiled and vmapped.

Parameters are a tuple (w0, b0, w1, b1, ...), weights `[..., out, in]`. Leading axes are free: the twin critics are one network
with a leading axis of 2, several seeds are one more. Knows no algorithm and no robot.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


def gelu(x: Tensor) -> Tensor:
    """x times the normal distribution's cdf.

    Compiled for a CPU in float32 its slope is computed with it, from the same exponential, and kept: the gradient is one product.
    The erf is the one ATen's vectorised float32 kernels use (Abramowitz and Stegun 7.1.26, within 1.5e-7).
    """
    if not (torch.compiler.is_compiling() and x.dtype == torch.float32 and x.device.type == "cpu"):
        return functional.gelu(x)
    still = x.detach()
    bell = torch.exp(-0.5 * still * still)
    t = 1.0 / (1.0 + 0.3275911 / math.sqrt(2.0) * still.abs())
    r = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * r * bell
    cdf = torch.where(still < 0.0, tail, 1.0 - tail)
    value = still * cdf
    if not torch.is_grad_enabled():
        return value
    slope = cdf + still * bell * (1.0 / math.sqrt(2.0 * math.pi))
    return value + slope * (x - still)


Params = tuple[Tensor, ...]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": gelu, "relu": functional.relu, "tanh": torch.tanh}


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the two kinds of network. The defaults are the paper's."""

    obs: int
    act: int
    critic_hidden: tuple[int, ...] = (256, 256, 256)
    actor_hidden: tuple[int, ...] = (256, 256, 256)

    @property
    def critic(self) -> tuple[int, ...]:
        return (self.obs + self.act, *self.critic_hidden, 2)  # mean and, before softplus, sigma

    @property
    def actor(self) -> tuple[int, ...]:
        return (self.obs, *self.actor_hidden, 2 * self.act)  # means and log-deviations


def mlp(params: Params, x: Tensor, activation: str, layer_norm: bool = False) -> Tensor:
    """`x[..., batch, in]` -> `[..., batch, out]`; the parameters' leading axes broadcast against x's."""
    nonlinear = ACTIVATIONS[activation]
    last = len(params) // 2 - 1
    # Inside, features come before the batch: then a weight's gradient comes out as the weight lies in memory. The other way round
    # it comes out transposed, and Adam's kernel spends its time striding.
    x = x.transpose(-1, -2)
    for i in range(last + 1):
        x = params[2 * i] @ x + params[2 * i + 1].unsqueeze(-1)
        if i < last:
            x = nonlinear(normalised(x) if layer_norm else x)
    return x.transpose(-1, -2)


def normalised(x: Tensor) -> Tensor:
    """`x[..., features, batch]`, over the features."""
    return functional.layer_norm(x.transpose(-1, -2), (x.shape[-2],)).transpose(-1, -2)


def make_params(
    sizes: tuple[int, ...], generator: torch.Generator, leading: tuple[int, ...] = (), dtype: torch.dtype = torch.float32
) -> Params:
    """PyTorch's own initialisation of a Linear: uniform within 1/sqrt(inputs), weights and biases."""
    params: list[Tensor] = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        bound = 1.0 / math.sqrt(inputs)
        for shape in ((*leading, outputs, inputs), (*leading, outputs)):
            params.append((torch.rand(shape, generator=generator, dtype=dtype) * 2.0 - 1.0) * bound)
    return tuple(params)


def value_distribution(critics: Params, obs: Tensor, act: Tensor, activation: str, layer_norm: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and sigma of the return, `[2, batch]` each for twin critics."""
    out = mlp(critics, torch.cat((obs, act), dim=-1), activation, layer_norm)
    return out[..., 0], functional.softplus(out[..., 1])


def action_distribution(actor: Params, obs: Tensor, activation: str, log_std_range: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the Gaussian before tanh, `[batch, act]` each."""
    mean, log_std = mlp(actor, obs, activation).chunk(2, dim=-1)
    return mean, log_std.clamp(*log_std_range).exp()


def squash(mean: Tensor, std: Tensor, eps: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Action affine(tanh(mean + std * eps)) and its log-probability."""
    u = mean + std * eps
    tanh = torch.tanh(u)
    half = (high - low) / 2.0
    action = half * tanh + (high + low) / 2.0
    log_normal = -0.5 * eps.square() - std.log() - 0.5 * math.log(2.0 * math.pi)
    log_prob = (log_normal - torch.log(1.0 + 1e-6 - tanh.square()) - half.log()).sum(dim=-1)
    return action, log_prob


def mode_action(mean: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """What is deployed: no noise."""
    return (high - low) / 2.0 * torch.tanh(mean) + (high + low) / 2.0
