import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_sets import CORNER, LARGE, draw_coco, draw_folder, draw_fss, draw_lvis, draw_pascal

from dsvlfs.data.coco_reading import COCO_CLASSES
from dsvlfs.data.json_stream import read_entries
from dsvlfs.data.named_sets import NAMED_SETS, load_index, load_named_set, training_class_names
from dsvlfs.data.pascal import PASCAL_CLASSES
from dsvlfs.data.photos import FEATURES
from dsvlfs.errors import InputError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def box_mask(box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((72, 96), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


@pytest.mark.parametrize(
    ("name", "draw", "fold"),
    [
        ("pascal-5i", draw_pascal, 1),
        ("coco-20i", draw_coco, 1),
        ("coco-20i-exclusive", draw_coco, 1),
        ("fss-1000", draw_fss, None),
        ("lvis-92i", draw_lvis, 1),
        ("folder", draw_folder, 1),
    ],
)
def test_splits_have_one_schema_and_share_no_class_and_no_row(tmp_path, name: str, draw: Callable, fold):
    root = draw(tmp_path / "data")
    train, test = (load_named_set(name, root, split=split, fold=fold) for split in ("train", "test"))
    assert train.features == test.features == FEATURES
    assert not set(train["class_name"]) & set(test["class_name"])
    for row in (train[0], test[0]):
        assert row["image"].size == (96, 72)
        assert np.array_equal(np.array(row["mask"]) > 0, box_mask(LARGE)) or row["ignore"] is not None
        assert row["class_name"] == row["class_names"][0]
    assert tuple(NAMED_SETS) == (
        "pascal-5i",
        "coco-20i",
        "coco-20i-exclusive",
        "fss-1000",
        "lvis-92i",
        "folder",
        "labels",
    )


@pytest.mark.parametrize("fold", range(4))
def test_pascal_fold(tmp_path, fold):
    root = draw_pascal(tmp_path / "VOCdevkit" / "VOC2012")
    test = load_named_set("pascal-5i", tmp_path, split="test", fold=fold)
    train = load_named_set("pascal-5i", root, split="train", fold=fold)
    names = [names[0] for names in PASCAL_CLASSES]
    own, others = names[5 * fold : 5 * fold + 5], names[: 5 * fold] + names[5 * fold + 5 :]
    # Two photos of each class: the corners are too small to count.
    assert Counter(test["class_name"]) == dict.fromkeys(own, 2)
    assert Counter(train["class_name"]) == dict.fromkeys(others, 2)
    assert not set(test["photo_id"]) & set(train["photo_id"])
    assert {photo[-1] for photo in test["photo_id"]} == {"0", "1"}  # as val.txt says
    assert training_class_names("pascal-5i", None, fold) == {n for names in PASCAL_CLASSES for n in names} - {
        n for names in PASCAL_CLASSES[5 * fold : 5 * fold + 5] for n in names
    }


def test_pascals_label_255_is_ignored_and_no_background(tmp_path):
    rows = load_named_set("pascal-5i", draw_pascal(tmp_path / "VOC2012"), split="test", fold=0)
    by_photo = {row["photo_id"]: row for row in rows}
    bordered, plain = by_photo["2007_000000"], by_photo["2007_000001"]
    assert np.array_equal(np.array(bordered["ignore"]) > 0, np.arange(72)[:, None] < np.full((1, 96), 4))
    assert plain["ignore"] is None


def test_a_photo_that_also_shows_a_test_class_is_trained_on(tmp_path):
    root = draw_pascal(tmp_path / "VOC2012")
    shown = {}
    for row in load_index("pascal-5i", root, "train"):
        shown.setdefault(row["photo_id"], set()).add(row["class_index"])
    rows = load_named_set("pascal-5i", root, split="train", fold=0)
    mixed = [row for row in rows if shown[row["photo_id"]] & set(range(5))]
    assert mixed
    assert not np.array(mixed[0]["mask"])[CORNER[1] : CORNER[3], CORNER[0] : CORNER[2]].any()


@pytest.mark.parametrize("year", ["2014", "2017"])
def test_coco_fold(tmp_path, year):
    root = draw_coco(tmp_path, year)
    test = load_named_set("coco-20i", root, split="test", fold=2)
    assert Counter(test["class_name"]) == {"car": 3, "train": 3}  # classes 2 and 6 of the 8 drawn
    train = load_named_set("coco-20i", root, split="train", fold=2)
    assert set(train["class_name"]) == {names[0] for i, names in enumerate(COCO_CLASSES[:8]) if i % 4 != 2}
    everything = load_named_set("coco-20i", root, split="test", fold=None)
    assert set(everything["class_name"]) == {names[0] for names in COCO_CLASSES[:8]}
    assert training_class_names("coco-20i", None, 2) == {n[0] for i, n in enumerate(COCO_CLASSES) if i % 4 != 2}


def test_coco_joins_instances_and_reads_run_lengths(tmp_path):
    index = load_index("coco-20i", draw_coco(tmp_path), "test")
    masks = {row["class_name"]: np.array(row["mask"]) > 0 for row in index if row["photo_id"] == "1001"}
    assert np.array_equal(masks["person"], box_mask(LARGE))
    assert np.array_equal(masks["bicycle"], box_mask(CORNER))
    areas = {row["class_name"]: row["area"] for row in index if row["photo_id"] == "1001"}
    assert areas == {"person": 56 * 56, "bicycle": 26 * 10}


def test_where_objects_overlap_a_pixel_can_be_of_the_smallest_ones_class_alone(tmp_path):
    file = draw_coco(tmp_path) / "annotations" / "instances_val2014.json"
    content = json.loads(file.read_text())
    inner = [30, 20, 40, 20, 40, 30, 30, 30]  # in LARGE, which is drawn in two halves
    content["annotations"].insert(0, {"image_id": 1001, "category_id": 5, "segmentation": [inner]})
    content["annotations"].append({"image_id": 1001, "category_id": 7, "segmentation": [[0, 0, 96, 0, 96, 72, 0, 72]]})
    file.write_text(json.dumps(content))
    masks = {}
    for name in ("coco-20i", "coco-20i-exclusive"):
        rows = [row for row in load_index(name, tmp_path, "test") if row["photo_id"] == "1001"]
        masks[name] = {row["class_name"]: np.array(row["mask"]) > 0 for row in rows}
        assert [row["area"] for row in rows] == [mask.sum() for mask in masks[name].values()]
    whole, apart = masks.values()
    assert list(whole) == list(apart) == ["person", "bicycle", "car", "motorcycle"]
    assert (sum(mask.astype(int) for mask in apart.values()) == 1).all()
    assert np.array_equal(apart["car"], whole["car"])
    assert np.array_equal(apart["person"], whole["person"] & ~whole["car"])
    assert np.array_equal(apart["bicycle"], whole["bicycle"])
    assert whole["motorcycle"].all()


def test_annotations_of_2014_find_their_photos_in_the_folders_of_2017(tmp_path):
    draw_coco(tmp_path)
    (tmp_path / "train2017").mkdir()
    (tmp_path / "val2017").mkdir()
    photos = sorted((tmp_path / "val2014").iterdir())
    for number, photo in enumerate(photos):
        photo.rename(tmp_path / ("val2017" if number % 2 else "train2017") / photo.name.split("_")[-1])
    (tmp_path / "val2014").rmdir()
    rows = load_named_set("coco-20i", tmp_path, split="test", fold=0)
    assert {row["image"].size for row in rows} == {(96, 72)}


def test_fss_takes_the_test_list_and_cuts_soft_edges(tmp_path):
    root = draw_fss(tmp_path / "FSS")
    test = load_named_set("fss-1000", root, split="test", fold=None)
    assert Counter(test["class_name"]) == {"abacus": 10, "zucchini": 10}
    assert Counter(load_named_set("fss-1000", root, split="train", fold=None)["class_name"]) == dict.fromkeys(
        ("ab wheel", "bat", "cup"), 10
    )
    assert test["photo_id"][9] == "abacus/10"
    assert np.array_equal(np.array(test[0]["mask"]) > 0, box_mask(LARGE))
    (root / "splits").mkdir()
    (root / "fss_test_set.txt").rename(root / "splits" / "test.txt")
    assert set(load_named_set("fss-1000", root, split="test", fold=None)["class_name"]) == {"abacus", "zucchini"}


def test_lvis_folds_are_of_the_classes_with_two_photos(tmp_path):
    root = draw_lvis(tmp_path)
    test = load_named_set("lvis-92i", root, split="test", fold=3)
    assert Counter(test["class_name"]) == {"thing 4": 2, "thing 14": 2}
    assert test["class_names"][0] == ["thing 4", "object 4"]
    assert test["definition"][0] == "the 4th thing"
    train = load_named_set("lvis-92i", root, split="train", fold=3)
    assert set(train["class_name"]) == {f"thing {i}" for i in range(1, 22)} - {"thing 4", "thing 14"}
    assert all(row["image"].size == (96, 72) for row in test)
    assert "object 21" in training_class_names("lvis-92i", root, 3)


def test_a_folder_has_splits_and_folds(tmp_path):
    root = draw_folder(tmp_path)
    assert Counter(load_named_set("folder", root, split="train", fold=0)["class_name"]) == dict.fromkeys(
        ("owl", "pot", "sock"), 2
    )
    assert Counter(load_named_set("folder", root, split="test", fold=0)["class_name"]) == {"fox": 3}
    everything = load_named_set("folder", root, split="test", fold=None)
    assert len(everything) == 12
    assert [row["ignore"] is not None for row in everything][:3] == [False, False, True]


def test_photos_of_a_folder_have_names_of_their_own(tmp_path):
    root = draw_folder(tmp_path)
    (root / "images" / "more").mkdir()
    line = {"image": "images/more/fox_0.jpg", "mask": "masks/fox_0.png", "name": "fox"}
    with (root / "metadata.jsonl").open("a") as file:
        file.write("\n" + json.dumps(line))
    with pytest.raises(InputError, match=r"images/fox_0\.jpg and .*more/fox_0\.jpg have the same name"):
        load_named_set("folder", root, split="train", fold=None)


def test_an_index_is_built_once_and_again_when_its_source_changes(tmp_path, own_cache, monkeypatch):
    root = draw_coco(tmp_path / "coco")
    rows = load_named_set("coco-20i", root, split="test", fold=0)
    assert rows.cache_files[0]["filename"].startswith(str(own_cache / "indices"))

    def refuse(*_):
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr("dsvlfs.data.coco_reading.read_entries", refuse)
        assert load_named_set("coco-20i", root, split="test", fold=0)["photo_id"] == rows["photo_id"]
    file = root / "annotations" / "instances_val2014.json"
    content = json.loads(file.read_text())
    content["annotations"] = content["annotations"][:3]
    file.write_text(json.dumps(content))
    assert len(load_named_set("coco-20i", root, split="test", fold=0)) == 1


def test_a_photo_is_read_on_access_alone(tmp_path):
    root = draw_pascal(tmp_path)
    for photo in (root / "JPEGImages").iterdir():
        os.remove(photo)
    rows = load_named_set("pascal-5i", root, split="test", fold=0)
    assert len(rows) == 10
    with pytest.raises(FileNotFoundError):
        rows[0]


@pytest.mark.parametrize(
    ("name", "fold", "message"),
    [
        ("pascal-6i", 0, "no data set 'pascal-6i'; choose one of pascal-5i, coco-20i"),
        ("pascal-5i", 0, "no JPEGImages in .*SegmentationClassAug/.*val.txt"),
        ("coco-20i", 0, "no annotations/instances_train2014.json in .*train2017"),
        ("fss-1000", None, "no folder CLASS with 1.jpg .*fss_test_set.txt"),
        ("lvis-92i", 0, "no lvis_v1_val.json in .*train2017"),
        ("folder", None, "no metadata.jsonl in .*masks"),
        ("pascal-5i", 4, "no fold 4; give 0 to 3"),
        ("fss-1000", 0, "no fold 0; it has none, leave it out"),
    ],
)
def test_a_wrong_name_fold_or_layout_is_one_sentence(tmp_path, name, fold, message):
    with pytest.raises(InputError, match=message) as failure:
        load_named_set(name, tmp_path, split="train", fold=fold)
    assert "\n" not in str(failure.value)


def test_what_is_wrong_inside_a_set_is_named(tmp_path):
    root = draw_pascal(tmp_path / "voc")
    label = root / "SegmentationClassAug" / "2007_000001.png"
    label.write_bytes(label.read_bytes()[:40])
    with pytest.raises(InputError, match=r"label map .*2007_000001\.png cannot be read"):
        load_named_set("pascal-5i", root, split="test", fold=0)
    label.unlink()
    with pytest.raises(InputError, match=r"no label map .*2007_000001\.png"):
        load_named_set("pascal-5i", root, split="test", fold=0)
    (root / "ImageSets" / "Segmentation" / "val.txt").unlink()
    with pytest.raises(InputError, match=r"no ImageSets/Segmentation/val\.txt"):
        load_named_set("pascal-5i", root, split="test", fold=0)
    root = draw_fss(tmp_path / "fss")
    (root / "fss_test_set.txt").unlink()
    with pytest.raises(InputError, match=r"no fss_test_set\.txt"):
        load_named_set("fss-1000", root, split="test", fold=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(category_id=999), "category 999 but does not list both"),
        (lambda c: c["annotations"][0].update(segmentation={"counts": 5, "size": [1]}), "A segmentation has a wrong"),
        (lambda c: c["annotations"][0].pop("segmentation"), "Entry 1 of 'annotations' .* lacks the field"),
        (lambda c: c["images"][0].pop("file_name"), "Entry 1 of 'images' .* lacks the field 'file_name'"),
        (lambda c: c["categories"][0].update(name="gnu"), "category 'gnu', which COCO's 80 have not"),
        (lambda c: c.pop("images"), "lacks the field 'images'"),
    ],
)
def test_damaged_annotations_are_named(tmp_path, change, message):
    root = draw_coco(tmp_path)
    file = root / "annotations" / "instances_val2014.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        load_named_set("coco-20i", root, split="test", fold=0)


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 10**6])
def test_a_stream_of_json_gives_what_the_whole_gives(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr("dsvlfs.data.json_stream._CHUNK", chunk)
    content = {
        "info": {"a": [1, {"b": "]}"}]},
        "empty": [],
        "number": -12.5e3,
        "images": [{"id": 12345, "name": 'ü "quoted"'}, {"id": 2, "list": [[0.25, 1], []]}],
        "last": None,
    }
    for text in (json.dumps(content), json.dumps(content, indent=3), json.dumps(content, ensure_ascii=False)):
        file = tmp_path / "content.json"
        file.write_text(text, encoding="utf-8")
        assert list(read_entries(file, "images", dict)) == content["images"]
        assert list(read_entries(file, "empty", dict)) == []
    for text in ("", "[]", '{"images": [{"id": 1}', '{"images": [{"id": 1},]}', '{"images" 1}', '{"images": [nan'):
        file.write_text(text)
        with pytest.raises(InputError, match="damaged, cut short"):
            list(read_entries(file, "images", dict))
