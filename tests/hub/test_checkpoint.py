"""The packaged checkpoint on its real bases."""

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoConfig, AutoProcessor

from dsvlfs import DSVLFSModel, DSVLFSProcessor
from dsvlfs.hub.checkpoint_files import PACKAGED_CHECKPOINTS
from dsvlfs.page.examples import EXAMPLES, Example

FILE = PACKAGED_CHECKPOINTS["dsvlfs-tiny"] / "model.safetensors"


@pytest.fixture(scope="module")
def model() -> DSVLFSModel:
    return DSVLFSModel.from_pretrained("dsvlfs-tiny")


def _example(name: str) -> Example:
    return next(example for example in EXAMPLES if example.class_name == name)


def test_it_is_small_and_holds_no_base():
    assert FILE.stat().st_size <= 20_000_000
    with safe_open(FILE, "pt") as checkpoint:
        names = set(checkpoint.keys())
    own = {name for name in names if name.startswith("image_encoder.")}
    assert all(name.startswith("image_encoder.adapter.") for name in own)
    assert not any("vision_tower" in name for name in names)


def test_the_example_is_found_and_the_support_decides(model):
    penguin, guitar = _example("penguin"), _example("guitar")
    query = Image.open(penguin.query_file)
    own = model.encode_support([penguin.shot])
    other = model.encode_support([guitar.shot])
    found = model.segment(query, "penguin", support=own)
    asked_for_another = model.segment(query, "guitar", support=other)
    assert found.mask.shape == (query.height, query.width)
    assert 0.01 < found.mask.mean() < 0.6
    inside = found.mask
    assert asked_for_another.probability[inside].mean() < found.probability[inside].mean() - 0.2


def test_the_semantic_prompt_alone_is_a_mode(model):
    penguin = _example("penguin")
    result = model.segment(penguin.query_file, "penguin", mode="semantic")
    assert np.isfinite(result.probability).all()
    assert result.probability.max() > 0.5


def test_the_half_precision_file_loads_to_the_same_tensors_again(model, tmp_path):
    import torch

    model.save_pretrained(tmp_path, dtype=torch.float16)
    again, packaged = (load_file(file) for file in (tmp_path / "model.safetensors", FILE))
    assert again.keys() == packaged.keys()  # the language model's share, which learned nothing, is left out of both
    assert all(again[name].equal(own) and again[name].dtype == own.dtype for name, own in packaged.items())


def test_it_says_which_classes_it_is_of():
    assert type(AutoProcessor.from_pretrained(FILE.parent)) is DSVLFSProcessor
    assert AutoConfig.from_pretrained(FILE.parent).architectures == ["DSVLFSModel"]
