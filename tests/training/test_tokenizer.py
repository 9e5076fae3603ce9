"""The codec's objective and its recipe: data mix, losses, hold-out, and a short real training."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from girih.tokenizers.image import ImageTokenizer
from girih.training.losses import Adversary, LossWeights, PerceptualLoss, adaptive_weight, reconstruction_loss
from girih.training.recipe import load_recipe, train
from girih.training.tokenizer import Drawings, Mix, TokenizerObjective, composite, hold_out, pair_up

CODEC = {"sample_size": 32, "encoder_widths": [16, 16], "decoder_widths": [16, 16, 8], "z_channels": 8}


@pytest.fixture
def folder(tmp_path):
    """40 small opaque pictures: coloured discs on coloured squares."""
    path = tmp_path / "pictures" / "discs"
    path.mkdir(parents=True)
    random = np.random.default_rng(0)
    for i in range(40):
        image = Image.new("RGB", (48, 48), tuple(random.integers(0, 256, 3).tolist()))
        x, y, r = random.integers(8, 40, 3)
        ImageDraw.Draw(image).ellipse((x - r // 2, y - r // 2, x + r // 2, y + r // 2), fill=(200, 30, int(6 * i)))
        image.save(path / f"{i:02d}.png")
    return path.parent


def objective(folder, **mix):
    return TokenizerObjective(ImageTokenizer(**CODEC), Drawings.open(folder, 32), LossWeights(), Mix(**mix))


def test_composite_puts_the_drawing_over_the_colour():
    rgba = torch.zeros(1, 2, 2, 4, dtype=torch.uint8)
    rgba[0, 0, 0] = torch.tensor([255, 0, 0, 255])
    picture, alpha = composite(rgba, torch.tensor([[0.0, 255.0, 0.0]]))
    assert picture[0, :, 0, 0].tolist() == [1, -1, -1] and picture[0, :, 1, 1].tolist() == [-1, 1, -1]
    assert alpha.sum() == 1


def test_a_pair_holds_both_drawings_at_half_size():
    red, blue = (torch.zeros(8, 8, 4, dtype=torch.uint8) for _ in range(2))
    red[..., 0] = red[..., 3] = blue[..., 2] = blue[..., 3] = 255
    canvas = pair_up(red, blue, ((0.25, 0.5), (0.75, 0.5)))
    assert torch.equal(canvas[2:6, :4], red[:4, :4]) and torch.equal(canvas[2:6, 4:], blue[:4, :4])
    assert canvas[:2].sum() == 0 and canvas[6:].sum() == 0


def test_loss_is_zero_for_a_perfect_picture_and_heavier_on_the_object():
    real = torch.rand(1, 3, 16, 16)
    alpha = torch.zeros(1, 1, 16, 16)
    alpha[..., :8] = 1
    weights = LossWeights(gradient=0.0)
    assert reconstruction_loss(real, real, alpha, LossWeights())[0] == 0
    on_object, beside = real.clone(), real.clone()
    on_object[..., 2] += 0.5
    beside[..., 12] += 0.5
    inside = reconstruction_loss(on_object, real, alpha, weights)[0]
    outside = reconstruction_loss(beside, real, alpha, weights)[0]
    assert inside > 2 * outside > 0


def test_concepts_are_held_out_whole():
    concepts = [f"c{i // 3}" for i in range(60)]
    training, held = hold_out(concepts, 10)
    assert sorted(training + held) == list(range(60)) and 10 <= len(held) <= 12
    assert not {concepts[row] for row in training} & {concepts[row] for row in held}


def test_batches_are_a_function_of_seed_step_and_process(folder):
    first, second = objective(folder), objective(folder)
    for step, process in ((0, 0), (5, 1)):
        a, b = first.batch(step, process, 3), second.batch(step, process, 3)
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(first.batch(0, 0, 3)["rgba"], first.batch(1, 0, 3)["rgba"])
    assert not torch.equal(first.batch(0, 0, 3)["rgba"], first.batch(0, 1, 3)["rgba"])
    second.seed = 1
    assert not torch.equal(first.batch(0, 0, 3)["rgba"], second.batch(0, 0, 3)["rgba"])


def test_the_mix_of_backgrounds_is_what_it_says(folder):
    trained = objective(folder, white=1.0, named=0.0, pairs=0.0)
    assert (trained.batch(0, 0, 16)["colours"] == 255).all()
    trained = objective(folder, white=0.0, named=0.0, pairs=1.0)
    batch = trained.batch(0, 0, 4)
    assert not (batch["colours"] == 255).all() and (batch["rgba"][..., 3] == 0).float().mean() == 0.5


def test_a_few_steps_on_ones_own_folder_make_a_codec(folder, tmp_path):
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        'objective = "tokenizer"\n[train]\nsteps = 150\nbatch_size = 8\nlr = 1e-2\neval_every = 75\nsample_every = 99\n'
        f"[data]\nfolder = {str(folder)!r}\nsize = 32\n[codec]\n"
        + "".join(f"{name} = {value}\n" for name, value in CODEC.items())
    )
    report = train(str(recipe), out=str(tmp_path / "out"))
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    psnr = [line["eval/psnr"] for line in lines if "eval/psnr" in line]
    assert len(psnr) == 2 and report["psnr"] == psnr[1] > psnr[0]
    assert report["step"] == 150 and report["codes_used"] > 5
    with Image.open(tmp_path / "out" / "samples" / "0000150.png") as grid:
        assert grid.size == (12 * 32, 2 * 32)
    codec = ImageTokenizer.from_pretrained(tmp_path / "out" / "codec").float()
    assert codec.spec.shape == (4, 4)
    assert sum(file.stat().st_size for file in (tmp_path / "out" / "codec").glob("*.safetensors")) < 8_000_000


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("tokeniser", [], "did you mean 'tokenizer'"),
        ("tokenizer", ["lerning_rate=1"], "unknown setting 'lerning_rate'"),
        ("tokenizer", ["lr"], "key=value"),
        ("no/such.toml", [], "does not exist"),
    ],
)
def test_unknown_recipes_and_settings_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(name, settings)


def test_settings_change_the_recipe():
    recipe = load_recipe("tokenizer", ["lr=1e-4", "codec.levels=[8, 8]", "out=else/where", "train.muon=mid"])
    assert recipe["train"]["lr"] == 1e-4 and recipe["codec"]["levels"] == [8, 8]
    assert recipe["out"] == "else/where" and recipe["train"]["muon"] == "mid"


def test_bad_data_and_wrong_keys_are_one_clear_line(tmp_path, folder):
    with pytest.raises(ValueError, match="is not a folder"):
        train("tokenizer", data=str(tmp_path / "none"), out=str(tmp_path / "out"))
    recipe = tmp_path / "wrong.toml"
    recipe.write_text(f'objective = "tokenizer"\n[train]\nstepps = 3\n[data]\nfolder = {str(folder)!r}\n')
    with pytest.raises(ValueError, match="stepps"):
        train(str(recipe), out=str(tmp_path / "out"))
    recipe.write_text('objective = "tokeniser"\n')
    with pytest.raises(ValueError, match="did you mean 'tokenizer'"):
        train(str(recipe), out=str(tmp_path / "out"))
    recipe.write_text("objective = \n")
    with pytest.raises(ValueError, match="not valid TOML"):
        train(str(recipe), out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# --- losses for a GPU -------------------------------------------------------------------------------------------------


def discs(count=8):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(count, 3, 8, 8, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(pictures, scale_factor=4, mode="nearest")


def test_the_perceptual_loss_is_zero_for_equal_pictures_and_grows_with_blur():
    pytest.importorskip("efficientnet_lite_pytorch")
    perceptual, real = PerceptualLoss(), discs()
    blurs = [torch.nn.functional.avg_pool2d(real, size, 1, size // 2) for size in (3, 7, 11)]
    losses = [float(perceptual(made, real)) for made in (real, *blurs)]
    assert losses[0] == 0 and all(a < b for a, b in zip(losses, losses[1:], strict=False))
    assert not any(parameter.requires_grad for parameter in perceptual.parameters())


def test_each_side_of_the_adversary_reaches_its_own_weights():
    adversary, real = Adversary(width=8), discs()
    made = (discs().flip(0) * 0.5).requires_grad_()
    fooling, judging = adversary(made, real)
    fooling.backward(retain_graph=True)
    assert made.grad is not None and made.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in adversary.parameters())
    made.grad = None
    judging.backward()
    assert made.grad is None
    assert all(parameter.grad.abs().sum() > 0 for parameter in adversary.parameters() if parameter.ndim > 1)


def test_the_adversary_learns_to_tell_and_can_be_fooled():
    adversary, real = Adversary(width=8), discs()
    made = (discs().roll(5, -1) * 0.3).requires_grad_()
    judge, maker = (torch.optim.Adam(weights, 5e-3) for weights in (adversary.parameters(), [made]))
    with torch.no_grad():
        before = adversary(made, real)
    for _ in range(30):
        judge.zero_grad()
        adversary(made, real)[1].backward()
        judge.step()
    between = [term.item() for term in adversary(made, real)]
    assert between[1] < 0.5 * float(before[1]) and between[0] > float(before[0])
    for _ in range(60):
        maker.zero_grad()
        adversary(made, real)[0].backward()
        maker.step()
    assert adversary(made, real)[0].item() < between[0] - 0.5


def test_the_adaptive_weight_makes_both_terms_pull_alike():
    last = torch.nn.Parameter(torch.randn(5))
    loss, term = (last * torch.randn(5)).sum(), 300 * (last.square()).sum()
    scale = adaptive_weight(loss, term, last)
    pull, = torch.autograd.grad(loss, last, retain_graph=True)
    other, = torch.autograd.grad(scale * term, last)
    assert not scale.requires_grad and float(other.norm()) == pytest.approx(float(pull.norm()), rel=1e-3)


def test_each_option_lowers_its_own_term_in_a_training(folder, tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    settings = ["minutes=0", "steps=25", "batch_size=4", "lr=5e-3", "warmup_steps=1", "log_every=1", "eval_every=25",
                "sample_every=99", "precision=fp32", "size=32", "pairs=0.0",
                *(f"codec.{name}={value}" for name, value in CODEC.items() if name != "sample_size")]

    def terms(name, option):
        torch.manual_seed(0)
        train("tokenizer", data=str(folder), out=str(tmp_path / name), settings=[*settings, option])
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if "loss" in line]

    seen = terms("seen", "perceptual=1.0")
    assert seen[-1]["perceptual"] < 0.8 * seen[0]["perceptual"]
    judged = terms("judged", "adversarial=0.1")
    assert judged[-1]["discriminator"] < judged[0]["discriminator"]
    assert not {"perceptual", "adversarial"} <= set(seen[0]) and not {"perceptual", "adversarial"} <= set(judged[0])
    codec = ImageTokenizer.from_pretrained(tmp_path / "judged" / "codec")
    assert all(value.isfinite().all() for value in codec.state_dict().values())


def test_a_negative_loss_weight_is_refused():
    with pytest.raises(ValueError, match="loss weight adversarial must be at least 0, got -0.1"):
        LossWeights(adversarial=-0.1)


def test_a_codec_starts_from_another_for_pictures_of_another_size(folder, tmp_path):
    start = ImageTokenizer(**CODEC)
    start.save_pretrained(tmp_path / "run" / "codec")
    recipe = {"data": {"folder": str(folder), "size": 48}, "codec": {"levels": [3, 3]}, "init": str(tmp_path / "run")}
    made = TokenizerObjective.from_recipe(recipe).codec
    assert made.config.sample_size == 48 and tuple(made.config.levels) == tuple(start.config.levels)
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in start.state_dict().items())
    with pytest.raises(ValueError, match="holds no trained tokenizer"):
        TokenizerObjective.from_recipe({**recipe, "init": str(folder)})
