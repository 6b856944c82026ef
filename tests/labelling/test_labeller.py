import numpy as np
import pytest
from colour_model import ColourModel
from PIL import Image

import dsvlfs
from dsvlfs import InputError, Labeller, Sample
from dsvlfs.labelling.labeller import LabelClass


def stripes(*colours: str, width: int = 20, height: int = 30) -> Image.Image:
    """A photo of upright stripes."""
    image = Image.new("RGB", (width * len(colours), height))
    for place, colour in enumerate(colours):
        image.paste(colour, (place * width, 0, (place + 1) * width, height))
    return image


@pytest.fixture
def sample() -> tuple[Image.Image, np.ndarray]:
    return stripes("red"), np.ones((30, 20), dtype=bool)


def test_classes_divide_a_photo_that_is_encoded_once(sample):
    model = ColourModel()
    labeller = Labeller(model).fit([Sample(*sample, name) for name in ("red", "green", "blue")])
    (labels,) = labeller.predict(stripes("red", "gray", "blue"))
    assert labels.class_names == ("red", "green", "blue")
    assert labels.class_map[0, ::20].tolist() == [1, 0, 3]
    assert labels.mask("blue").sum() == 600
    assert [round(entry.area_percent, 1) for entry in labels.figures] == [33.3, 0.0, 33.3]
    assert labels.figures[1].is_emptied
    assert labels.figures[0].expected_iou > 0.9
    assert model.asked == {"encode_query": 1, "encode_support": 3, "predict": 3}
    with pytest.raises(KeyError):
        labels.mask("owl")


def test_a_pixel_that_several_claim_goes_to_the_surest(sample):
    classes = [LabelClass("red", threshold=0.001), LabelClass("orange", threshold=0.001)]
    labeller = Labeller(ColourModel(), mode="semantic", min_presence=0).fit([], classes)
    labels = labeller.label(stripes("red", "#ff8000", "#ff4800"))
    assert labels.class_map[0, ::20].tolist() == [1, 2, 2]
    red, orange = labels.figures
    assert red.area_percent + orange.area_percent == pytest.approx(100)
    alone = Labeller(ColourModel(), mode="semantic", min_presence=0).fit([], classes[:1])
    before = alone.label(stripes("red", "#ff8000", "#ff4800"))
    # What the other took is not in the mask's figures any more.
    assert red.area_percent < before.figures[0].area_percent
    assert red.score > before.figures[0].score


def test_photos_are_labelled_one_by_one_as_they_are_asked_for(sample):
    opened = []

    def photos():
        for number in range(3):
            opened.append(number)
            yield stripes("red", "blue")

    labels = Labeller(ColourModel()).fit([Sample(*sample, "red")]).predict(photos())
    assert opened == []
    next(labels)
    assert opened == [0]
    assert len(list(labels)) == 2


def test_one_class_is_what_segment_says(micro_model, circle):
    photo, mask = circle
    labels = Labeller(micro_model, threshold=0.4).fit([Sample(photo, mask, "circle")]).label(photo)
    found = micro_model.segment(photo, "circle", support=micro_model.encode_support([(photo, mask)]), threshold=0.4)
    np.testing.assert_array_equal(labels.mask("circle"), found.mask)
    assert labels.figures[0].score == pytest.approx(found.probability[found.mask].mean() if found.mask.any() else 0)


def test_several_classes_of_a_whole_model(micro_model, circle):
    photo, mask = circle
    labeller = Labeller(micro_model, threshold=0.3).fit(
        [Sample(photo, mask, "circle"), Sample(photo, ~mask, "square")], [LabelClass("red", "It is round.")]
    )
    assert labeller.class_names == ("red", "circle", "square")
    labels = labeller.label(photo)
    assert labels.class_map.shape == mask.shape
    assert set(np.unique(labels.class_map)) <= {0, 1, 2, 3}
    assert labels.photo.size == photo.size


@pytest.mark.parametrize(
    ("fit", "sentence"),
    [
        (lambda labeller, _: labeller.fit([]), "no class to label"),
        (lambda labeller, _: labeller.fit([], [LabelClass("red"), LabelClass("red")]), "given twice"),
        (lambda labeller, photo: labeller.label(photo), "knows no class"),
        (lambda labeller, _: labeller.fit([], [LabelClass("red")]), "needs a sample of the class 'red'"),
    ],
)
def test_wrong_calls_are_one_sentence(fit, sentence, sample):
    with pytest.raises(InputError, match=sentence):
        fit(Labeller(ColourModel(), mode="visual"), sample[0])


def test_the_package_has_them():
    assert dsvlfs.Labeller is Labeller
    assert {"Labeller", "Sample", "LabelClass", "PhotoLabels"} <= set(dsvlfs.__all__)


def test_objects_are_told_apart_in_closer_looks(sample):
    image = stripes("gray", "red", "gray", "red", "blue", height=60)
    image.paste("gray", (20, 28, 40, 32))  # the first is two
    image.putpixel((5, 5), (255, 0, 0))  # a speck
    model = ColourModel()
    labeller = Labeller(model, instances=True).fit([Sample(*sample, name) for name in ("green", "blue", "red")])
    labels = labeller.label(image)
    assert [entry.class_number for entry in labels.objects] == [2, 3, 3, 3]
    assert [entry.box for entry in labels.objects] == [
        (80, 0, 20, 60), (20, 0, 20, 28), (60, 0, 20, 60), (20, 32, 20, 28),
    ]  # fmt: skip
    assert [entry.area for entry in labels.objects] == [1200, 560, 1200, 560]
    assert all(entry.expected_iou > 0.9 for entry in labels.objects)
    # The smaller, the less.
    assert labels.objects[0].score == labels.objects[2].score > labels.objects[1].score == labels.objects[3].score
    assert labels.objects[0].score == pytest.approx(0.2**0.1, abs=0.05)
    assert labels.object_map[30, [5, 30, 70, 90]].tolist() == [0, 0, 3, 1]
    assert labels.class_map[5, 5] == 0
    np.testing.assert_array_equal(labels.class_map > 0, labels.object_map > 0)
    assert labels.figures[2].area_percent == pytest.approx(100 * 2320 / 6000)
    # Once whole, and once each of four views, for all classes that are there.
    assert model.asked["encode_query"] == 5
    assert model.asked["predict"] == 3 + 4 * 2


def test_a_photo_without_any_class_is_not_looked_at_closer(sample):
    model = ColourModel()
    labels = Labeller(model, instances=True).fit([Sample(*sample, "red")]).label(stripes("gray", "blue"))
    assert (labels.objects, labels.object_map.any()) == ((), False)
    assert model.asked["encode_query"] == 1
