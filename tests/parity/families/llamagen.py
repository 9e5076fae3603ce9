"""LlamaGen: the VQ tokenizer and the two generators."""

from __future__ import annotations

from torch import Tensor

import girih
from girih.checkpoints import llamagen
from girih.generators.decoding.autoregressive import greedy
from girih.generators.decoding.guidance import Guidance

from .case import Case, Family


def llamagen_vq(case: Case) -> dict[str, Tensor]:
    """LlamaGen's VQ tokenizer: encode, decode, reconstruct, and the training losses."""
    arguments = case.description["constructor"]
    known = {key: arguments["ModelArgs"][key] for key in ("codebook_l2_norm", "commit_loss_beta", "entropy_loss_ratio")
             if key in arguments["ModelArgs"]}  # fmt: skip
    image = case.inputs["image"]
    config, state = llamagen.load_vq(case.weights, sample_size=image.shape[-1], **known)
    codec = girih.ImageTokenizer.from_config(config)
    codec.load_state_dict(state)
    codec.eval()
    features = codec.features(image)
    quantized = codec.quantize(features)
    out = {
        "pre_quant": features,
        "indices": codec.encode(image).flatten(),
        "quant": quantized.codes,
        "decoded": codec.decode(quantized.tokens),
        "reconstruction": codec(image).sample,
    }
    losses = codec.train()(image).losses
    return {**out, "vq_loss": losses["vq"].reshape(1), "commit_loss": losses["commit"].reshape(1)}


def _generator(case: Case) -> girih.NextTokenGenerator:
    config, state = llamagen.load_gpt(case.weights, **case.description["constructor"]["ModelArgs"])
    generator = girih.NextTokenGenerator.from_config(config)
    generator.load_state_dict(state)
    return generator.eval()


def _greedy(case: Case, generator: girih.NextTokenGenerator, name: str, positive: tuple, negative: tuple) -> Tensor:
    scale = case.setting(name, "cfg_scale", 1.0)
    guide = Guidance(scale, int(case.setting(name, "cfg_interval", -1)))
    condition = generator.condition(*positive)
    if guide.paired:
        condition = condition.concat(condition, generator.condition(*negative))
    return greedy(generator, condition, guide)


def llamagen_gpt_c2i(case: Case) -> dict[str, Tensor]:
    """LlamaGen's class-conditional generator: teacher-forced logits, loss, greedy tokens with and without guidance."""
    generator, codes = _generator(case), case.inputs["codes"]
    condition = generator.condition(case.inputs["labels"])
    labels = case.inputs["gen_labels"]
    pair = (labels,), (generator.conditioner.null(len(labels)),)
    return {
        "logits": generator.logits(codes[:, :-1], condition),
        "loss": generator.nats(codes, condition).mean().reshape(1),
        "greedy_cfg": _greedy(case, generator, "greedy_cfg", *pair),
        "greedy_nocfg": _greedy(case, generator, "greedy_nocfg", *pair),
    }


def llamagen_gpt_t2i(case: Case) -> dict[str, Tensor]:
    """LlamaGen's text-conditional generator on given text features."""
    generator, codes = _generator(case), case.inputs["codes"]
    caption, visible = case.inputs["caption"], case.inputs["emb_mask"].bool()
    condition = generator.condition(caption, visible)
    nats, valid = generator.nats(codes, condition), case.inputs["valid_some"][:, None].expand(codes.shape)
    # The unconditional half is masked like its conditional partner.
    pair = (caption, visible), (generator.conditioner.null(len(caption)), visible)
    return {
        "logits": generator.logits(codes[:, :-1], condition),
        "loss": nats.mean().reshape(1),
        "loss_valid_some": ((nats * valid).sum() / valid.sum().clamp(min=1)).reshape(1),
        "greedy_cfg": _greedy(case, generator, "greedy_cfg", *pair),
        "greedy_nocfg": _greedy(case, generator, "greedy_nocfg", *pair),
    }


FAMILIES = {
    "llamagen_vq": Family(llamagen_vq),
    "llamagen_gpt_c2i": Family(llamagen_gpt_c2i),
    "llamagen_gpt_t2i": Family(llamagen_gpt_t2i),
}
