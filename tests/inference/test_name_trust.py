"""A name is heard beside the supports only where it fits what they show."""

import numpy as np
import pytest
import torch

from dsvlfs import DSVLFSConfig, DSVLFSModel
from dsvlfs.errors import InputError
from dsvlfs.inference.name_trust import name_fit
from dsvlfs.page.engine import describe_area
from dsvlfs.page.examples import EXAMPLES
from dsvlfs.parts.grounding import SemanticGrounding


def test_a_names_fit_is_the_cosine_with_the_foregrounds_look():
    grounding = SemanticGrounding(channels=[2], prompt_dim=2)
    grounding.basis.copy_(torch.eye(2))
    layer = torch.tensor([[[[3.0, 0.0]], [[4.0, 2.0]]]])  # two channels, one row of two positions
    left = torch.tensor([[[1.0, 0.0]]])
    assert name_fit(grounding, torch.tensor([[2.0, 0.0]]), [layer], left) == pytest.approx(0.6)
    assert name_fit(grounding, torch.tensor([[0.0, 0.1]]), [layer], left.flip(2)) == pytest.approx(1)
    both = name_fit(grounding, torch.tensor([[0.0, 1.0]]), [layer.repeat(2, 1, 1, 1)], torch.cat([left, left.flip(2)]))
    assert both == pytest.approx((0.8 + 1) / 2)


def test_a_name_that_fits_less_is_left_out(micro_model, circle):
    support = micro_model.encode_support([circle])
    asked = {"support": support, "modes": ["both", "semantic", "visual"]}
    heard = micro_model.predict(circle[0], "circle", **asked)
    micro_model.config.name_trust = -1.0
    same = micro_model.predict(circle[0], "circle", **asked)
    micro_model.config.name_trust = 1.0
    left_out = micro_model.predict(circle[0], "circle", **asked)
    assert all(torch.equal(heard[mode].logits, same[mode].logits) for mode in heard)
    assert torch.equal(left_out["both"].logits, heard["visual"].logits)
    assert not torch.equal(heard["both"].logits, heard["visual"].logits)
    assert torch.equal(left_out["semantic"].logits, heard["semantic"].logits)
    assert [left_out[mode].segmentation().is_name_heard for mode in asked["modes"]] == [False, True, True]


@pytest.mark.parametrize("name", ["name_trust", "name_doubt", "stranger_margin"])
def test_a_space_that_supports_have_no_layers_in_is_refused(name):
    config = DSVLFSConfig.tiny()
    config.update({name: 0.1, "correlation_layers": ["image.9"]})
    with torch.device("meta"), pytest.raises(InputError, match=f"{name} needs grounding_layers"):
        DSVLFSModel(config, load_bases=False)


def test_the_packaged_checkpoint_tells_a_right_name_from_a_wrong_one():
    model = DSVLFSModel.from_pretrained("dsvlfs-tiny")
    example = EXAMPLES[0]
    query, support = model.encode_query(example.query_file), model.encode_support([example.shot])
    right, word = (model.segment(query, name, support=support) for name in (example.class_name, "blorvet"))
    alone = model.segment(query, example.class_name, support=support, mode="visual")
    assert right.is_name_heard
    assert not word.is_name_heard
    assert np.array_equal(word.mask, alone.mask)
    assert describe_area(word, 1).startswith("The name does not fit the example")
