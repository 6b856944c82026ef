import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsvlfs import InputError
from dsvlfs.labelling.project import read_project
from dsvlfs.labelling.supports import AtPoints, InBox, MaskFile, SupportPhoto

SIZE = (40, 30)


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """A photo; its mask of one class; and one of the classes 3 and 7, left and right."""
    Image.new("RGB", SIZE, "gray").save(tmp_path / "photo.png")
    Image.new("L", SIZE, 255).crop((0, 0, *SIZE)).save(tmp_path / "full.png")
    numbers = np.zeros(SIZE[::-1], dtype=np.uint8)
    numbers[5:20, :10], numbers[5:20, 30:] = 3, 7
    Image.fromarray((numbers == 3).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    index = Image.fromarray(numbers)
    index.putpalette([0] * 768)  # the colours do not tell the classes apart
    index.save(tmp_path / "index.png")


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def masks(supports: list[SupportPhoto]) -> list[np.ndarray]:
    return [support.load(None)[1] for support in supports]


def test_a_yaml_file_has_all_ways_to_show_a_class(tmp_path):
    project = write(
        tmp_path / "animals.yaml",
        """
classes:
  red fox:
    description: It is red.
    threshold: 0.4
    min_presence: 0
    supports:
      - {photo: photo.png, mask: mask.png}
      - {photo: photo.png, mask: index.png, mask_value: 7}
      - {photo: photo.png, box: [1, 2, 20.5, 18]}
      - {photo: photo.png, points: [[3, 4], [5, 6]], beside: [[1, 1]]}
  ' snow   owl ': {}
  cat:
""",
    )
    fox, owl, cat = read_project(project)
    assert (fox.name, fox.description, fox.threshold, fox.min_presence) == ("red fox", "It is red.", 0.4, 0)
    assert (owl.name, owl.supports, cat.name) == ("snow owl", [], "cat")
    assert [type(support.mark) for support in fox.supports] == [MaskFile, MaskFile, InBox, AtPoints]
    first, second = masks(fox.supports[:2])
    assert (first.sum(), second.sum()) == (150, 150)
    assert second[10, 35]
    assert not second[10, 5]
    assert fox.supports[2].mark.box == (1, 2, 20.5, 18)
    assert fox.supports[3].mark == AtPoints(((3, 4), (5, 6)), ((1, 1),))
    assert fox.supports[0].files == [tmp_path / "photo.png", tmp_path / "mask.png"]


def test_classes_may_be_a_list(tmp_path):
    project = write(tmp_path / "p.yaml", "classes:\n- fox\n- name: owl\n  description: It has wings.\n")
    assert [(entry.name, entry.description) for entry in read_project(project)] == [
        ("fox", None), ("owl", "It has wings."),
    ]  # fmt: skip


def test_a_folder_of_classes(tmp_path):
    for name, stems in (("fox", "ab"), ("owl", "c")):
        for stem in stems:
            for part, source in (("photos", "photo.png"), ("masks", "mask.png")):
                target = tmp_path / "project/classes" / name / part / f"{stem}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((tmp_path / source).read_bytes())
    write(tmp_path / "project/classes/owl/class.yaml", "name: snow owl\nthreshold: 0.7\n")
    for place in ("project", "project/classes"):
        fox, owl = read_project(tmp_path / place)
        assert [len(entry.supports) for entry in (fox, owl)] == [2, 1]
        assert (owl.name, owl.threshold) == ("snow owl", 0.7)
        assert masks(fox.supports)[1].sum() == 150
    (tmp_path / "project/classes/fox/masks/b.png").unlink()
    with pytest.raises(InputError, match=r"b.png has no mask in"):
        read_project(tmp_path / "project")


def coco(folder: Path, **more: object) -> Path:
    box = [[0, 5, 10, 5, 10, 20, 0, 20]]
    entry = {"image_id": 1, "category_id": 4, "iscrowd": 0, "segmentation": box, "area": 150}
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 30} for n in (1, 2, 3)],
        "categories": [{"id": 4, "name": "fox"}, {"id": 9, "name": "owl"}, {"id": 5, "name": "cat"}],
        "annotations": [
            {**entry, "id": 1},
            {**entry, "id": 2, "segmentation": [[30, 5, 40, 5, 40, 20, 30, 20]]},
            {**entry, "id": 3, "image_id": 2},
            {**entry, "id": 4, "image_id": 3, "category_id": 9, "iscrowd": 1},
            {**entry, "id": 5, "image_id": 3, "category_id": 9},
        ],
        **more,
    }
    for number in (1, 2, 3):
        place = folder / f"val2017/{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(place)
    return write(folder / "annotations/instances_val2017.json", json.dumps(content))


def test_cocos_annotations_are_supports(tmp_path):
    fox, owl = read_project(coco(tmp_path))
    assert [entry.name for entry in (fox, owl)] == ["fox", "owl"]  # of a cat there is nothing
    assert [mask.sum() for mask in masks(fox.supports)] == [300, 150]  # both objects; the largest first
    assert [mask.sum() for mask in masks(owl.supports)] == [150]
    assert len(read_project(coco(tmp_path), shots=1)[0].supports) == 1
    project = write(tmp_path / "p.yaml", "classes:\n  red fox:\n    annotations: annotations/instances_val2017.json\n"
                    "    label: fox\n    shots: 1\n")  # fmt: skip
    (named,) = read_project(project)
    assert (named.name, len(named.supports)) == ("red fox", 1)


def labelme(folder: Path, shapes: list[dict], **more: object) -> Path:
    content = {"imagePath": "photo.png", "imageHeight": 30, "imageWidth": 40, "shapes": shapes, **more}
    return write(folder / "photo.json", json.dumps(content))


def test_labelmes_annotations_are_supports(tmp_path):
    crop = io.BytesIO()
    Image.new("L", (5, 4), 255).save(crop, "PNG")
    mask = base64.b64encode(crop.getvalue()).decode()
    labelme(
        tmp_path,
        [
            {"label": "fox", "points": [[0, 0], [9, 0], [9, 9], [0, 9]], "shape_type": "polygon"},
            {"label": "fox", "points": [[39, 29], [30, 20]], "shape_type": "rectangle"},
            {"label": "owl", "points": [[20, 15], [20, 18]], "shape_type": "circle"},
            {"label": "cat", "points": [[2, 3], [6, 6]], "shape_type": "mask", "mask": mask},
            {"label": "point", "points": [[2, 3]], "shape_type": "point"},
        ],
    )
    cat, fox, owl = read_project(tmp_path)
    assert [entry.name for entry in (cat, fox, owl)] == ["cat", "fox", "owl"]
    assert masks(fox.supports)[0].sum() == 200
    assert masks(cat.supports)[0].sum() == 20
    assert masks(cat.supports)[0][3, 2]
    assert 25 < masks(owl.supports)[0].sum() < 50


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not a JSON object|not an object|is wrong|lacks"),
        ("classes: {}", "has no classes"),
        ("clases:\n  fox:", "lacks the field 'classes'|clases"),
        ("classes:\n  fox: {colour: red}", "colour|extra|Extra"),
        ("classes:\n  no: {}", "quote it"),
        ("classes:\n  fox: {threshold: 50}", "less than or equal to 1"),
        ("classes:\n- {description: red}", "has no name"),
        ("classes:\n- fox\n- fox", "'fox' twice"),
        ("classes:\n  fox:\n    supports: [{photo: a.png}]", "one of mask, box and points"),
        ("classes:\n  fox:\n    supports: [{photo: a.png, box: [1, 2], }]", "lacks the field '2'|box|tuple"),
        ("classes: [", "not valid YAML"),
        ("classes:\n  fox: {annotations: absent.json}", "There is no file"),
        ("classes:\n  fox: {folder: absent}", "make these two folders"),
        ("&a [*a, *a]", "Input should|not a JSON object|is wrong|dictionary"),
    ],
)
def test_what_is_wrong_with_a_project_is_one_sentence(tmp_path, text, sentence):
    project = write(tmp_path / "p.yaml", text)
    with pytest.raises(InputError, match=sentence) as told:
        read_project(project)
    assert len(str(told.value)) <= 300
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images": [{"id": 1, "file_name": "1.png", "width": 40, "height": 10**9}]}, "pixels|height|list both|list"),
        ({"images": 7}, "images"),
        ({"annotations": [{"image_id": 1, "category_id": 4, "segmentation": [[1]]}]}, "cannot be read|segmentation"),
        ({"annotations": [{"image_id": 8, "category_id": 4, "segmentation": [[1]]}]}, "does not list|list both"),
        (
            {"images": [{"id": n, "file_name": "absent.png", "width": 40, "height": 30} for n in (1, 2, 3)]},
            "not beside",
        ),
    ],
)
def test_what_is_wrong_with_cocos_file_is_one_sentence(tmp_path, change, sentence):
    with pytest.raises(InputError, match=sentence):
        read_project(coco(tmp_path, **change))


@pytest.mark.parametrize(
    ("shapes", "more", "sentence"),
    [
        ([], {"imageHeight": 10**9}, "imageHeight"),
        ([{"label": 3, "points": []}], {}, "label"),
        ([{"label": "fox", "points": [[1, 2, 3]]}], {}, "points"),
        ([{"label": "fox", "points": [[0, 0], [5, 5]], "shape_type": "mask", "mask": "?"}], {}, "cannot be read"),
        ([], {"imagePath": "absent.png"}, "is not there"),
    ],
)
def test_what_is_wrong_with_labelmes_file_is_one_sentence(tmp_path, shapes, more, sentence):
    with pytest.raises(InputError, match=sentence):
        read_project(labelme(tmp_path, shapes, **more))


def test_a_value_that_no_pixel_has(tmp_path):
    support = SupportPhoto(tmp_path / "photo.png", MaskFile(tmp_path / "index.png", 5))
    with pytest.raises(InputError, match="no pixel of the value 5; it holds 0, 3, 7"):
        support.load(None)
    with pytest.raises(InputError, match="outside the photo"):
        SupportPhoto(tmp_path / "photo.png", AtPoints(((99, 3),))).load(None)
