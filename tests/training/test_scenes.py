"""Scenes composed from drawn packs."""

import numpy as np
import pytest
from drawn_packs import draw_packs

from dsvlfs.training.packs import training_scenes
from dsvlfs.training.scenes import SceneComposer


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    return draw_packs(tmp_path_factory.mktemp("packs"))


@pytest.mark.parametrize("kind", SceneComposer.kinds)
def test_a_scene_is_made_by_its_seed_alone(packs, kind):
    first, again = (training_scenes(packs).compose(kind, (1, 2)) for _ in range(2))
    assert first.image.tobytes() == again.image.tobytes()
    assert bool(first.objects) == (kind != "blank")
    for item in first.objects:
        assert item.mask.shape == (first.image.height, first.image.width)
        assert item.mask.dtype == bool


def test_objects_of_a_scene_do_not_overlap(packs):
    composer = training_scenes(packs)
    for seed in range(8):
        for kind in ("mosaic", "cutouts"):
            assert np.sum([item.mask for item in composer.compose(kind, (seed,)).objects], axis=0).max() == 1


def test_what_is_pasted_onto_a_photo_leaves_the_photos_own_objects_named(packs):
    composer = training_scenes(packs)
    scenes = [composer.compose("cutouts", (seed,)) for seed in range(8)]
    of_the_ground = [item for scene in scenes for item in scene.objects if item.photo_id in ("1", "camvid_sample/a")]
    assert {item.names for item in of_the_ground} == {("square",), ("circle",)}
    assert any(item.mask.any() for item in of_the_ground)


def test_a_collage_shows_photos_of_one_set_each_in_a_tile_of_its_own(packs):
    composer = training_scenes(packs)
    for seed in range(8):
        scene = composer.compose("collage", (0, seed))
        assert len({item.names for item in scene.objects}) == 1  # the drawn sets have one class each
        for item in scene.objects:
            assert 0 < item.mask.mean() <= 0.5
            rows, columns = (np.ptp(np.flatnonzero(item.mask.any(axis=axis))) + 1 for axis in (1, 0))
            assert min(rows / scene.image.height, columns / scene.image.width) <= 0.5


def test_classes_of_photos_and_collages_take_turns(packs):
    composer = training_scenes(packs)
    for kind in ("photo", "collage"):
        shown = [{name for item in composer.compose(kind, (0, turn)).objects for name in item.names} for turn in (0, 1)]
        assert shown == [{"circle"}, {"square"}]


def test_blank_photos_are_of_one_colour_blends_and_noise(packs):
    composer = training_scenes(packs)
    spreads = [
        float(np.asarray(composer.compose("blank", (seed,)).image).std(axis=(0, 1)).mean()) for seed in range(24)
    ]
    assert min(spreads) == 0
    assert max(spreads) > 20
