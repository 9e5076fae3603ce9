"""Training data: the emoji picture set, scenes composed from it, captions, and one's own folder of pictures."""
