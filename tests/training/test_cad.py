"""The text-to-CAD recipe, small: batches are a function of the step, the loss falls, the result is a pipeline."""

from __future__ import annotations

import pytest
import torch

import girih
from girih.training import cad
from girih.training.recipe import load_recipe
from girih.training.trainer import Trainer, TrainSettings


def test_a_few_steps_make_a_pipeline(tmp_path, monkeypatch):
    pytest.importorskip("manifold3d")
    monkeypatch.setattr(cad, "HELD_OUT", 4)
    monkeypatch.setattr(cad, "VOCABULARY_PARTS", 200)
    recipe = load_recipe("cad")
    recipe["generator"]["transformer"] = {"dim": 32, "num_layers": 1, "num_heads": 2, "feed_forward_dim": 32}
    objective = cad.CadObjective.from_recipe(recipe)
    first, again, other = (objective.batch(step, 0, 4) for step in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["words"], other["words"])
    with torch.no_grad():
        before = float(objective(first)[0])
    settings = TrainSettings(steps=25, batch_size=8, lr=1e-2, ema=0.0, eval_every=1000, sample_every=1000)
    report = Trainer(objective, settings, tmp_path).fit()
    assert report["right"] < before - 0.5 and 0 <= report["all_facts_met"] <= report["right_kind"] <= 1
    pipe = girih.load(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a plate 60 by 40 mm", generator=torch.Generator().manual_seed(0)).meshes[0].is_watertight
