from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dsvlfs import InputError
from dsvlfs.inference.selection import mask_at_points, mask_in_box

RED, BLUE, GREY = (200, 30, 30), (30, 30, 200), (120, 120, 120)


class ColourModel:
    """Stands in for `DSVLFSModel`: the colours under the support's mask are the class, but for grey; blurred."""

    config = SimpleNamespace(correlation_layers=["image.1", "vision.1"])

    def encode_support(self, examples):
        [(photo, mask)] = examples
        return [colour for colour in np.unique(np.asarray(photo)[mask], axis=0) if tuple(colour) != GREY]

    def segment(self, image, class_name, *, support, mode):
        assert mode == "visual"
        alike = np.any([(np.asarray(image) == colour).all(axis=-1) for colour in support], axis=0)
        small = Image.fromarray(alike.astype(np.float32)).resize((32, 32), Image.Resampling.BOX)
        return SimpleNamespace(probability=np.array(small.resize(image.size, Image.Resampling.BILINEAR)))

    def extract_layers(self, photo):
        colours = np.asarray(photo.resize((16, 16), Image.Resampling.BOX), dtype=np.float32)
        return [torch.from_numpy(colours).permute(2, 0, 1), torch.full((3, 4, 4), float("nan"))]


@pytest.fixture
def photo() -> Image.Image:
    """A red and, apart from it, another red square, and a blue one that touches the first."""
    image = Image.new("RGB", (160, 120), GREY)
    image.paste(RED, (20, 30, 60, 80))
    image.paste(BLUE, (60, 30, 90, 80))
    image.paste(RED, (120, 90, 150, 112))
    return image


def iou(mask: np.ndarray, box: tuple[int, int, int, int]) -> float:
    truth = np.zeros_like(mask)
    truth[box[1] : box[3], box[0] : box[2]] = True
    return (mask & truth).sum() / (mask | truth).sum()


def test_a_box_gives_the_object_in_it(photo):
    mask = mask_in_box(ColourModel(), photo, (15, 25, 60, 85))
    assert mask.shape == (120, 160)
    assert iou(mask, (20, 30, 60, 80)) > 0.95
    assert not mask[:25].any()
    assert not mask[:, 60:].any()
    np.testing.assert_array_equal(mask_in_box(ColourModel(), photo, (60, 25, 15, 85)), mask)  # corners in any order


@pytest.mark.parametrize("box", [(10, 10, 11, 60), (170, 10, 200, 60), (10, 60, 50, 60)])
def test_a_box_without_area_is_refused(photo, box):
    with pytest.raises(InputError, match="no area"):
        mask_in_box(ColourModel(), photo, box)


def test_a_point_gives_the_object_that_it_is_on(photo):
    assert iou(mask_at_points(ColourModel(), photo, [(40, 50)]), (20, 30, 60, 80)) > 0.8
    assert iou(mask_at_points(ColourModel(), photo, [(135, 100)]), (120, 90, 150, 112)) > 0.6


def test_what_does_not_hang_together_with_a_point_is_left_out(photo):
    photo.paste(RED, (75, 40, 90, 70))  # within the box that the point's surroundings give, yet apart
    photo.paste(GREY, (60, 30, 75, 80))
    model = ColourModel()
    model.extract_layers = lambda photo: [torch.ones(3, 4, 4) * torch.tensor([[1.0, 1, 1, -1]]), torch.zeros(3, 4, 4)]
    mask = mask_at_points(model, photo, [(40, 50)])
    assert mask[35:75, 25:55].all()
    assert not mask[:, 75:].any()


def test_a_point_beside_the_object_takes_its_surroundings_away(photo):
    both = mask_at_points(ColourModel(), photo, [(40, 50), (75, 50)])
    assert both[31:79, 21:59].mean() > 0.9
    without = mask_at_points(ColourModel(), photo, [(40, 50)], [(75, 50)])
    assert without[35:75, 25:50].all()
    assert not without[35:75, 66:85].any()


def test_without_a_point_there_is_no_object(photo):
    with pytest.raises(InputError, match="No point is on the object"):
        mask_at_points(ColourModel(), photo, [], [(5, 5)])


def test_the_model_itself_answers_too(micro_model, circle):
    for mask in (
        mask_in_box(micro_model, circle[0], (15, 10, 55, 50)),
        mask_at_points(micro_model, circle[0], [(35, 30)], [(2, 2)]),
    ):
        assert mask.shape == (60, 80)
        assert mask.dtype == bool
