"""Audio: waves to codes and back (tokenizer.py), files (files.py)."""

from girih.tokenizers.audio.tokenizer import AudioTokenizer, AudioTokenizerOutput

__all__ = ["AudioTokenizer", "AudioTokenizerOutput"]
