import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from dsvlfs.data.copies import copy_groups
from dsvlfs.data.episodes import named_episodes
from dsvlfs.data.label_maps import fields_of, load_label_maps
from dsvlfs.data.protocol import protocol_episodes
from dsvlfs.errors import InputError


def photo(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((96, 72), Image.Resampling.BICUBIC)


@pytest.fixture
def field(tmp_path) -> Path:
    """Six photos of leaves; the last two are copies of the first, turned and mirrored, so that four are left."""
    root = tmp_path / "field"
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    (root / "classes.json").write_text(json.dumps({"1": "leaf", "2": "spot"}))
    photos = [photo(seed) for seed in range(4)]
    photos += [ImageOps.mirror(photos[0]), ImageEnhance.Brightness(photos[0].rotate(180)).enhance(0.8)]
    for number, image in enumerate(photos):
        labels = np.zeros((72, 96), dtype=np.uint8)
        labels[10:40, 20:60] = 1
        labels[0, 0] = 2  # too small to be asked for
        labels[-5:] = 255
        image.save(root / "images" / f"{number}.png")
        Image.fromarray(labels).save(root / "labels" / f"{number}.png")
    return root


def test_copies_are_found_however_they_are_turned(field):
    files = sorted((field / "images").iterdir())
    assert copy_groups(files) == [0, 1, 2, 3, 0, 0]


@pytest.mark.parametrize("shots", [1, 3])
def test_a_copy_is_never_its_own_support(field, tmp_path, monkeypatch, shots):
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "cache"))
    entries = protocol_episodes("labels", field, fold=None, shots=shots)
    assert len(entries) == 100
    assert {entry["class_name"] for entry in entries} == {"leaf"}
    copies = {"field/0", "field/4", "field/5"}
    for entry in entries:
        assert len(entry["support"]) == shots
        assert not (entry["query"] in copies and copies & set(entry["support"]))
    assert entries == protocol_episodes("labels", field, fold=None, shots=shots)
    episode = named_episodes(field, entries[:1])[0]
    assert episode.query_mask.sum() == 30 * 40
    assert episode.query_ignore[-5:].all()


def test_a_class_without_enough_other_photos_is_refused(field, tmp_path, monkeypatch):
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="No class has a query and 5 other photos"):
        protocol_episodes("labels", field, fold=None, shots=5)


def test_fields_are_a_folder_or_folders_in_one(field, tmp_path):
    assert fields_of(field) == fields_of(tmp_path) == [field]
    with pytest.raises(InputError, match=r"classes\.json"):
        fields_of(field / "images")


def test_small_classes_have_a_row_where_they_are_asked_for(field):
    assert set(load_label_maps(field, smallest_share=0.0001)["class_name"]) == {"leaf", "spot"}
    assert set(load_label_maps(field)["class_name"]) == {"leaf"}
