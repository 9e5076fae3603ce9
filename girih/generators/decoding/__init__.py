"""Decodings: which cells to ask for now, how to choose values, what to commit.

Configuration only; a call's data is in its State.
"""
