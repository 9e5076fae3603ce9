"""The shared transformer: blocks, attention, positions, masks and the cache. One of it, for all modalities."""
