"""Several classes on the page, with a model that needs no weights."""

import importlib
import json
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from page_browser import field, shown_image, shown_source
from PIL import Image
from pycocotools.coco import COCO

from dsvlfs import InputError


@pytest.fixture
def several(app: ModuleType) -> ModuleType:
    return importlib.import_module("dsvlfs.page.several")


@pytest.fixture
def class_events(app: ModuleType) -> ModuleType:
    return importlib.import_module("dsvlfs.page.class_events")


@pytest.fixture
def photo_file(tmp_path: Path) -> str:
    Image.new("RGB", (200, 100), "tan").save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


@pytest.fixture
def pair(circle: tuple[Image.Image, np.ndarray]) -> tuple[Image.Image, np.ndarray]:
    return circle


def test_classes_share_a_photo_that_is_encoded_once(several, model, pair, photo_file):
    asked = [several.AskedClass("left", "", [pair]), several.AskedClass("right", "", [])]
    turns = []
    (result,) = several.predict(asked, [photo_file], "both", report=lambda share, text: turns.append(text))
    assert len(model.encoded) == 1
    assert [query["modes"] for query in model.queries] == [["both"], ["semantic"]]
    assert turns == ["Looking for left", "Looking for right"]
    class_map, figures = result.settled(0.5)
    assert (class_map[:, :90] == 1).all()
    assert (class_map[:, 110:] == 2).all()
    assert [round(entry.area_percent) for entry in figures] == [50, 50]
    picture, words, legend = several.draw(result, "mask", 0.5, 1.0)
    np.testing.assert_allclose(picture.getpixel((20, 50)), several.COLOURS[0], atol=3)
    np.testing.assert_allclose(picture.getpixel((180, 50)), several.COLOURS[1], atol=3)
    assert words == "2 of 2 classes found, on 100.0% of the photo"
    assert legend.count("<li>") == 2
    for view in ("probability", "votes"):
        assert several.draw(result, view, 0.5, 0.5)[0].size == picture.size
    assert several.thumbnail(result, 0.5).size == (200, 100)


def test_one_class_is_what_it_was(several, app, model, pair, photo_file):
    (result,) = several.predict([several.AskedClass("right", "", [pair])], [photo_file], "both")
    assert isinstance(result, app.events.engine.Result)
    assert sorted(result.predictions) == ["both", "semantic", "visual"]
    assert several.draw(result, "mask", 0.5, 0.5)[2] == ""


def test_a_name_is_no_markup_in_the_legend(several, model, photo_file):
    asked = [several.AskedClass("<b>left", "", []), several.AskedClass("right", "", [])]
    (result,) = several.predict(asked, [photo_file], "semantic")
    legend = several.draw(result, "mask", 0.99, 0.5)[2]
    assert "&lt;b&gt;left" in legend
    assert "<b><b>" not in legend


@pytest.mark.parametrize(
    ("names", "mode", "sentence"),
    [
        (["left", " "], "semantic", "Class 2 has no name"),
        (["left", "Left"], "semantic", "Two classes are named “Left”"),
        (["left", "right"], "visual", "“left” has no support photo"),
        (list("abcdef"), "semantic", "at most 5"),
    ],
)
def test_classes_that_cannot_be_looked_for_are_refused(several, model, photo_file, names, mode, sentence):
    with pytest.raises(InputError, match=sentence):
        several.predict([several.AskedClass(name, "", []) for name in names], [photo_file], mode)


def test_what_is_taken_away_has_all_classes(several, model, photo_file, tmp_path):
    asked = [several.AskedClass("left", "", []), several.AskedClass("right", "", [])]
    results = several.predict(asked, [photo_file, photo_file], "semantic")
    (tmp_path / "out").mkdir()
    files = several.write_masks(results, 0.5, tmp_path / "out")
    assert [file.name for file in files] == ["photo_classes.png", "photo-2_classes.png", "classes.json"]
    assert json.loads(files[-1].read_text()) == {"1": "left", "2": "right"}
    assert set(np.unique(np.array(Image.open(files[0])))) == {1, 2}
    coco = COCO(several.write_coco(results, 0.5, tmp_path / "coco.json"))
    assert [entry["name"] for entry in coco.loadCats([1, 2])] == ["left", "right"]
    assert len(coco.anns) == 4


def test_the_list_of_classes(class_events, app, circle):
    draft = importlib.import_module("dsvlfs.page.supports").Draft(*circle)
    tool = app.events.BOX
    classes, place, drafts, *_, name, description, choice, removal = class_events.add_class(
        [], 0, [draft], 0, tool, None, "fox", "Red."
    )
    assert (len(classes), place, drafts, name, description) == (2, 1, [], "", "")
    assert choice["choices"] == [("fox", 0), ("Class 2", 1)]
    assert choice["visible"]
    assert removal["visible"]
    with pytest.warns(UserWarning, match="Name this class first"):
        class_events.add_class(classes, 1, [], 0, tool, None, "", "")
    choice, _ = class_events.name_class(classes, 1, [], "wolf", "")
    assert choice["choices"] == [("fox", 0), ("wolf", 1)]
    classes, place, drafts, *_, name, description, _, _ = class_events.choose_class(
        classes, 1, [draft, draft], 0, tool, None, "wolf", "", 0
    )
    assert (place, len(drafts), name, description) == (0, 1, "fox", "Red.")
    assert [entry.name for entry in classes] == ["fox", "wolf"]
    assert len(classes[1].drafts) == 2
    asked = class_events.asked_classes(classes, "both")
    assert [len(entry.supports) for entry in asked] == [1, 2]
    classes, place, *_, name, _, choice, removal = class_events.remove_class(classes, 0, tool)
    assert (len(classes), place, name) == (1, 0, "wolf")
    assert not choice["visible"]
    assert not removal["visible"]


def test_classes_and_their_photos_are_bounded(class_events, app, circle, tmp_path):
    draft = importlib.import_module("dsvlfs.page.supports").Draft(*circle)
    tool, full = app.events.BOX, class_events.ClassDraft("fox", "", (draft,) * 5)
    with pytest.warns(UserWarning, match="5 classes at most"):
        class_events.add_class([full] * 5, 0, [draft], 0, tool, None, "fox", "")
    with pytest.warns(UserWarning, match="10 support photos of all classes"):
        class_events.add_photos([full] * 3, 0, [draft], 0, tool, None, "fox", "", ["a.png"])
    with pytest.raises(InputError, match="10 support photos of all classes"):
        class_events.asked_classes([full] * 3, "both")
    bare = importlib.import_module("dsvlfs.page.supports").Draft.of(circle[0])
    with pytest.raises(InputError, match="“wolf”: Paint over"):
        class_events.asked_classes([full, class_events.ClassDraft("wolf", "", (bare,))], "both")


def test_a_person_labels_two_classes(visit, model, tmp_path):
    page = visit()
    assert page.locator("#which-class").count() == 0
    assert page.locator("#legend").count() == 0
    field(page, "class-name").fill("left")
    page.locator("#add-class").click()
    page.get_by_role("radio", name="Class 2").wait_for()
    field(page, "class-name").fill("right")
    before = shown_source(page)
    page.locator("#segment").click()
    shown_image(page, before)
    legend = page.locator("#legend li")
    legend.nth(1).wait_for()
    assert [text.split()[0] for text in legend.all_inner_texts()] == ["left", "right"]
    page.get_by_role("radio", name="right").wait_for()
    with page.expect_download() as download:
        page.locator("#masks").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert sorted(archive.namelist()) == ["classes.json", "penguin_query_classes.png"]
    page.get_by_role("radio", name="left").click()
    page.wait_for_function("document.querySelector('#class-name :is(input, textarea)').value === 'left'")
    page.locator("#remove-class").click()
    page.locator("#which-class").wait_for(state="detached")
    assert field(page, "class-name").input_value() == "right"


def test_an_example_takes_all_classes_place(visit, model):
    page: Any = visit()
    page.locator("#add-class").click()
    page.get_by_role("radio", name="Class 2").wait_for()
    before = shown_source(page)
    page.locator("#example-1").click()
    shown_image(page, before)
    page.locator("#which-class").wait_for(state="detached")
    assert page.locator("#by-name").is_visible()
