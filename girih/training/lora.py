"""Low-rank adapters: light fine-tuning of a finished generator (Hu et al. 2021, "LoRA").

Knows which layers of a generator get adapters, and how they leave training: merged into its weights, and as peft files.
Does not know data, losses or the loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from girih.files import whole

# Attention and feed-forward of every layer; not the maps of the condition, which run once a call.
TARGETS = r"core\.layers\.\d+\.(mixer\.(qkv|proj)|cross\.(query|key_value|proj)|feed_forward\.(gate|up|down))"
ADAPTER = "default"


def add_adapters(generator: nn.Module, rank: int) -> None:
    """Freeze a generator and put trainable adapters of ``rank`` (scaled by 1) beside its ``TARGETS``, in place. They
    start without effect.

    Raises ValueError where peft is missing or ``rank`` is no whole number of at least 1.
    """
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise ValueError(f"lora is the adapters' rank, a whole number of at least 1, got {rank!r}")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise ValueError("LoRA needs peft: pip install 'girih[lora]'") from error
    generator.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS), generator, ADAPTER)


def adapted(model: nn.Module) -> bool:
    """Whether the model holds adapters."""
    return hasattr(model, "peft_config")


def merged(model: nn.Module) -> dict[str, Tensor]:
    """The model's ``state_dict`` with its adapters, if there are any, added to the weights they stand beside."""
    state = model.state_dict()
    if not adapted(model):
        return state
    from peft.tuners.lora import Linear

    state = {name.replace(".base_layer.", "."): value for name, value in state.items() if ".lora_" not in name}
    for name, layer in model.named_modules():
        if isinstance(layer, Linear):
            state[f"{name}.weight"] = state[f"{name}.weight"] + layer.get_delta_weight(ADAPTER)
    return state


def save_adapters(model: Any, folder: Path) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``: what ``PeftModel.from_pretrained(generator,
    folder)`` reads."""
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    model.peft_config[ADAPTER].save_pretrained(folder)
    state = get_peft_model_state_dict(model, adapter_name=ADAPTER)
    with whole(folder / "adapter_model.safetensors") as part:
        save_file({f"base_model.model.{name}": value.contiguous() for name, value in state.items()}, part)
