from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dsvlfs.errors import InputError
from dsvlfs.inference.encoded import Query
from dsvlfs.measuring.prototype import LAYER_WEIGHTS, Prototype, PrototypeSegmenter, class_prototypes, prototype_scores

RED, BLUE = (255, 0, 0), (0, 0, 255)


class ColourModel:
    """Its features are the photo's own colours, pooled to a grid that differs by layer."""

    config = SimpleNamespace(correlation_layers=["image.9", "image.10", "vision.5", "vision.6"])

    def encode_query(self, photo: Image.Image) -> Query:
        layers = [
            torch.from_numpy(np.array(photo.resize((side, side), Image.Resampling.BOX))).permute(2, 0, 1)[None] / 255
            for side in (8, 8, 4, 2)
        ]
        return Query(dict(zip(self.config.correlation_layers, layers)), (8, 8), photo.size)


def two_colours(size: tuple[int, int], left: tuple[int, ...], right: tuple[int, ...]) -> Image.Image:
    image = Image.new("RGB", size, right)
    image.paste(left, (0, 0, size[0] // 2, size[1]))
    return image


def left_half(size: tuple[int, int]) -> np.ndarray:
    return np.arange(size[0]) < np.full((size[1], 1), size[0] // 2)


def test_prototypes_are_means_weighted_by_the_pooled_mask():
    layer = torch.tensor([[[1.0, 3.0]], [[0.0, 8.0]]])  # two channels on a grid of 1 x 2
    mask = torch.tensor([[1, 1, 1, 0]])  # covers the first position, and half of the second
    (prototype,) = class_prototypes([[layer]], [mask])
    assert prototype.foreground.tolist() == pytest.approx([(1 + 3 / 2) / 1.5, 4 / 1.5])
    assert prototype.background.tolist() == pytest.approx([3, 8])


def test_prototypes_pool_the_positions_of_all_supports():
    first, second = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[5.0, 8.0], [5.0, 0.0]]])  # grids may differ
    masks = [torch.tensor([[1, 0]]), torch.tensor([[1, 1], [1, 0]])]
    (prototype,) = class_prototypes([[first], [second]], masks)
    assert prototype.foreground.item() == pytest.approx((2 + 5 + 8 + 5) / 4)
    assert prototype.background.item() == 0


def test_scores_are_weighted_differences_of_cosines():
    support = torch.tensor([[[3.0, 0.0]], [[0.0, 5.0]]])  # foreground along the first channel, background the second
    prototypes = class_prototypes([[support, support]], [torch.tensor([[1, 0]])])
    query = torch.tensor([[[2.0, 0.0, 3.0]], [[0.0, 7.0, 4.0]]])
    scores = prototype_scores([query, query], prototypes, [1.0, 0.5], (1, 3))
    assert scores.flatten().tolist() == pytest.approx([1.5, -1.5, 1.5 * (3 / 5 - 4 / 5)])


def test_prototypes_joined_are_those_of_all_positions():
    layers = [torch.rand(3, side, side, generator=torch.Generator().manual_seed(side)) for side in (4, 5)]
    masks = [torch.eye(4), torch.ones(5, 5).triu()]
    apart = [class_prototypes([[layer]], [mask])[0] for layer, mask in zip(layers, masks)]
    (together,) = class_prototypes([[layer] for layer in layers], masks)
    joined = Prototype.join(apart)
    torch.testing.assert_close(joined.foreground, together.foreground)
    torch.testing.assert_close(joined.background, together.background)
    assert joined.areas == pytest.approx(together.areas)


def test_a_support_that_is_all_foreground_leaves_finite_scores():
    layer = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    prototypes = class_prototypes([[layer]], [torch.ones(4, 4)])
    assert prototype_scores([layer], prototypes, [1.0], (8, 8)).isfinite().all()


def test_segment_finds_what_the_support_shows():
    segmenter = PrototypeSegmenter(ColourModel())
    support = segmenter.encode_support([(two_colours((40, 30), RED, BLUE), left_half((40, 30)))])
    result = segmenter.segment(two_colours((64, 48), BLUE, RED), "red half", support=support, mode="both")
    assert result.mask.shape == result.probability.shape == (48, 64)
    assert result.mask.dtype == bool
    assert result.probability.dtype == np.float32
    assert result.mask[:, 48:].all()
    assert not result.mask[:, :16].any()


def test_segment_gives_a_list_for_a_list_and_obeys_the_threshold():
    segmenter = PrototypeSegmenter(ColourModel())
    support = segmenter.encode_support([(two_colours((40, 30), RED, BLUE), left_half((40, 30)))])
    photos = [two_colours((20, 20), RED, BLUE), two_colours((30, 10), BLUE, RED)]
    results = segmenter.segment(photos, "red half", support=support, threshold=0.0)
    assert [result.mask.shape for result in results] == [(20, 20), (10, 30)]
    assert all(result.mask.all() for result in results)


def test_segment_needs_a_support():
    with pytest.raises(InputError, match="support"):
        PrototypeSegmenter(ColourModel()).segment(Image.new("RGB", (8, 8)), "fox")


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(InputError, match="size"):
        PrototypeSegmenter(ColourModel()).encode_support([(Image.new("RGB", (8, 8)), np.eye(4, 5, dtype=bool))])


def test_a_model_without_the_layers_is_refused():
    model = SimpleNamespace(config=SimpleNamespace(correlation_layers=["image.9"]))
    with pytest.raises(InputError, match=r"vision\.5, vision\.6"):
        PrototypeSegmenter(model)
    assert PrototypeSegmenter(model, {"image.9": LAYER_WEIGHTS["image.9"]})
