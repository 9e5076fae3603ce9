"""Speed of drawing image tokens: `python benchmarks/decode_image.py [--json FILE] [--threads N] [--device cuda]`.

Ours (plain, optimised in float32, optimised in int8) against a plain eager loop with a growing cache, same weights and
same tokens, guided, batch 1 and 8, on a class-conditional generator of LlamaGen's form (d 384, 6 layers, 6 heads,
SwiGLU 1024, 16384 token values, 16 x 16 tokens, random weights). Beside them the floor that memory bandwidth sets, and
one picture of the shipped model. The model is small so that the whole takes minutes. On a GPU the variants are eager,
and optimised (bfloat16, one compiled and captured step), timed on the wall.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Iterator
from typing import Any

sys.path.append(sys.path.pop(0))  # the neighbour tokenizers.py must not hide the library of its name

import torch
import torch.nn.functional as F
from measure import bandwidth, interleave, machine, peak_mebibytes, table, write_json
from torch import Tensor

import girih
from girih.generators.decoding.guidance import Guidance
from girih.generators.decoding.noise import gumbel
from girih.generators.decoding.sampling import Sampling
from girih.generators.decoding.state import State

SCALE = 4.0


def build(tokens: int) -> girih.NextTokenGenerator:
    """The generator of the bench; ``tokens`` a multiple of 16."""
    torch.manual_seed(0)
    return girih.NextTokenGenerator(
        16384, (tokens // 16, 16), {"dim": 384, "num_layers": 6, "num_heads": 6, "feed_forward_dim": 1024},
        {"kind": "class", "num_classes": 1000}, rope_base=10000.0, rope_prefix="zero").eval()


@torch.no_grad()
def baseline(generator: girih.NextTokenGenerator, labels: Tensor, keys: Tensor, drawn: Tensor) -> Iterator[None]:
    """The loop one writes first: nn.Linear, caches that grow by torch.cat, one token at a time. Fills ``drawn``."""
    weights = dict(generator.named_parameters())
    rows, heads, width = 2 * len(labels), 6, 64

    def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)

    x = weights["conditioner.embedding.weight"][torch.cat((labels, torch.full_like(labels, 1000)))][:, None]
    cache: list[tuple[Tensor, Tensor] | None] = [None] * 6
    for step in range(drawn.shape[1]):
        cos, sin = generator.rope_cos[step], generator.rope_sin[step]
        for i in range(6):
            part = f"core.layers.{i}."
            normed = F.rms_norm(x, (384,), weights[part + "mixer_norm.weight"], 1e-5)
            query, key, value = F.linear(normed, weights[part + "mixer.qkv.weight"]).chunk(3, -1)
            query, key, value = (t.view(rows, 1, heads, width).transpose(1, 2) for t in (query, key, value))
            query, key = turn(query, cos, sin), turn(key, cos, sin)
            if cache[i] is not None:
                key, value = torch.cat((cache[i][0], key), 2), torch.cat((cache[i][1], value), 2)
            cache[i] = (key, value)
            mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
            x = x + F.linear(mixed, weights[part + "mixer.proj.weight"])
            normed = F.rms_norm(x, (384,), weights[part + "feed_forward_norm.weight"], 1e-5)
            gate = F.silu(F.linear(normed, weights[part + "feed_forward.gate.weight"]))
            up = F.linear(normed, weights[part + "feed_forward.up.weight"])
            x = x + F.linear(gate * up, weights[part + "feed_forward.down.weight"])
        x = F.rms_norm(x, (384,), weights["core.norm.weight"], 1e-5)
        conditional, unconditional = F.linear(x[:, -1], weights["head.output.weight"]).chunk(2)
        logits = unconditional + (conditional - unconditional) * SCALE
        noise = gumbel(keys, torch.full_like(keys, step), logits.shape[-1])
        drawn[:, step] = (logits + noise).argmax(-1)
        x = weights["embedding.weight"][drawn[:, step].repeat(2)][:, None]
        yield


@torch.no_grad()
def ours(generator: girih.NextTokenGenerator, labels: Tensor, keys: Tensor, drawn: Tensor,
         exact: bool) -> Iterator[None]:
    """Our decoding of the same. Fills ``drawn``."""
    condition = generator.condition(torch.cat((labels, generator.conditioner.null(len(labels)))))
    state = State(drawn, torch.zeros_like(drawn, dtype=torch.bool), keys, condition, Sampling(), canonical=exact)
    for _ in girih.Autoregressive()({"generator": generator}, state, Guidance(SCALE)):
        yield


def floor(generator: girih.NextTokenGenerator, rows: int, tokens: int, int8: bool, speed: float) -> float:
    """Seconds a step that reading weights and keys and values once takes at ``speed`` bytes a second."""
    layers = generator.core.layers
    matrices = sum(p.numel() for p in layers.parameters()) * (1 if int8 else 4)
    head = generator.head.output.weight.numel() * 4
    past = 2 * len(layers) * 384 * 4 * rows * tokens / 2
    return (matrices + head + past) / speed


def compare(batch: int, tokens: int, repeats: int, device: str = "cpu") -> tuple[list[dict[str, Any]], float]:
    """One row a variant, and the bandwidth in bytes a second (of CPU time; on a GPU on the wall) under the floor.

    Raises ValueError where a float32 variant draws other tokens than the baseline.
    """
    plain, gpu = build(tokens).to(device), device != "cpu"
    pipes = {
        name: girih.ImagePipeline(None, copy.deepcopy(plain), girih.Autoregressive())
        for name in ("ours, plain", "ours, optimize", *(() if gpu else ("ours, optimize int8",)))
    }
    girih.optimize(pipes["ours, optimize"])
    if not gpu:
        girih.optimize(pipes["ours, optimize int8"], int8=True)
    labels, keys = torch.arange(batch, device=device) * 37, torch.arange(batch, device=device) + 1
    drawn = {name: torch.zeros(batch, tokens, dtype=torch.long, device=device) for name in ("baseline", *pipes)}
    variants = {"baseline": lambda: baseline(plain, labels, keys, drawn["baseline"])}
    for name, pipe in pipes.items():
        variants[name] = lambda name=name, pipe=pipe: ours(
            pipe.generator, labels, keys, drawn[name], exact=not getattr(pipe.generator, "approximate", False))
    for make in variants.values():  # what a first step prepares is not counted
        run = make()
        next(run), next(run)
        if gpu:  # every bucket's graph
            for _ in run:
                pass
    costs = interleave(variants, repeats)
    speed, clock = bandwidth(device=device), "wall" if gpu else "cpu"
    unit = "s" if gpu else "CPU s"
    rows = []
    for name, cost in costs.items():
        same = bool((drawn[name] == drawn["baseline"]).all())
        int8 = "int8" in name
        approximate = name in pipes and getattr(pipes[name].generator, "approximate", False)
        if not same and not approximate:
            raise ValueError(f"{name} drew other tokens than the baseline in batch {batch}")
        least = floor(plain, 2 * batch, tokens, int8, speed)
        spent = getattr(cost, clock)
        rows.append({
            "variant": name, "batch": batch, f"tokens / {unit}": batch * tokens / spent,
            "tokens / s (wall)": batch * tokens / cost.wall, f"ms / step ({unit})": spent / tokens * 1e3,
            "x baseline": getattr(costs["baseline"], clock) / spent, "floor ms": least * 1e3,
            "x floor": spent / tokens / least, "same tokens": "yes" if same else "no",
        })
    return rows, speed


def shipped(name: str) -> list[dict[str, Any]]:
    """Seconds of one picture from a shipped model, plain and optimised; peak memory of this whole process."""
    rows = []
    for label, options in (("plain", None), ("optimize", {}), ("optimize int8", {"int8": True})):
        pipe = girih.load(name)
        pipe.set_progress_bar_config(disable=True)
        if options is not None:
            girih.optimize(pipe, **options)
        walls, cpus = [], []
        for seed in range(4):
            wall, cpu = time.perf_counter(), time.process_time()
            pipe("a red apple", generator=torch.Generator().manual_seed(seed))
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        rows.append({"model": name, "variant": label, "s / picture": sorted(walls[1:])[1],
                     "CPU s / picture": sorted(cpus[1:])[1], "first picture s": walls[0], "peak MiB": peak_mebibytes()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the numbers here too")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (more pay only on idle cores)")
    parser.add_argument("--tokens", type=int, default=256, help="tokens a picture, a multiple of 16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--model", default="image", help="the shipped model to draw one picture with; '' = none")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    before = machine()
    print(f"{before['processor']}, {before['threads']} thread(s), torch {before['torch']}, "
          f"load average {before['load_average']}")
    # The pictures first: peak memory counts from the start of the process.
    pictures = shipped(options.model) if options.model else []
    if pictures:
        print(table(pictures), "\n")
    rows = []
    for batch in options.batches:
        measured, speed = compare(batch, options.tokens, options.repeats, options.device)
        rows += measured
        load = machine()["load_average"]
        print(table(measured), f"\nreads {speed / 1e9:.1f} GB / s; load average {load}\n", flush=True)
    write_json(options.json, {"machine": before, "after": machine(), "decode": rows, "pictures": pictures})


if __name__ == "__main__":
    main()
