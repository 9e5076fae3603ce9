"""A pipeline made faster where it stands.

Knows which layers of a generator take which layout on which device. Does not know how they multiply.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from girih.generators.compiled import StaticStep
from girih.generators.core.layers import AdaLN
from girih.generators.core.linear import DerivedLinear, HalfLinear, Int8Linear, TransposedLinear


def optimize(pipe: Any, int8: bool = False) -> Any:
    """Make the pipeline's generator faster on the device it is on. Returns the same pipeline.

    On a CPU its linear layers are laid out for few rows. In float32 that changes no picture. With ``int8`` the layers
    that run at every token multiply in 8 bits; what runs once a call, the head and the choice of tokens do not.

    On a GPU the same layers multiply in bfloat16, and the step of one token becomes one compiled graph a bucket of 64
    slots (``torch.compile``, reduce-overhead). The first call compiles. Not run on a GPU yet.

    Results are approximate with ``int8`` and on a GPU: the same call gives the same picture, but a picture may depend
    on what else is in its batch. ``pipe.generator.approximate`` says so. Saving writes the original weights. The
    generator cannot be trained afterwards. Doing it again changes nothing.

    Raises:
        ValueError: ``int8`` on a GPU, or a pipeline that was optimised the other way.
    """
    generator = pipe.generator
    gpu = generator.device.type != "cpu"
    if gpu and int8:
        raise ValueError(f"int8 layers are for CPUs; this pipeline is on {generator.device}, which runs in bfloat16")
    approximate = gpu or int8
    if any(isinstance(module, DerivedLinear) for module in generator.modules()):
        if generator.approximate != approximate:
            kind = "approximate" if generator.approximate else "exact"
            raise ValueError(f"this pipeline is optimised already, with {kind} layers; load it again to change that")
        return pipe
    _replace(generator, HalfLinear if gpu else Int8Linear if int8 else TransposedLinear, gpu)
    generator.requires_grad_(False)
    generator.approximate = approximate
    if gpu:
        # One graph a bucket of slots and number of rows: the default of 8 is one batch size of 512 tokens.
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        static = StaticStep(generator, partial(torch.compile, mode="reduce-overhead", fullgraph=True, dynamic=False))
        generator.forward, generator.new_cache = static.forward, static.new_cache
    return pipe


def _replace(generator: nn.Module, layout: type[DerivedLinear], gpu: bool) -> None:
    """Approximate layouts stay away from the head, and 8 bits also from what is computed once a call."""
    exact: type[DerivedLinear] | None = None if gpu else TransposedLinear
    for name, parent in list(generator.named_modules()):
        every_token = name.startswith("core.") and not isinstance(parent, AdaLN)
        for child, linear in list(parent.named_children()):
            if type(linear) is nn.Linear:
                chosen = layout if every_token else exact
                if chosen is not None:
                    setattr(parent, child, chosen.of(linear))
