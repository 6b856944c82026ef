"""The frozen bases, put together."""

from types import SimpleNamespace

import torch
from conftest import micro_config
from torch import nn
from transformers import LlamaForCausalLM

from dsvlfs.hub.assembly import _add_token_rows, _silent_projector


def test_a_new_projector_says_the_same_of_every_photo():
    config = micro_config().llava_config()
    width = config.text_config.hidden_size
    language = SimpleNamespace(get_input_embeddings=lambda: nn.Embedding.from_pretrained(words))
    words = torch.randn(5, width)
    projector = _silent_projector(config, language, lambda text, **_: SimpleNamespace(input_ids=[1, 3]))
    tokens = torch.randn(2, 4, config.vision_config.hidden_size)
    torch.testing.assert_close(projector(tokens), words[3].expand(2, 4, width))
    projector(tokens).sum().backward()  # it can learn to speak
    assert projector.linear_2.weight.grad.abs().max() > 0


def test_added_rows_are_the_mean_and_nothing_is_drawn():
    model = LlamaForCausalLM(micro_config().llava_config().text_config)
    old, drawn = model.get_input_embeddings().weight.detach().clone(), torch.get_rng_state()
    _add_token_rows(model, len(old) + 2)
    assert torch.equal(torch.get_rng_state(), drawn)
    new = model.get_input_embeddings().weight
    assert torch.equal(new[:-2], old)
    assert torch.equal(new[-2:], old.mean(dim=0).expand(2, -1))
    assert model.get_output_embeddings().weight is new
    assert "_init_weights" not in vars(model)
