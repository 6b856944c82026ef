import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsvlfs.data.episodes import load_episodes
from dsvlfs.data.label_maps import load_label_maps
from dsvlfs.data.mosaic import compose_mosaic
from dsvlfs.data.photos import load_coco, load_cutouts, load_photo_folder
from dsvlfs.errors import InputError

COLOURS = {"fox": (200, 90, 20), "wolf": (90, 90, 100), "cup": (30, 60, 200), "sock": (20, 160, 40)}


def write_lines(file: Path, *entries: object) -> Path:
    file.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos of 40 x 30 pixels, each one colour, whose mask is their left half."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    mask = np.zeros((30, 40), dtype=bool)
    mask[:, :20] = True
    for stem, colour in COLOURS.items():
        Image.new("RGB", (40, 30), colour).save(tmp_path / "images" / f"{stem}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{stem}.png")
    write_lines(
        tmp_path / "metadata.jsonl",
        *({"image": f"images/{stem}.png", "mask": f"masks/{stem}.png", "name": stem} for stem in COLOURS),
    )
    return tmp_path


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Photos 1 and 2 in train2017, 3 and 4 in val2017; category 7 is two squares in photos 3 and 4."""
    squares = [[[2, 2, 6, 2, 6, 6, 2, 6]], [[10, 10, 14, 10, 14, 14, 10, 14]]]
    (tmp_path / "annotations").mkdir()
    for split, ids in (("train2017", (1, 2)), ("val2017", (3, 4))):
        (tmp_path / split).mkdir()
        images, annotations = [], []
        for image_id in ids:
            name = f"{image_id:012}.png"
            Image.new("RGB", (20, 16), (image_id, 0, 0)).save(tmp_path / split / name)
            images.append({"id": image_id, "file_name": name, "width": 20, "height": 16})
            annotations += [{"image_id": image_id, "category_id": 7, "segmentation": square} for square in squares]
        annotations.append({"image_id": ids[0], "category_id": 8, "segmentation": squares[0]})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "dice"}]}
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return tmp_path


def test_single(folder):
    lines = [
        {"class_name": "canine", "query": "fox", "support": ["wolf"]},
        {"class_name": "canine", "query": "wolf", "support": ["fox", "cup"]},
    ]
    episodes = load_episodes(folder, write_lines(folder / "episodes.jsonl", *lines), None)
    assert len(episodes) == 2
    first, second = episodes
    assert first.class_name == "canine"
    assert first.query.getpixel((0, 0)) == COLOURS["fox"]
    assert first.query_mask.dtype == bool
    assert first.query_mask.shape == (30, 40)
    assert first.query_mask[:, :20].all()
    assert not first.query_mask[:, 20:].any()
    assert (first.position, first.layout) == (None, None)
    assert [photo.getpixel((0, 0)) for photo, _ in second.support] == [COLOURS["fox"], COLOURS["cup"]]
    assert len(set(first.support_ids + second.support_ids)) == 3


def test_mosaic(folder):
    line = {
        "class_name": "canine",
        "query": "fox",
        "support": ["wolf"],
        "distractors": ["cup", "wolf", "sock"],
        "position": 2,
    }
    (episode,) = load_episodes(folder, write_lines(folder / "episodes.jsonl", line), None)
    assert episode.query.size == (512, 512)
    corners = [episode.query.getpixel(corner) for corner in ((5, 5), (500, 5), (5, 500), (500, 500))]
    assert corners == [COLOURS[stem] for stem in ("cup", "wolf", "fox", "sock")]
    expected = np.zeros((512, 512), dtype=bool)
    expected[256:, :128] = True
    assert np.array_equal(episode.query_mask, expected)
    assert (episode.position, episode.layout) == (2, (2, 2))
    others = np.zeros((512, 512), dtype=bool)
    others[:, :128] = others[:256, 256:384] = others[256:, 256:384] = True
    assert np.array_equal(episode.query_others, others & ~expected)


def test_a_class_is_described_by_its_photos_definition(folder):
    entries = [{"image": f"images/{s}.png", "mask": f"masks/{s}.png", "name": s} for s in COLOURS]
    entries[0]["definition"] = "a wild dog with a bushy tail"
    write_lines(folder / "metadata.jsonl", *entries)
    lines = [{"class_name": name, "query": name, "support": ["wolf"]} for name in ("fox", "cup")]
    fox, cup = load_episodes(folder, write_lines(folder / "episodes.jsonl", *lines))
    assert (fox.description, cup.description) == ("a wild dog with a bushy tail", None)
    assert fox.query_others is None


def test_coco_finds_the_split_and_joins_the_instances(coco):
    line = {"class_name": "dice", "category_id": 7, "query": 3, "support": [4]}
    (episode,) = load_episodes(coco, write_lines(coco / "episodes.jsonl", line), None)
    assert episode.query.getpixel((0, 0)) == (3, 0, 0)
    assert episode.query_mask.shape == (16, 20)
    assert episode.query_mask[3, 3]
    assert episode.query_mask[12, 12]
    assert not episode.query_mask[8, 8]


def test_coco_supports_of_two_categories_differ(coco):
    lines = [
        {"class_name": "dice", "category_id": 7, "query": 2, "support": [1]},
        {"class_name": "cube", "category_id": 8, "query": 1, "support": [1]},
    ]
    dice, cube = load_episodes(coco, write_lines(coco / "episodes.jsonl", *lines), None)
    assert dice.support_ids != cube.support_ids
    assert not dice.query_others.any()
    assert cube.query_others[12, 12]
    assert not (cube.query_others & cube.query_mask).any()
    assert not np.array_equal(dice.support[0][1], cube.support[0][1])


def test_limit_takes_the_first_episodes(folder):
    lines = [{"class_name": "canine", "query": stem, "support": ["wolf"]} for stem in ("fox", "cup", "sock")]
    episodes = load_episodes(folder, write_lines(folder / "episodes.jsonl", *lines), 2)
    assert [episode.query.getpixel((0, 0)) for episode in episodes] == [COLOURS["fox"], COLOURS["cup"]]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"class_name": "canine", "query": "fox"}, "Line 1 .* lacks the field 'support'"),
        ({"class_name": "canine", "query": "fox", "support": []}, "Line 1"),
        (["fox", "wolf"], "Line 1"),
        ({"class_name": "canine", "query": "fox", "support": "wolf"}, "Line 1 .* wrong 'support' .*valid list"),
        ({"class_name": "canine", "query": ["fox"], "support": ["wolf"]}, "Line 1 .* wrong 'query'"),
        ({"class_name": None, "query": "fox", "support": ["wolf"]}, "Line 1 .* wrong 'class_name' .*valid string"),
        ({"class_name": "canine", "query": "fox", "support": ["lynx"]}, "no photo 'lynx'"),
        (
            {"class_name": "c", "query": "fox", "support": ["wolf"], "position": 4, "distractors": ["cup"] * 3},
            "wrong 'position' .*less than 4",
        ),
        (
            {"class_name": "c", "query": "fox", "support": ["wolf"], "position": 0, "distractors": ["cup"]},
            "wrong 'distractors' .*at least 3",
        ),
        ({"class_name": "c", "query": "fox", "support": ["wolf"], "position": 0}, "distractors"),
        ({"class_name": "c", "category_id": 7, "query": 3, "support": [4]}, "knows every photo"),
    ],
)
def test_a_wrong_line_is_named(folder, entry, message):
    with pytest.raises(InputError, match=message):
        load_episodes(folder, write_lines(folder / "episodes.jsonl", entry), None)


def test_lines_of_two_kinds_are_refused(coco):
    lines = [
        {"class_name": "dice", "category_id": 7, "query": 3, "support": [4]},
        {"class_name": "dice", "query": 3, "support": [4]},
    ]
    with pytest.raises(InputError, match=r"Line 2 .*category_id"):
        load_episodes(coco, write_lines(coco / "episodes.jsonl", *lines), None)


def test_missing_and_empty_files_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"no file .*absent\.jsonl"):
        load_episodes(folder, tmp_path / "absent.jsonl", None)
    with pytest.raises(InputError, match="is empty"):
        load_episodes(folder, write_lines(folder / "empty.jsonl"), None)
    (folder / "metadata.jsonl").unlink()
    file = write_lines(folder / "episodes.jsonl", {"class_name": "canine", "query": "fox", "support": ["wolf"]})
    with pytest.raises(InputError, match=r"metadata\.jsonl"):
        load_episodes(folder, file, None)


def test_a_category_that_the_photo_lacks_is_named(coco):
    line = {"class_name": "cube", "category_id": 8, "query": 3, "support": [4]}
    with pytest.raises(InputError, match="Photo 4 has no instance of category 8"):
        load_episodes(coco, write_lines(coco / "episodes.jsonl", line), None)[0]


def test_a_truncated_photo_is_named(folder):
    photo = folder / "images" / "fox.png"
    photo.write_bytes(photo.read_bytes()[:60])
    line = {"class_name": "canine", "query": "fox", "support": ["wolf"]}
    with pytest.raises(InputError, match=r"fox\.png"):
        load_episodes(folder, write_lines(folder / "episodes.jsonl", line), None)[0]


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_incomplete_coco_annotations_are_named(coco, part):
    file = coco / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    episodes = write_lines(
        coco / "episodes.jsonl", {"class_name": "dice", "category_id": 7, "query": 1, "support": [2]}
    )
    for wrong, message in (
        ({}, f"lacks the field '{part}'"),
        ({part: [{}]}, f"lacks the field .* in entry 1 of '{part}'"),
    ):
        file.write_text(json.dumps({key: value for key, value in content.items() if key != part} | wrong))
        with pytest.raises(InputError, match=message):
            load_coco(coco, "train2017")
        with pytest.raises(InputError, match=message):
            load_episodes(coco, episodes)


def test_what_a_folder_of_photos_lacks_is_named(tmp_path):
    write_lines(tmp_path / "metadata.jsonl", {"image": "absent.png", "name": "fox", "category": "animal"})
    (tmp_path / "classes.json").write_text('{"0": "road"}')
    with pytest.raises(InputError, match=r"Line 1 of .*metadata\.jsonl lacks the field 'mask'"):
        load_photo_folder(tmp_path)
    with pytest.raises(InputError, match=r"no cut-out .*absent\.png"):
        load_cutouts(tmp_path)
    with pytest.raises(InputError, match="no folder images"):
        load_label_maps(tmp_path)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "a.png")
    with pytest.raises(InputError, match=r"no label map .*a\.png"):
        load_label_maps(tmp_path)


def test_a_cutout_named_by_a_sentence_takes_its_kind(tmp_path):
    Image.new("RGBA", (4, 4), "red").save(tmp_path / "a.png")
    names = ("An owl (a bird)", "Remember to flush the toilet, please", "Stop!")
    write_lines(
        tmp_path / "metadata.jsonl", *({"image": "a.png", "name": name, "category": "things/sign"} for name in names)
    )
    assert load_cutouts(tmp_path)["class_name"] == ["owl", "sign", "sign"]


def test_compose_mosaic_lays_tiles_out_row_by_row():
    tiles = [(Image.new("RGB", (6, 4), (10 * i, 0, 0)), np.ones((4, 6), dtype=bool)) for i in range(6)]
    scene, masks = compose_mosaic(tiles, rows=2, columns=3, tile_size=8)
    assert scene.size == (24, 16)
    assert np.array_equal(np.asarray(scene)[::8, ::8, 0], [[0, 10, 20], [30, 40, 50]])
    assert np.array_equal(sum(mask.astype(int) for mask in masks), np.ones((16, 24)))
    assert masks[4][8:, 8:16].all()


def test_compose_mosaic_wants_every_tile():
    with pytest.raises(ValueError, match="needs 4 tiles, not 1"):
        compose_mosaic([(Image.new("RGB", (6, 4)), np.ones((4, 6), dtype=bool))])
