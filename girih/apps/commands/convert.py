"""`girih convert`: published checkpoints of other repositories into folders that `girih.load` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

app = typer.Typer(help="Convert published checkpoints.", no_args_is_help=True)

File = Annotated[Path, Argument(help="The published checkpoint.")]
OutDir = Annotated[Path, Argument(help="Folder to write.")]
Config = Annotated[str | None, Option(help="Constructor values as JSON, for checkpoints that are not in the table.")]


@app.command("llamagen-vq")
def llamagen_vq(file: File, out_dir: OutDir, config: Config = None) -> None:
    """LlamaGen's image tokenizer (vq_ds16_c2i.pt and its kin)."""
    from girih.checkpoints.llamagen import convert_vq

    _convert(convert_vq, file, out_dir, config)


@app.command("llamagen-gpt")
def llamagen_gpt(file: File, out_dir: OutDir, config: Config = None) -> None:
    """LlamaGen's class- and text-conditional generators (c2i_B_256.pt, t2i_XL_stage1_256.pt and their kin)."""
    from girih.checkpoints.llamagen import convert_gpt

    _convert(convert_gpt, file, out_dir, config)


@app.command("openmagvit2-vq")
def openmagvit2_vq(file: File, out_dir: OutDir, config: Config = None) -> None:
    """Open-MAGVIT2's image tokenizer (imagenet_256_L.ckpt and its kin)."""
    from girih.checkpoints.openmagvit2 import convert_vq

    _convert(convert_vq, file, out_dir, config)


@app.command("var-vq")
def var_vq(file: File, out_dir: OutDir, config: Config = None) -> None:
    """VAR's multi-scale image tokenizer (vae_ch160v4096z32.pth)."""
    from girih.checkpoints.var import convert_vq

    _convert(convert_vq, file, out_dir, config)


@app.command("semanticist-tokenizer")
def semanticist_tokenizer(file: File, out_dir: OutDir, config: Config = None) -> None:
    """Semanticist's ordered image tokenizer (semanticist_tok_XL.pkl); --config '{"vae": FOLDER}' names its VAE."""
    from girih.checkpoints.semanticist import convert_tokenizer

    _convert(convert_tokenizer, file, out_dir, config)


@app.command("fish-codec")
def fish_codec(file: File, out_dir: OutDir, config: Config = None) -> None:
    """Fish-Speech's Firefly codec, v1.2 to v1.5 (firefly-gan-vq-fsq-8x1024-21hz-generator.pth and its kin)."""
    from girih.checkpoints.fish_speech import convert_firefly

    _convert(convert_firefly, file, out_dir, config)


@app.command("encodec")
def encodec(file: File, out_dir: OutDir, config: Config = None) -> None:
    """EnCodec's original files (encodec_24khz-d7cc33bc.th); --config holds transformers' EncodecConfig values."""
    from girih.checkpoints import transformers_codecs as codecs

    _convert(lambda path, out, values: codecs.convert(codecs.load_encodec(path, values), out), file, out_dir, config)


@app.command("dac")
def dac(file: File, out_dir: OutDir) -> None:
    """DAC's original files (weights_24khz.pth and its kin); sizes come from the file."""
    from girih.checkpoints import transformers_codecs as codecs

    _convert(lambda path, out, values: codecs.convert(codecs.load_dac(path), out), file, out_dir, None)


@app.command("transformers-codec")
def transformers_codec(folder: Annotated[Path, Argument(help="A folder that transformers saved.")],
                       out_dir: OutDir) -> None:
    """An EnCodec or DAC model in transformers' form (facebook/encodec_24khz, descript/dac_24khz, downloaded)."""
    from girih.checkpoints import transformers_codecs as codecs

    codecs.convert(codecs.load_folder(folder), out_dir)
    typer.echo(f"{out_dir}")


def _convert(convert: Any, file: Path, out_dir: Path, config: str | None) -> None:
    values = parse_config(config)
    if not file.is_file():
        raise ValueError(f"there is no checkpoint file {file}")
    convert(file, out_dir, values)
    typer.echo(f"{out_dir}")


def parse_config(text: str | None) -> dict[str, Any] | None:
    """The JSON object in `text`. Raises ValueError where it is not one."""
    if text is None:
        return None
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--config is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"--config must be a JSON object like {{\"dim\": 768}}, got {text}")
    return values
