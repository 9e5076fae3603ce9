"""What diffusers' own pipeline tests (PipelineTesterMixin) ask of any pipeline and test_image.py does not."""

from __future__ import annotations

import ast
import inspect
import textwrap

import pytest
import torch

from girih.pipelines.image import ImagePipeline
from tests.pipelines.test_image import PROMPT, draw
from tests.pipelines.tiny import make_components, make_pipeline


def test_what_encode_prompt_returns_can_be_passed_on_by_name():
    """diffusers reads the names in the source's one `return` and passes the values to a pipeline without text parts."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(ImagePipeline.encode_prompt)))
    (returned,) = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    assert isinstance(returned, ast.Tuple)
    names = [ast.unparse(value) for value in returned.elts]
    assert set(names) <= set(inspect.signature(ImagePipeline.__call__).parameters)
    parts, whole = make_components(), make_pipeline()
    values = dict(zip(names, whole.encode_prompt(PROMPT), strict=True))
    blind = ImagePipeline(**{**parts, "tokenizer": None, "text_encoder": None})
    blind.set_progress_bar_config(disable=True)
    assert torch.equal(draw(blind, None, **values), draw(whole))


def test_whatever_a_call_need_not_say_has_a_default():
    parameters = inspect.signature(ImagePipeline.__call__).parameters
    assert all(parameter.default is not parameter.empty for name, parameter in parameters.items() if name != "self")
    assert {"prompt", "negative_prompt", "guidance_scale", "num_images_per_prompt", "generator", "prompt_embeds",
            "negative_prompt_embeds", "output_type", "return_dict", "callback_on_step_end",
            "callback_on_step_end_tensor_inputs"} <= set(parameters)


@pytest.mark.parametrize("safe", [True, False])
def test_variants_are_saved_and_found(safe, tmp_path):
    make_pipeline().save_pretrained(tmp_path, variant="fp16", safe_serialization=safe)
    for name in ("codec", "generator", "text_encoder"):
        assert [file for file in (tmp_path / name).iterdir() if ".fp16." in file.name]
    again = ImagePipeline.from_pretrained(tmp_path, variant="fp16")
    again.set_progress_bar_config(disable=True)
    assert torch.equal(draw(again), draw(make_pipeline()))
    with pytest.raises((OSError, ValueError), match="variant=fp17"):
        ImagePipeline.from_pretrained(tmp_path, variant="fp17")


def test_a_dtype_for_all_or_for_each_part(tmp_path):
    pipe = make_pipeline()
    assert {part.dtype for part in (pipe.codec, pipe.generator, pipe.text_encoder)} == {torch.float32}
    pipe.save_pretrained(tmp_path)
    mixed = ImagePipeline.from_pretrained(
        tmp_path, **{"dtype" if "dtype" in dtype_names() else "torch_dtype": {"codec": torch.bfloat16}})
    assert mixed.codec.dtype == torch.bfloat16 and mixed.generator.dtype == torch.float32


def dtype_names() -> set[str]:
    from girih.pipelines.loading import dtype_option

    return set(dtype_option(torch.float32))
