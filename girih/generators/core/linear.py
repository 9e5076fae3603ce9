"""Linear layers for drawing: the same weights, laid out for few rows at a time.

Knows three layouts and when each pays. Does not know which layers of a network take them. Every one of them keeps
``weight`` as a model file has it: its ``state_dict`` gives and takes the original name, shape and values, whatever the
layer multiplies with. They are for inference: no gradient passes.

With few rows a product is bound by reading the weights. In torch on CPUs a weight [out, in] is read at full speed by
one row only; two rows, a guided pair, take more than twice as long.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_VNNI = torch.cpu._is_vnni_supported()
FEW_ROWS = 3  # up to here the plain product on a transposed weight keeps up with oneDNN's packed one


class DerivedLinear(nn.Linear):
    """A linear layer that multiplies with something derived from ``weight``.

    What is derived is made when first needed and forgotten when the weight changes, moves, or is copied or pickled.
    """

    _derived: Any = None

    @classmethod
    def of(cls, linear: nn.Linear) -> DerivedLinear:
        """The same layer in this layout; ``linear`` is used up."""
        layer = cls(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        layer.weight, layer.bias = linear.weight, linear.bias
        return layer.requires_grad_(False).train(linear.training)

    @abstractmethod
    def derive(self) -> Any:
        """What the layer multiplies with."""

    @property
    def derived(self) -> Any:
        if self._derived is None:
            self._derived = self.derive()
        return self._derived

    def _apply(self, fn: Any, recurse: bool = True) -> DerivedLinear:
        self._derived = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._derived = None
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_derived"}


class TransposedLinear(DerivedLinear):
    """Exact, for CPUs: the weight of a widening layer is stored transposed, [in, out] contiguous.

    ``weight`` stays [out, in], as a view with the strides of that storage. More than ``FEW_ROWS`` rows go through a
    copy in oneDNN's blocked layout, made by the first call that needs it, where the dtype is float32.
    """

    @classmethod
    def of(cls, linear: nn.Linear) -> DerivedLinear:
        layer = super().of(linear)
        if layer.out_features >= layer.in_features:
            layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t(), requires_grad=False)
        return layer

    def derive(self) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(self.weight.detach().contiguous(), 16)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        few = x.numel() <= FEW_ROWS * self.in_features
        if few or x.dtype != torch.float32 or not x.is_cpu or not torch.backends.mkldnn.is_available():
            return F.linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self.derived, self.bias, "none", [], "")

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = destination[prefix + "weight"].contiguous()


class Int8Linear(DerivedLinear):
    """Approximate, for CPUs: 8-bit weights scaled per output channel, activations scaled per row as they come.

    The product is torch's dynamically quantised linear (FBGEMM or oneDNN by machine), which scales a whole input by
    its range; rows are brought to the same range first, so that none costs another its precision. Up to ``FEW_ROWS``
    rows are bfloat16 instead, which has as many digits: finding their scales costs more than their product. Off the
    CPU it is an ordinary linear layer.
    """

    def derive(self) -> Any:
        weight = self.weight.detach().float()
        scales = (weight.abs().amax(1) / 127).clamp_min(1e-12)
        zeros = torch.zeros(len(scales), dtype=torch.long)
        with warnings.catch_warnings():  # deprecated for torch releases above the ones girih runs on
            warnings.filterwarnings("ignore", message=".*quantized tensor creation")
            whole = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        return whole.int_repr(), scales.bfloat16(), torch.ops.quantized.linear_prepack(whole, None)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        if not x.is_cpu:
            return super().forward(x)
        integers, scales, packed = self.derived
        if x.numel() <= FEW_ROWS * self.in_features:
            rows = torch._weight_int8pack_mm(x.reshape(-1, self.in_features).bfloat16(), integers, scales)
            out = rows.to(x.dtype).view(*x.shape[:-1], self.out_features)
            return out if self.bias is None else out + self.bias
        # Without VNNI the 16-bit sums of products overflow at 8-bit activations; 7 bits are safe.
        narrow = not _VNNI
        ranges = x.float().abs().amax(-1, keepdim=True).clamp_min_(1e-12)
        out = torch.ops.quantized.linear_dynamic(x / ranges, packed, narrow).mul_(ranges)
        return (out if self.bias is None else out + self.bias).to(x.dtype)


class HalfLinear(DerivedLinear):
    """Approximate, for GPUs: multiplies with a bfloat16 copy of the weight; inputs and outputs keep their dtype."""

    def derive(self) -> Tensor:
        return self.weight.detach().to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        out = F.linear(x.to(torch.bfloat16), self.derived).to(x.dtype)
        return out if self.bias is None else out + self.bias
