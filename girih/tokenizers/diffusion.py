"""A discrete diffusion process with learned variances: noise in, noise out, and its training loss.

Knows tensors ``[B, C, *cells]``, steps and schedules (Ho et al. 2020; Nichol & Dhariwal 2021, sections 2 and 3; the
respaced steps of openai/improved-diffusion). Does not know what predicts. Written out, because diffusers' DDPMScheduler
takes the upper variance from the steps before respacing, and has no variational loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]  # (noisy [B, C, ...], times [B]) -> [B, 2 C, ...]


class Denoised(NamedTuple):
    """One step back: ``mean`` and ``log_variance`` of the less noisy tensor, and the clean one that they imply."""

    mean: Tensor
    log_variance: Tensor
    clean: Tensor


@dataclass(frozen=True)
class Diffusion:
    """``betas``: float64 noise variance of each step; ``times``: what the predictor is told at each step."""

    betas: Tensor
    times: Tensor

    @classmethod
    def linear(cls, steps: int = 1000) -> Diffusion:
        """Betas rising linearly to 0.02 in 1000 steps, or in another number of steps to as much noise."""
        scale = 1000 / steps
        return cls(torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64), torch.arange(steps))

    def respaced(self, count: int) -> Diffusion:
        """The same process in ``count`` of its steps, evenly spaced, first and last included.

        Raises ValueError where there are not so many steps.
        """
        steps = len(self.betas)
        if not 1 <= count <= steps:
            raise ValueError(f"a diffusion of {steps} steps can be sampled in 1 to {steps} steps, got {count}")
        stride = (steps - 1) / (count - 1) if count > 1 else 1.0
        kept, at = [], 0.0
        for _ in range(count):  # added up, not multiplied: the rounding of published step lists
            kept.append(round(at))
            at += stride
        remaining = self.remaining[kept]
        before = torch.cat([remaining.new_ones(1), remaining[:-1]])
        return Diffusion(1 - remaining / before, self.times[kept])

    @property
    def remaining(self) -> Tensor:
        """Share of the clean tensor's variance that is left after each step (alpha bar), float64."""
        return (1 - self.betas).cumprod(0)

    def add_noise(self, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """The tensor after steps ``step [B]``: ``sqrt(abar) clean + sqrt(1 - abar) noise``."""
        return _at(self.remaining.sqrt(), step, clean) * clean + _at((1 - self.remaining).sqrt(), step, clean) * noise

    def posterior(self, clean: Tensor, noisy: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of one step back when the clean tensor is known. At step 0 the variance is that of
        step 1, not zero."""
        before = torch.cat([self.remaining.new_ones(1), self.remaining[:-1]])
        of_clean = self.betas * before.sqrt() / (1 - self.remaining)
        of_noisy = (1 - before) * (1 - self.betas).sqrt() / (1 - self.remaining)
        variance = self.betas * (1 - before) / (1 - self.remaining)
        if len(variance) > 1:
            variance = torch.cat([variance[1:2], variance[1:]])
        else:
            variance = self.betas
        mean = _at(of_clean, step, clean) * clean + _at(of_noisy, step, noisy) * noisy
        return mean, _at(variance.log(), step, noisy).expand_as(mean)

    def step_back(self, output: Tensor, noisy: Tensor, step: Tensor) -> Denoised:
        """What a predictor's ``output [B, 2 C, ...]`` (noise; place of the log variance between its bounds, in [-1, 1])
        says about one step back from ``noisy [B, C, ...]`` at ``step [B]``."""
        noise, place = output.chunk(2, dim=1)
        share, noise_share = self.remaining.rsqrt(), (1 / self.remaining - 1).sqrt()
        clean = _at(share, step, noisy) * noisy - _at(noise_share, step, noisy) * noise
        mean, lowest = self.posterior(clean, noisy, step)
        highest = _at(self.betas.log(), step, noisy)
        place = (place + 1) / 2
        return Denoised(mean, place * highest + (1 - place) * lowest, clean)

    def loss(self, output: Tensor, clean: Tensor, noise: Tensor, noisy: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Of each row ``[B]``: squared error of the noise, and the variational bound in bits that trains the variance
        alone (the predicted noise is held fixed in it)."""
        predicted, place = output.chunk(2, dim=1)
        squared = (predicted - noise).square().flatten(1).mean(1)
        back = self.step_back(torch.cat([predicted.detach(), place], 1), noisy, step)
        mean, log_variance = self.posterior(clean, noisy, step)
        divergence = 0.5 * (
            back.log_variance - log_variance - 1
            + (log_variance - back.log_variance).exp()
            + (mean - back.mean).square() * (-back.log_variance).exp()
        )  # fmt: skip
        last = -_log_likelihood_of_levels(clean, back.mean, 0.5 * back.log_variance)
        shape = (-1, *[1] * (clean.ndim - 1))
        bound = torch.where((step == 0).view(shape), last, divergence)
        return squared, bound.flatten(1).mean(1) / math.log(2)

    def denoise(self, predict: Predict, noise: Tensor, draws: Iterator[Tensor]) -> Iterator[Tensor]:
        """Ancestral sampling from pure ``noise``: yields the tensor after each step, the last one clean. ``draws``
        gives fresh standard normal noise once a step (at the last one it is not used)."""
        current = noise
        for number in reversed(range(len(self.betas))):
            step = torch.full((len(noise),), number, device=noise.device)
            back = self.step_back(predict(current, self.times.to(noise.device)[step]), current, step)
            fresh = next(draws)
            current = back.mean + (0.5 * back.log_variance).exp() * fresh if number else back.mean
            yield current


def _at(table: Tensor, step: Tensor, like: Tensor) -> Tensor:
    """Entries of a table ``[steps]`` at ``step [B]``, float32, shaped to multiply ``like [B, ...]``."""
    return table.to(step.device)[step].float().view(-1, *[1] * (like.ndim - 1))


def _log_likelihood_of_levels(clean: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability of 8-bit levels in [-1, 1] under a Gaussian, elementwise (Ho et al. 2020, section 3.3)."""

    def below(at: Tensor) -> Tensor:  # the published approximation of the normal distribution function
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (at + 0.044715 * at**3)))

    centred, sharpness = clean - mean, (-log_scale).exp()
    upper, lower = below(sharpness * (centred + 1 / 255)), below(sharpness * (centred - 1 / 255))
    inside = torch.where(clean > 0.999, 1 - lower, upper - lower)
    return torch.where(clean < -0.999, upper, inside).clamp_min(1e-12).log()
