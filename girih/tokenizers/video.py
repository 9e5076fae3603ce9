"""The video tokenizer: a few context frames as full grids of tokens, each later frame as a few tokens of change.

Knows clips ``[B, T, 3, S, S]`` in [0, 1] and their token sequence. Does not know files (video_files.py) or the models
that predict the tokens.

iVideoGPT's tokenizer (Wu et al. 2024; thuml/iVideoGPT ``CompressiveVQModel``): a VQGAN for the context frames, and a
second encoder and decoder for the others that look at the first pair's feature maps by cross-attention. Blocks are
diffusers' own (video_coders.py); parameter names are the published checkpoints'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from girih.spec import GrammarState, TokenSpec
from girih.tokenizers.quantizers import CodebookQuantizer
from girih.tokenizers.video_coders import ContextDecoder, ContextEncoder, DynamicsDecoder, DynamicsEncoder

IGNORED = -100  # label of a token that is not predicted


@dataclass
class VideoTokenizerOutput(BaseOutput):
    """``sample [B, T, 3, S, S]`` unclamped, ``tokens [B, L]``, in training the quantizers' ``losses`` by name."""

    sample: Tensor
    tokens: Tensor
    losses: dict[str, Tensor]


class PlaceGrammar:
    """Sequences of one length in which each place has its own range of ids; a ``girih.spec.Grammar``.

    ``ranges`` [n, 2]: the lowest id of each place, and one more than the highest. The state ``place`` [rows] counts
    tokens so far; n + 1 is a row that took a token outside its mask.
    """

    def __init__(self, ranges: Tensor, vocab_size: int):
        self.vocab_size, self.length = vocab_size, len(ranges)
        self._ranges = F.pad(ranges, (0, 0, 0, 2))  # nothing may follow the end or a wrong token
        self._ids = torch.arange(vocab_size, device=ranges.device)

    def to(self, device: torch.device | str) -> PlaceGrammar:
        return PlaceGrammar(self._ranges[: self.length].to(device), self.vocab_size)

    def start(self, rows: int) -> GrammarState:
        return {"place": torch.zeros(rows, dtype=torch.long, device=self._ids.device)}

    def mask(self, state: GrammarState) -> Tensor:
        low, high = self._ranges[state["place"]].unsqueeze(-1).unbind(1)
        return (self._ids >= low) & (self._ids < high)

    def advance(self, state: GrammarState, tokens: Tensor) -> GrammarState:
        low, high = self._ranges[state["place"]].unbind(1)
        return {"place": torch.where((tokens >= low) & (tokens < high), state["place"] + 1, self.length + 1)}

    def forced(self, state: GrammarState) -> Tensor:
        low, high = self._ranges[state["place"]].unbind(1)
        return torch.where(high - low == 1, low, -1)

    def done(self, state: GrammarState) -> Tensor:
        return state["place"] == self.length


class VideoTokenizer(ModelMixin, ConfigMixin):
    """Context and dynamics tokens of a clip.

    The sequence of a clip of T frames, c of them context: ``grid scf grid ... sdf change sdf change ...``. A grid is
    the ``context_tokens`` ids of one context frame, raster order; a change the ``dynamics_tokens`` ids of a later
    one, offset by ``context_codes``. ``scf`` and ``sdf``, the last two ids, open a context and a later frame; the
    first ``scf`` is left out.

    Args:
        sample_size: side S of the frames; num_frames: T of ``spec.shape`` (any T > ``context_frames`` works).
        context_frames: c, whole frames at the start.
        widths, num_blocks: channels of each level, largest size first, and residual blocks a level.
        latent_channels, code_dim: channels of the latent and of a code (None: the same).
        context_codes, dynamics_codes: sizes of the two codebooks.
        patch_size: latent cells along the side of one dynamics token.
        attention_size: levels of at most this side cross-attend. attention: self-attention in the middle of the
            context pair (the dynamics pair always has it).
        norm_groups, act_fn: of diffusers' blocks. dropout: of cross-attention, in training.
        commit_weight: of both quantizers' commitment loss.

    Raises:
        ValueError: sizes that do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 64,
        num_frames: int = 16,
        context_frames: int = 2,
        in_channels: int = 3,
        out_channels: int = 3,
        widths: Sequence[int] = (128, 256, 512),
        num_blocks: int = 2,
        latent_channels: int = 64,
        code_dim: int | None = None,
        context_codes: int = 8192,
        dynamics_codes: int = 8192,
        patch_size: int = 4,
        attention_size: int = 32,
        attention: bool = False,
        norm_groups: int = 32,
        act_fn: str = "silu",
        dropout: float = 0.1,
        commit_weight: float = 1.0,
    ):
        super().__init__()
        levels = len(widths)
        self.latent_size = _check(sample_size, levels, patch_size, context_frames, num_frames)
        width = code_dim or latent_channels
        shared: dict[str, Any] = {
            "block_out_channels": tuple(widths), "layers_per_block": num_blocks, "norm_num_groups": norm_groups,
            "act_fn": act_fn,
        }  # fmt: skip
        down = {"in_channels": in_channels, "out_channels": latent_channels, "double_z": False,
                "down_block_types": ("DownEncoderBlock2D",) * levels, **shared}  # fmt: skip
        up = {"in_channels": latent_channels, "out_channels": out_channels,
              "up_block_types": ("UpDecoderBlock2D",) * levels, **shared}  # fmt: skip
        looking: dict[str, Any] = {"max_side": attention_size, "frames": context_frames, "dropout": dropout}
        self.encoder = ContextEncoder(mid_block_add_attention=attention, **down)
        self.decoder = ContextDecoder(mid_block_add_attention=attention, **up)
        self.cond_encoder = DynamicsEncoder(side=sample_size, **looking, **down)
        self.cond_decoder = DynamicsDecoder(side=self.latent_size, **looking, **up)
        self.quant_conv = nn.Conv2d(latent_channels, width, 1)
        self.post_quant_conv = nn.Conv2d(width, latent_channels, 1)
        self.quant_linear = nn.Linear(latent_channels * patch_size**2, width)
        self.post_quant_linear = nn.Linear(width, latent_channels * patch_size**2)
        codebook: dict[str, Any] = {"l2_norm": False, "commit_weight": commit_weight, "track_usage": False}
        self.quantize = CodebookQuantizer(context_codes, width, **codebook)
        self.dynamics_quantize = CodebookQuantizer(dynamics_codes, width, **codebook)
        self.context_tokens = self.latent_size**2
        self.dynamics_tokens = (self.latent_size // patch_size) ** 2
        self.start_context = context_codes + dynamics_codes  # the id "scf"
        self.start_dynamics = self.start_context + 1  # the id "sdf"
        ids = self.start_dynamics + 1
        self.spec = TokenSpec(ids, (self.length(num_frames),), grammar=PlaceGrammar(self.ranges(num_frames), ids))

    def length(self, frames: int) -> int:
        """Tokens of a clip of so many frames."""
        context = self.config["context_frames"]
        return (self.context_tokens + 1) * context - 1 + (self.dynamics_tokens + 1) * (frames - context)

    def encode(self, video: Tensor) -> Tensor:
        """Clips ``[B, T, 3, S, S]`` in [0, 1] to tokens, LongTensor ``[B, length(T)]``.

        Raises:
            ValueError: another frame size, no frame beyond the context, or values that are not finite or not in [0, 1].
        """
        context, dynamics = self.latents(video)
        return self._sequence(self.quantize(context).tokens, self.dynamics_quantize(dynamics).tokens, len(video))

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens ``[B, length(T)]`` to clips ``[B, T, 3, S, S]``, unclamped.

        Raises:
            ValueError: a length that no T has, or a token that cannot stand where it does.
        """
        context, dynamics = self.split(tokens)
        frames, features = self.decode_context(context)
        return torch.cat([frames, self.decode_dynamics(dynamics, features)], 1)

    def decode_context(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Grids ``[B, c, h * w]`` (see ``split``) to frames ``[B, c, 3, S, S]`` and the feature maps, ``[B, c, C, .]``
        of several sizes, that the later frames look at: made once, they serve every step of a roll-out."""
        rows, count, _ = tokens.shape
        codes = self.quantize.lookup(tokens.reshape(rows * count, self.latent_size, self.latent_size))
        frames, features = self.decoder(self.post_quant_conv(codes))
        return frames.unflatten(0, (rows, count)), [feature.unflatten(0, (rows, count)) for feature in features]

    def decode_dynamics(self, tokens: Tensor, context: Sequence[Tensor]) -> Tensor:
        """Changes ``[B, n, dynamics_tokens]``, codes from 0, to frames ``[B, n, 3, S, S]``."""
        rows, count, _ = tokens.shape
        codes = self.dynamics_quantize.lookup(tokens.flatten(0, 1)).mT
        return self._predict(codes, context, rows, count)

    def latents(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """What the quantizers see: context ``[B * c, code_dim, h, w]``, dynamics ``[B * (T - c), code_dim, n]``."""
        _check_video(video, self.config["in_channels"], self.config["sample_size"], self.config["context_frames"])
        rows, count = len(video), self.config["context_frames"]
        context, features = self.encoder(video[:, :count].flatten(0, 1))
        later = video[:, count:]
        looked_at = _repeated([feature.unflatten(0, (rows, count)) for feature in features], later.shape[1])
        latents = self.cond_encoder(later.flatten(0, 1), looked_at)
        # Patches of the latent in the order (row, column, channel), then one vector each.
        side = self.config["patch_size"]
        patches = latents.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 4, 5, 1)
        return self.quant_conv(context), self.quant_linear(patches.flatten(3).flatten(1, 2)).mT

    def forward(self, video: Tensor) -> VideoTokenizerOutput:
        """Encode, quantise straight-through, decode. In training mode ``losses`` has ``vq`` and ``commit`` of the
        context and ``dynamics_vq`` and ``dynamics_commit`` of the later frames."""
        rows, count = len(video), self.config["context_frames"]
        context, dynamics = self.latents(video)
        grid, change = self.quantize(context), self.dynamics_quantize(dynamics)
        frames, features = self.decoder(self.post_quant_conv(grid.codes))
        features = [feature.unflatten(0, (rows, count)) for feature in features]
        later = self._predict(change.codes.mT, features, rows, video.shape[1] - count)
        losses = {name: loss for name, loss in grid.losses.items() if name in ("vq", "commit")}
        losses |= {f"dynamics_{name}": loss for name, loss in change.losses.items() if name in ("vq", "commit")}
        sample = torch.cat([frames.unflatten(0, (rows, count)), later], 1)
        return VideoTokenizerOutput(sample, self._sequence(grid.tokens, change.tokens, rows), losses)

    def labels(self, tokens: Tensor) -> Tensor:
        """Training targets ``[B, L]``: the tokens, but -100 on the context and on the first ``sdf``."""
        targets = tokens.clone()
        targets[:, : self.length(self.config["context_frames"]) + 1] = IGNORED
        return targets

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``[B, L]`` to context codes ``[B, c, context_tokens]`` and dynamics codes ``[B, T - c,
        dynamics_tokens]``, both counted from 0.

        Raises:
            ValueError: a length that no T has, or a token that cannot stand where it does.
        """
        first = self.length(self.config["context_frames"])
        frames, rest = divmod(tokens.shape[-1] - first, self.dynamics_tokens + 1)
        if tokens.ndim != 2 or frames < 0 or rest:
            raise ValueError(f"tokens are {list(tokens.shape)}; a clip has {first} + n * {self.dynamics_tokens + 1}")
        ranges = self.ranges(frames + self.config["context_frames"]).to(tokens.device)
        wrong = ((tokens < ranges[:, 0]) | (tokens >= ranges[:, 1])).nonzero()
        if len(wrong):
            row, place = wrong[0].tolist()
            low, high = ranges[place].tolist()
            raise ValueError(f"token {tokens[row, place]} at place {place} of row {row}: must be {low} .. {high - 1}")
        opened = F.pad(tokens[:, :first], (1, 0)).unflatten(1, (-1, self.context_tokens + 1))
        later = tokens[:, first:].unflatten(1, (frames, self.dynamics_tokens + 1))
        return opened[..., 1:], later[..., 1:] - self.config["context_codes"]

    def ranges(self, frames: int) -> Tensor:
        """``[length(frames), 2]``: the lowest id of each place, and one more than the highest."""
        grid, change = (0, self.config["context_codes"]), (self.config["context_codes"], self.start_context)
        context = [(self.start_context, self.start_context + 1), *[grid] * self.context_tokens]
        later = [(self.start_dynamics, self.start_dynamics + 1), *[change] * self.dynamics_tokens]
        count = self.config["context_frames"]
        return torch.tensor((context * count)[1:] + later * (frames - count), device="cpu")  # also of a meta model

    def _predict(self, codes: Tensor, context: Sequence[Tensor], rows: int, count: int) -> Tensor:
        """Dynamics codes ``[rows * count, n, code_dim]`` to frames ``[rows, count, 3, S, S]``."""
        side, cells = self.config["patch_size"], self.latent_size // self.config["patch_size"]
        patches = self.post_quant_linear(codes).reshape(len(codes), cells, cells, side, side, -1)
        latents = patches.permute(0, 5, 1, 3, 2, 4).reshape(len(codes), -1, self.latent_size, self.latent_size)
        return self.cond_decoder(latents, _repeated(context, count)).unflatten(0, (rows, count))

    def _sequence(self, context: Tensor, dynamics: Tensor, rows: int) -> Tensor:
        grids = F.pad(context.reshape(rows, -1, self.context_tokens), (1, 0), value=self.start_context)
        changes = dynamics.reshape(rows, -1, self.dynamics_tokens) + self.config["context_codes"]
        changes = F.pad(changes, (1, 0), value=self.start_dynamics)
        return torch.cat([grids.flatten(1)[:, 1:], changes.flatten(1)], 1)


def _repeated(features: Sequence[Tensor], count: int) -> list[Tensor]:
    """``[B, c, C, h, w]`` each to ``[B * count, c, C, h, w]``: the same context for each later frame."""
    return [feature.repeat_interleave(count, 0) for feature in features]


def _check(size: int, levels: int, patch: int, context: int, frames: int) -> int:
    """The latent's side. Raises ValueError for sizes that do not fit together."""
    shrink = 2 ** max(levels - 1, 0)
    if levels < 1 or size < 1 or size % (shrink * patch):
        raise ValueError(f"sample_size {size} is not a multiple of {shrink * patch}, the pixels of one dynamics token")
    if not 0 < context < frames:
        raise ValueError(f"num_frames {frames} must exceed context_frames {context}, which must be at least 1")
    return size // shrink


def _check_video(video: Tensor, channels: int, size: int, context: int) -> None:
    if video.ndim != 5 or video.shape[2:] != (channels, size, size):
        raise ValueError(f"video is {list(video.shape)}, must be [B, T, {channels}, {size}, {size}]")
    if video.shape[1] <= context:
        raise ValueError(f"the clip has {video.shape[1]} frames, of which {context} are context; it needs one more")
    if not bool(((video >= 0) & (video <= 1)).all()):
        raise ValueError(f"video must be in [0, 1], got {video.min().item():.3g} to {video.max().item():.3g}")
