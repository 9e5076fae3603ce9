"""One file a task, diffusers-style: check inputs -> prompt -> decode loop -> signal."""
