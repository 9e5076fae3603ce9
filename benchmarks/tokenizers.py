"""Speed of tokenizers: `python benchmarks/tokenizers.py [SECTION ...] [--json FILE] [--repeats N]`.

One section a modality, each a function that returns the rows of a table; ratios are of CPU time inside one process.
meshes: encode + decode of 800 triangles and 400 quads against two loops over faces that give the same: numbers in plain
Python, and the tokenizer's own tensor calls for one face at a time. masks: what a grammar costs a step beside the step
of a model with 131 ids, 64 rows, d 384, 6 layers. actions: encoding 1,000 chunks against the
published FAST processor's loop. rates: tokens and error of FAST and of bins (no speed).
sounds: audio codecs against real time.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.append(sys.path.pop(0))  # this file must not hide the library of its name

import numpy as np
import torch
from measure import interleave, machine, table, write_json
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

import girih
from girih.tokenizers.action_symbols import ByteSymbols
from girih.tokenizers.shape.meshes import Mesh, normalize
from girih.training.data.actions import record_chunks
from girih.training.recipe import load_recipe

SAMPLES = Path(__file__).parents[1] / "assets" / "samples"

Rows = list[dict[str, Any]]


def torus(around: int, across: int) -> Mesh:
    """A closed mesh of around x across quads."""
    u, v = np.meshgrid(np.arange(around), np.arange(across), indexing="ij")
    a, b = 2 * np.pi * u / around + 0.1, 2 * np.pi * v / across + 0.1
    points = np.stack(((1 + 0.4 * np.cos(b)) * np.cos(a), (1 + 0.4 * np.cos(b)) * np.sin(a), 0.4 * np.sin(b)), -1)
    corner = [((u + i) % around) * across + (v + j) % across for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
    return Mesh(points.reshape(-1, 3), np.stack(corner, -1).reshape(-1, 4))


def looped(mesh: Mesh, bins: int, extent: float, order: tuple[int, int, int]) -> tuple[list[list[int]], Mesh]:
    """Canonical corners face by face, [faces][3 k], and the mesh they decode to, in plain Python; finds no errors."""
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    centre, size = ((low + high) / 2).tolist(), float((high - low).max())
    vertices = mesh.vertices.tolist()

    def bin_of(vertex: list[float]) -> tuple[int, ...]:
        scaled = [((vertex[i] - centre[i]) / size + 0.5) * bins - 0.5 for i in range(3)]
        return tuple(min(max(round(value), 0), bins - 1) for value in scaled)

    faces = []
    for face in mesh.faces.tolist():
        corners = []
        for index in face:
            corner = bin_of(vertices[index])
            corners.append((corner[order[0]], corner[order[1]], corner[order[2]], corner))
        if len(set(corners)) == len(corners):
            first = corners.index(min(corners))
            faces.append(corners[first:] + corners[:first])
    rows: list[list[int]] = []
    for face in sorted(faces):
        row = [value for corner in face for value in corner[3]]
        if not rows or rows[-1] != row:
            rows.append(row)
    names: dict[tuple[int, ...], int] = {}
    points, back = [], []
    for row in rows:
        face = []
        for at in range(0, len(row), 3):
            corner = tuple(row[at : at + 3])
            if corner not in names:
                names[corner] = len(points)
                points.append([((value + 0.5) / bins - 0.5) * extent for value in corner])
            face.append(names[corner])
        back.append(face)
    return rows, Mesh(np.array(points), np.array(back))


def face_by_face(codec: Any, mesh: Mesh) -> list[torch.Tensor]:
    """Quantise, lay out, read back and dequantise with the tokenizer's own calls, one face a call."""
    record = codec.face if hasattr(codec, "face") else codec.quad
    vertices = torch.from_numpy(normalize(mesh.vertices, codec.config.extent))
    out = []
    for face in mesh.faces:
        tokens = record.to_tokens(codec.quantizer.encode(vertices[face]).reshape(1, -1))
        out.append(codec.quantizer.decode(record.to_bins(tokens)))
    return out


def meshes(repeats: int) -> Rows:
    """Encode + decode of one mesh. Raises ValueError where the two ways give different tokens."""
    quads = torus(20, 20)
    cases = {"triangles": (girih.TriangleTokenizer(), Mesh(quads.vertices, quads.triangles), (2, 1, 0)),
             "quads": (girih.QuadTokenizer(), quads, (2, 0, 1))}  # fmt: skip
    rows = []
    for name, (codec, mesh, order) in cases.items():
        config = codec.config
        wanted, _ = looped(mesh, config.bins, config.extent, order)
        if codec.encode(mesh)[0, 1:-1].tolist() != [value for row in wanted for value in row]:
            raise ValueError(f"the loop and {type(codec).__name__} give different tokens")

        def ours(codec=codec, mesh=mesh) -> Iterator[Any]:
            for _ in range(20):
                yield codec.decode(codec.encode(mesh))

        def loop(config=config, mesh=mesh, order=order) -> Iterator[Any]:
            for _ in range(20):
                yield looped(mesh, config.bins, config.extent, order)

        def single(codec=codec, mesh=mesh) -> Iterator[Any]:
            for _ in range(20):
                yield face_by_face(codec, mesh)

        costs = interleave({"python": loop, "calls": single, "ours": ours}, repeats, turn=5)
        ms = {way: cost.cpu / 20 * 1e3 for way, cost in costs.items()}
        rows.append({"mesh": f"{len(mesh.faces)} {name}", "plain Python ms": ms["python"],
                     "a face a call ms": ms["calls"], "ours ms": ms["ours"],
                     "x plain Python": ms["python"] / ms["ours"], "x a face a call": ms["calls"] / ms["ours"]})
    return rows


def masks(repeats: int) -> Rows:
    """mask + advance of each mesh language beside one cached step of a small-vocabulary generator, 64 rows."""
    steps, rows = 32, 64
    torch.manual_seed(0)
    generator = girih.NextTokenGenerator(
        131, (steps,), {"dim": 384, "num_layers": 6, "num_heads": 6, "feed_forward_dim": 1024},
        {"kind": "class", "num_classes": 10}).eval()  # fmt: skip
    condition = generator.condition(torch.zeros(rows, dtype=torch.long))

    def model() -> Iterator[Any]:
        cache = generator.new_cache(rows)
        for step in range(steps):
            with torch.no_grad():
                history = torch.zeros(rows, min(step, 1), dtype=torch.long)
                yield generator.head.scores(generator(history, condition, cache)[:, -1])
            cache.commit()

    variants: dict[str, Callable[[], Iterator[Any]]] = {"model": model}
    specs = {name: getattr(girih, name)().spec for name in
             ("TriangleTokenizer", "QuadTokenizer", "AdjacentTokenizer", "BlockPatchTokenizer")}  # fmt: skip
    for name, spec in specs.items():
        grammar, drawn = spec.grammar, []
        state = grammar.start(rows)
        for _ in range(steps):
            drawn.append(torch.multinomial(grammar.mask(state).float(), 1)[:, 0])
            state = grammar.advance(state, drawn[-1])

        def syntax(grammar=grammar, drawn=drawn) -> Iterator[Any]:
            state = grammar.start(rows)
            for tokens in drawn:
                yield grammar.mask(state)
                state = grammar.advance(state, tokens)

        variants[name] = syntax
    ms = {name: cost.cpu / steps * 1e3 for name, cost in interleave(variants, repeats).items()}
    return [{"language": name, "ids": spec.vocab_size, "model ms / step": ms["model"], "mask ms / step": ms[name],
             "share %": 100 * ms[name] / ms["model"]} for name, spec in specs.items()]  # fmt: skip


def actions(repeats: int) -> Rows:
    """Encoding 1,000 fresh chunks: the published FAST processor's loop over chunks, its form in ours, and ours.

    Raises ValueError where the loop and our published form give different ids.
    """
    sample = np.load(SAMPLES / "actions.npy").astype(float)
    ours = girih.ActionTokenizer.fit(sample)
    content, low = ByteSymbols.learn(ours.coefficients(sample)[0], 1024)
    theirs = girih.ActionTokenizer(*sample.shape[1:], limit=None, merges=None, tokenizer=content, min_token=low)
    library = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)))
    rng, size = np.random.default_rng(0), (1000, *sample.shape[1:])

    def fresh() -> list[np.ndarray]:
        """Batches that no cache of the library has seen."""
        return [np.resize(sample, size) + rng.normal(0, 0.02, size) for _ in range(5)]

    def loop(chunks: np.ndarray) -> list[list[int]]:
        coefficients = np.around(ours.cosines @ chunks * 10)
        return [library("".join(map(chr, np.maximum(one.flatten() - low, 0).astype(int))))["input_ids"]
                for one in coefficients]  # fmt: skip

    first = fresh()[0]
    if [row.tolist() for row in theirs.rows(theirs.encode(first))] != loop(first):
        raise ValueError("the published loop and our published form give different ids")
    ways = {"published loop": loop, "published form": theirs.encode, "ours": ours.encode}
    costs = interleave({name: lambda way=way: map(way, fresh()) for name, way in ways.items()}, repeats, turn=1)
    return [{"1,000 chunks of 16 x 4": name, "ms": cost.cpu / 5 * 1e3,
             "x loop": costs["published loop"].cpu / cost.cpu} for name, cost in costs.items()]  # fmt: skip


def rates(_: int) -> Rows:
    """Tokens, bits and error a held-out chunk of 16 x 4: FAST at several scales beside a bin for each number."""
    sample, held = np.load(SAMPLES / "actions.npy"), record_chunks(500, seed=1)
    rows = []
    for scale in (5, 10, 20, 50, 100):
        codec = girih.ActionTokenizer.fit(sample, scale, 2048)
        encoded = codec.encode_flagged(held)
        decoded = codec.decode_flagged(encoded.tokens, dtype=torch.float64)
        tokens = float((encoded.tokens < codec.symbols.size).sum(1).double().mean())
        rows.append({"tokens of": f"FAST, scale {scale}", "vocabulary": codec.symbols.size, "a chunk": tokens,
                     "bits": tokens * np.log2(codec.symbols.size), **_errors(decoded.actions.numpy() - held),
                     "decodable %": 100 * float(decoded.valid.float().mean())})  # fmt: skip
    for bins in (32, 64, 256):
        binned = (np.clip(np.floor((held + 1) / 2 * bins), 0, bins - 1) + 0.5) / bins * 2 - 1
        rows.append({"tokens of": f"{bins} bins a number", "vocabulary": bins, "a chunk": held[0].size,
                     "bits": held[0].size * np.log2(bins), **_errors(binned - held), "decodable %": 100.0})
    return rows


def sounds(repeats: int) -> Rows:
    """Encoding and decoding 10 s on one core; the published sizes with random weights, and the recipe's codec."""
    recipe = load_recipe("audio-tokenizer")["codec"]
    kinds = {"EnCodec 24 kHz": ("encodec", {}), "Firefly 44.1 kHz": ("firefly", {}), "DAC 16 kHz": ("dac", {}),
             "recipe audio-tokenizer": ("dac", recipe)}  # fmt: skip
    rows = []
    for name, (codec, settings) in kinds.items():
        tokenizer = girih.AudioTokenizer(codec=codec, settings=settings).eval()
        wave = torch.rand(1, tokenizer.channels, 10 * tokenizer.sampling_rate) - 0.5
        with torch.inference_mode():
            tokens = tokenizer.encode(wave)
            ways = {
                "encode": lambda work=tokenizer.encode, given=wave: map(work, [given]),
                "decode": lambda work=tokenizer.decode, given=tokens: map(work, [given]),
            }
            cost = interleave(ways, min(repeats, 3), turn=1)
        rows.append({"10 s": name, "kbit/s": tokenizer.bandwidth, "encode s": cost["encode"].cpu,
                     "decode s": cost["decode"].cpu,
                     "x real time": 10 / (cost["encode"].cpu + cost["decode"].cpu)})  # fmt: skip
    return rows


def _errors(difference: np.ndarray) -> dict[str, float]:
    return {"rmse": float(np.sqrt((difference**2).mean())), "largest error": float(np.abs(difference).max())}


SECTIONS: dict[str, Callable[[int], Rows]] = {"meshes": meshes, "masks": masks, "actions": actions, "rates": rates,
                                              "sounds": sounds}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", help=f"any of {', '.join(SECTIONS)}; default all")
    parser.add_argument("--json", help="write the numbers here too")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if set(options.sections) - set(SECTIONS):
        parser.error(f"sections are {', '.join(SECTIONS)}, got {', '.join(options.sections)}")
    torch.set_num_threads(1)
    before, results = machine(), {}
    print(f"{before['processor']}, torch {before['torch']}, load average {before['load_average']}\n")
    for name in options.sections or SECTIONS:
        results[name] = SECTIONS[name](options.repeats)
        print(f"{name}\n{table(results[name])}\n", flush=True)
    write_json(options.json, {"machine": before, "after": machine(), **results})


if __name__ == "__main__":
    main()
