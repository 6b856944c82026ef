"""Looks of classes that no photo shows, told by a classifier of drawn classes."""

import torch
import torch.nn.functional as F

from dsvlfs.hub.imagenet_classes import ImagenetClasses
from dsvlfs.training.classifier_looks import LEFT_OUT, ClassifierLooks

CLASSES, SHOWN, WIDTH, DIM = 200, 150, 24, 8


def _world() -> tuple[ImagenetClasses, list[dict], torch.Tensor]:
    """A classifier, an object of each class, and looks that are linear in the classifier's weights."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(CLASSES, WIDTH, generator=generator)
    names = [(f"kind {number}", f"also {number}") for number in range(CLASSES - 1)] + [("weasel",)]
    linear = torch.randn(WIDTH, DIM, generator=generator)
    centred = F.normalize(weights - weights.mean(dim=0), dim=1)
    looks = F.normalize((centred @ linear).double(), dim=1)
    entries = [{"names": [*own, "thing"]} for own in names]
    return ImagenetClasses(names, weights), entries, looks


def test_classes_that_are_not_shown_are_told_from_those_that_are():
    classes, entries, looks = _world()
    told = ClassifierLooks(classes, entries[:SHOWN])
    assert told.names == [f"kind {number}" for number in range(SHOWN, CLASSES - 1)]  # none that is reported on
    assert "weasel" in LEFT_OUT
    predicted = told.predict(looks[:SHOWN], torch.ones(SHOWN, dtype=torch.bool))
    wanted = looks[SHOWN : CLASSES - 1]
    assert F.cosine_similarity(predicted, wanted).mean() > 0.8
    assert F.cosine_similarity(predicted, wanted.roll(1, dims=0)).mean() < 0.3


def test_what_may_not_be_used_changes_nothing():
    classes, entries, looks = _world()
    told = ClassifierLooks(classes, entries[:SHOWN])
    used = torch.arange(SHOWN) < 100
    changed = looks[:SHOWN].clone()
    changed[~used] = -changed[~used]
    torch.testing.assert_close(told.predict(looks[:SHOWN], used), told.predict(changed, used))
    assert not told.predict(looks[:SHOWN], torch.zeros(SHOWN, dtype=torch.bool)).any()


def test_an_object_is_of_the_class_whose_names_it_has_all():
    classes, entries, _ = _world()
    alike = {"names": ["kind 7", "another thing"]}
    told = ClassifierLooks(classes, [alike, *entries[:5]])
    assert "kind 7" not in told.names  # it has a photo, though it may be another kind
    assert set(told.nearest.tolist()) <= {1, 2, 3, 4, 5}


def test_without_a_class_that_is_shown_nothing_is_told():
    classes, _, looks = _world()
    told = ClassifierLooks(classes, [{"names": ["thing"]}])
    assert told.names == []
    assert told.predict(looks[:1], torch.ones(1, dtype=torch.bool)).shape == (0, DIM)
