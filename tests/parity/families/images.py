"""Image tokenizers: Open-MAGVIT2's lookup-free one, VAR's multi-scale one, Semanticist's ordered one."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

import girih
from girih.checkpoints import openmagvit2, semanticist, var
from girih.spec import digits
from girih.tokenizers.ordered import prefix_mask

from .case import Case, Family


def by_rule(description: dict[str, Any], name: str) -> str:
    """Tolerances written as ``default`` and ``per_tensor``; whole numbers are exact."""
    if description["tensors"][name]["dtype"] in ("int64", "bool"):
        return "exact"
    limits = description["tolerance"]["per_tensor"].get(name, description["tolerance"]["default"])
    return f"atol {limits['atol']} rtol {limits['rtol']}"


def openmagvit2_vq(case: Case) -> dict[str, Tensor]:
    """Open-MAGVIT2's tokenizer: features, signs, ids whole and factorised, pictures, and the quantizer's losses."""
    arguments = {**case.description["constructor_args"], **case.description.get("also_constructed_with", {})}
    config, state = openmagvit2.load_vq(
        case.weights,
        bits=arguments.get("factorized_bits"),
        sample_size=case.inputs["image"].shape[-1],
        certainty_weight=arguments["sample_minimization_weight"],
        diversity_weight=arguments["batch_maximization_weight"],
        commit_weight=1.0,
    )
    codec = girih.LookupFreeTokenizer.from_config(config)
    codec.load_state_dict(state)
    codec.eval()
    image, features = case.inputs["image"], case.inputs["train_features"]
    indices = codec.encode(image)
    sub_tokens = digits(indices, codec.spec.levels or (codec.spec.vocab_size,))
    random = case.inputs["random_indices"]
    grid = [side // codec.downscale for side in image.shape[2:]]
    trained = codec.quantize.train()(features)
    certainty, diversity = codec.quantize.entropies(features)
    return {
        "enc_features": codec.features(image),
        "quantized": codec.quantize.lookup(indices),
        "indices": indices,
        "indices_pre": sub_tokens[..., 0],
        "indices_post": sub_tokens[..., -1],
        "reconstruction": codec.decode(indices),
        "decoded_from_random_indices": codec.decode(random.unflatten(1, grid)),
        "train_quantized": trained.codes,
        "train_entropy_aux_loss": trained.losses["entropy"],
        "train_commitment": trained.losses["commit"],
        "train_per_sample_entropy": certainty,
        "train_codebook_entropy": diversity,
    }


def var_tolerance(description: dict[str, Any], name: str) -> str:
    limits = description["tolerance"]
    if description["io"][name]["dtype"] == "int64":
        return limits["indices"]
    return f"atol {limits['float_atol']} rtol {limits['float_rtol']}"


def var_vqvae(case: Case) -> dict[str, Tensor]:
    """VAR's tokenizer: ids of every scale, partial and whole reconstruction, a generator's inputs, training losses."""
    arguments = case.description["constructor"]
    known = {name: arguments[name] for name in ("patch_nums", "quant_resi", "beta", "using_znorm") if name in arguments}
    config, state = var.load_vq(case.weights, **known)
    codec = girih.MultiscaleTokenizer.from_config(config)
    codec.load_state_dict(state)
    codec.eval()
    image, scales = case.inputs["image"], codec.config.scales
    tokens = codec.encode(image)
    sums = list(codec.quantize.sums(tokens))
    random = torch.cat([case.inputs[f"random_idx_{number}"] for number in range(len(scales))], 1)
    # How many scales the partial picture has stands in its description only ("scales 0..3").
    last = re.search(r"scales 0\.\.(\d+)", case.description["io"]["recon_scale_mid"]["what"])
    trained = codec.train()(image)
    codec.eval()
    return {
        "features": codec.features(image),
        "recon_last": codec.decode(tokens).clamp(-1, 1),
        "recon_scale_mid": codec.decode(tokens, keep=int(last[1]) + 1).clamp(-1, 1),
        "random_image": codec.decode(random).clamp(-1, 1),
        "var_input": codec.feed()(tokens),
        "f_hat_first": sums[0],
        "f_hat_last": sums[-1],
        "forward_recon": trained.sample,
        "forward_vq_loss": trained.losses["vq"] + trained.losses["commit"],
        **{f"idx_{number}": ids for number, ids in enumerate(codec.quantize.split(tokens))},
    }


def semanticist_tokenizer(case: Case) -> dict[str, Tensor]:
    """Semanticist's tokenizer: tokens, the decoder with and without guidance, training loss, sampling steps."""
    arguments, inputs = case.description["constructor_args"], case.inputs
    config, state = semanticist.load_tokenizer(
        case.weights,
        encoder_heads=arguments["encoder_args"]["num_heads"],
        decoder_heads=arguments["dit_args"]["num_heads"],
        standardise=arguments["norm_slots"],
    )
    codec = girih.OrderedTokenizer.from_config(config)
    codec.load_state_dict(state)
    codec.eval()
    features = codec.encoder(inputs["image"])
    slots = codec.encode(inputs["image"] * 2 - 1)
    latent, noise, times = inputs["latent"], inputs["noise"], inputs["timesteps"]
    # How many tokens are kept and how strong guidance is stand in descriptions only.
    roles = {name: tensor["role"] for name, tensor in case.description["tensors"].items()}
    length = int(re.search(r"n_slots=(\d+)", roles["keep_mask"])[1])
    scale = float(re.search(r"scale ([\d.]+)", roles["dit_out_cfg"])[1])
    keep = prefix_mask(torch.full((len(slots),), length), config["num_tokens"])
    x_t = codec.diffusion.add_noise(latent, noise, times)
    masked = codec.decoder(x_t, times, slots, keep)
    guided, null = codec.guided(x_t, times, slots, keep, scale), codec.decoder(x_t, times, slots, keep & False)
    mse, bound = codec.diffusion.loss(masked, latent, noise, x_t, times)
    process = codec.diffusion.respaced(int(arguments["num_sampling_steps"]))
    step = inputs["resp_step"]
    back = process.step_back(codec.decoder(x_t, process.times[step], slots, keep), x_t, step)
    *_, sampled = process.denoise(
        lambda noisy, at: codec.decoder(noisy, at, slots, keep), noise, iter(inputs["sample_noises"])
    )
    half = guided.shape[1] // 2
    return {
        "encoder_out": features,
        "slots_raw": codec.to_token(features),
        "slots": slots,
        "keep_mask": keep,
        "x_t": x_t,
        "dit_out_masked": masked,
        "dit_out_full": codec.decoder(x_t, times, slots),
        "dit_out_cfg": torch.cat([guided, torch.cat([guided[:, :half], null[:, half:]], 1)]),
        "train_loss": mse + bound,
        "train_mse": mse,
        "train_vb": bound,
        "respaced_timesteps": process.times,
        "p_mean": back.mean,
        "p_log_variance": back.log_variance,
        "pred_xstart": back.clean,
        "sample_loop": sampled,
    }


FAMILIES = {
    "openmagvit2_vq": Family(
        openmagvit2_vq, inputs=("image", "random_indices", "train_features"), tolerance=by_rule
    ),
    "semanticist_tokenizer": Family(
        semanticist_tokenizer,
        inputs=("image", "latent", "noise", "timesteps", "resp_step", "sample_noises"),
        notes=("train_masks",),  # an example of random draws
        tolerance=by_rule,
    ),
    "var_vqvae": Family(var_vqvae, inputs=("image", "random_idx_*"), tolerance=var_tolerance),
}
