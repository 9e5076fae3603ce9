"""How good a model's pictures are: the measures behind `girih eval`. Knows pipelines and picture sets, not training."""
