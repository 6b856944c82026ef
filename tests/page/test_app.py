"""The web page, with a model that needs no weights: its parts, its API, and itself in a browser."""

import importlib
import json
import runpy
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from page_browser import assert_looks_like, field, fill_box, ramp, shown_image, shown_source
from PIL import Image
from pycocotools.coco import COCO

from dsvlfs import InputError
from dsvlfs.descriptions.bank import bank_description
from dsvlfs.inference.pictures import overlay


@pytest.fixture
def files(circle: tuple[Image.Image, np.ndarray], tmp_path: Path) -> dict[str, str]:
    """A photo, its mask, a file that is no image, and a photo far larger than the page shows."""
    photo, mask = circle
    photo.save(tmp_path / "photo.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    Image.new("RGB", (3000, 1500), "gray").save(tmp_path / "large.jpg")
    return {file.stem: str(file) for file in tmp_path.iterdir()}


# Uploads and supports --------------------------------------------------------------------------------------------


def test_the_mask_is_where_the_brush_has_been(app, circle):
    supports = importlib.import_module("dsvlfs.page.supports")
    strokes = Image.new("RGBA", circle[0].size)
    strokes.paste((0, 150, 255, 40), (10, 5, 30, 25))  # a translucent edge counts
    expected = np.zeros((60, 80), dtype=bool)
    expected[5:25, 10:30] = True
    editor = {"background": circle[0], "layers": [strokes], "composite": None}
    np.testing.assert_array_equal(supports.painted_mask(editor, (80, 60)), expected)
    assert not supports.painted_mask({**editor, "layers": []}, (80, 60)).any()
    shown = supports.editor_value(supports.Draft(*circle))
    np.testing.assert_array_equal(supports.painted_mask(shown, (80, 60)), circle[1])


def test_a_mask_of_the_photo_before_it_was_scaled_down_fits(app, circle, tmp_path):
    uploads = importlib.import_module("dsvlfs.page.uploads")
    mask = Image.fromarray(circle[1]).resize((401, 299), Image.Resampling.NEAREST)  # scaled down: 128 x 95.4, rounded
    mask.save(tmp_path / "mask.png")
    photo = uploads.shrink(circle[0].resize(mask.size), 128)
    expected = np.array(mask.resize((128, 95), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(uploads.read_mask(str(tmp_path / "mask.png"), photo), expected)
    Image.new("L", (60, 60), 255).save(tmp_path / "square.png")
    with pytest.raises(InputError, match="other proportions"):
        uploads.read_mask(str(tmp_path / "square.png"), photo)


def test_unusable_photos_are_refused_with_a_sentence(app, files, tmp_path, monkeypatch):
    uploads = importlib.import_module("dsvlfs.page.uploads")
    with pytest.raises(InputError, match="The query photo cannot be read"):
        uploads.read_upload(files["broken"], "query photo")
    monkeypatch.setattr(uploads, "MAX_PIXELS", 1_000_000)
    with pytest.raises(InputError, match="The query photo has more than 1 megapixels"):
        uploads.read_upload(files["large"], "query photo")
    gallery = [(files["broken"], None), (files["photo"], "kept")]
    with pytest.warns(UserWarning, match="The query photo broken.jpg cannot be read"):
        assert app.events.check_queries(gallery) == [(files["photo"], "kept")]


def test_deep_gray_photos_keep_their_brightness(app, tmp_path):
    uploads = importlib.import_module("dsvlfs.page.uploads")
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((6, 8), 128 * 257, np.uint16)).save(path)
    assert uploads.read_photo(str(path), "query photo").getpixel((0, 0)) == (128, 128, 128)


def test_a_persons_own_photos_take_the_examples_place(app, files):
    events = app.events
    example = events.EXAMPLES[0].draft()
    drafts, current, *_, name, description = events.add_photos(
        [example], 0, events.BOX, None, "penguin", "A bird.", [files["photo"]]
    )
    assert (len(drafts), current, name, description) == (1, 0, "", "")
    assert not drafts[0].mask.any()
    drafts, current, *_, name, _ = events.add_photos(
        drafts, 0, events.BOX, None, "ball", "", [files["large"], files["photo"]]
    )
    assert (len(drafts), current, name) == (3, 1, "ball")
    assert drafts[1].photo.size == (1024, 512)
    with pytest.warns(UserWarning, match="5 support photos at most"):
        events.add_photos(drafts, 0, events.BOX, None, "ball", "", [files["photo"]] * 3)
    with pytest.warns(UserWarning, match="The support photo cannot be read"):
        events.add_photos(drafts, 0, events.BOX, None, "ball", "", [files["broken"]])
    drafts, current, *_ = events.remove_support(drafts, 2, events.BOX, None)
    assert (len(drafts), current) == (2, 1)


def test_an_uploaded_mask_is_taken_for_the_photo_that_is_shown(app, files, circle):
    events = app.events
    draft = importlib.import_module("dsvlfs.page.supports").Draft.of(circle[0])
    drafts, *_ = events.add_mask([draft, draft], 1, events.BRUSH, files["mask"])
    assert not drafts[0].mask.any()
    np.testing.assert_array_equal(drafts[1].mask, circle[1])
    with pytest.warns(UserWarning, match="Add the support photo first"):
        events.add_mask([], 0, events.BRUSH, files["mask"])


def click(*point: int) -> gr.SelectData:
    return gr.SelectData(None, {"index": list(point), "value": None})


def test_clicks_become_a_mask(app, model, circle, monkeypatch):
    events = app.events
    drafts = [importlib.import_module("dsvlfs.page.supports").Draft.of(circle[0])]
    drafts, _ = events.note_click(drafts, 0, events.BOX, click(10, 5))
    assert events.follow_clicks(drafts, 0) == (gr.skip(), gr.skip())  # half a box
    drafts, _ = events.note_click(drafts, 0, events.BOX, click(30, 25))
    drafts, shown = events.follow_clicks(drafts, 0)
    assert drafts[0].mask.sum() == 20 * 20
    assert shown.size == (80, 60)

    asked = []
    monkeypatch.setattr(
        events.engine,
        "mask_at_points",
        lambda model, photo, *points: asked.append(points) or np.zeros((60, 80), dtype=bool),
    )
    drafts, _ = events.note_click(drafts, 0, events.ON, click(40, 30))
    drafts, _ = events.note_click(drafts, 0, events.BESIDE, click(1, 2))
    with pytest.warns(UserWarning, match="No object was found"):
        drafts, _ = events.follow_clicks(drafts, 0)
    assert asked == [(((40, 30),), ((1, 2),))]
    drafts, *_ = events.clear_marks(drafts, 0, events.ON)
    assert drafts[0].inside == drafts[0].beside == ()


@pytest.mark.parametrize(
    ("box", "on", "beside", "sentence"),
    [
        ([1, 2, 3], None, None, "Give the box as"),
        (5, None, None, "Give the box as"),
        ([True, 2, 3, 4], None, None, "Give the box as"),
        (None, 5, None, "Give points as"),
        (None, [[1, 2], 3], None, "Give points as"),
        (None, [[1, 2]], {"x": 1}, "Give points as"),
    ],
)
def test_marks_of_a_wrong_form_are_named(app, model, files, box, on, beside, sentence):
    with pytest.raises(gr.Error, match=sentence):
        next(app.programs.mask(str(files["photo"]), box, on, beside))


# Asking the model ------------------------------------------------------------------------------------------------


def test_photos_and_descriptions_are_encoded_once(app, model, circle, files):
    engine = app.events.engine
    pairs = [circle, (circle[0], ~circle[1])]
    engine.predict(pairs, "ball", " round ", [files["photo"]], "both")
    engine.predict(pairs[:1], "left", "", [files["photo"], files["large"]], "visual")
    assert len(model.supports) == 2
    assert [photo.size for photo in model.encoded] == [(80, 60), (1280, 640)]  # no more is worked on
    np.testing.assert_array_equal(model.supports[0][1], circle[1])
    assert model.queries == [
        {"class_name": "ball", "shots": 2, "description": "round", "modes": ["both", "semantic", "visual"]},
        *[{"class_name": "left", "shots": 1, "description": None, "modes": ["visual"]}] * 2,
    ]
    assert engine.describe(" blue  cube ") == engine.describe("blue cube") == "A blue cube has corners."
    assert len(engine.DESCRIPTIONS) == 1
    assert engine.describe("red fox") == bank_description("red fox")  # no language model is asked
    assert len(engine.DESCRIPTIONS) == 1


def test_a_name_alone_needs_no_support(app, model, files):
    app.events.engine.predict([], "ball", "", [files["photo"]], "semantic")
    assert model.supports == []
    assert model.queries == [{"class_name": "ball", "shots": None, "description": None, "modes": ["semantic"]}]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"class_name": " "}, "Name the class"),
        ({"query_files": []}, "Add a query photo"),
        ({"supports": []}, "Add a support photo"),
        ({"query_files": ["photo"] * 13}, "at most 12"),
        ({"query_files": ["photo", "broken"]}, "The query photo broken.jpg cannot be read"),
    ],
)
def test_what_is_missing_is_named_before_any_work(app, model, circle, files, change, sentence):
    given = {"supports": [circle], "class_name": "ball", "query_files": ["photo"], **change}
    given["query_files"] = [files[name] for name in given["query_files"]]
    with pytest.raises(InputError, match=sentence):
        app.events.engine.predict(class_description="", mode="both", **given)
    assert model.queries == []


def test_an_unmarked_support_is_named(app, circle):
    supports = importlib.import_module("dsvlfs.page.supports")
    with pytest.raises(InputError, match="support photo 2"):
        supports.marked([supports.Draft(*circle), supports.Draft.of(circle[0])])


def test_the_threshold_asks_the_model_for_nothing(app, model):
    events = app.events
    results, chosen, *_ = events.open_page(0.5)
    asked = len(model.queries)
    assert events.redraw(results, chosen, "mask", 0.5, 0.5)[1] == "50.0% of the photo"
    shown, area, legend = events.redraw(results, 0, "mask", 0.75, 1.0)
    assert not legend["visible"]
    assert area == "25.0% of the photo"
    photo = events.engine.decode_preview(results[0].preview)
    np.testing.assert_array_equal(shown, overlay(photo, ramp(photo.size) >= 0.75, 1.0))
    assert events.redraw(results, 0, "mask", 1.0, 1.0)[1].startswith("Nothing reaches")
    assert len(model.queries) == asked
    assert events.redraw(None, 0, "mask", 0.5, 0.5)[:2] == (None, "")


def test_votes_and_maps_are_shown(app, model, circle, files):
    events = app.events
    (result,) = events.engine.predict([circle, (circle[0], ~circle[1])], "ball", "", [files["large"]], "both")
    votes, area = events.engine.draw(result, "votes", 0.5, 1.0)
    assert area == "50.0% of the photo · votes of 2: 2: 37.5%, 1: 12.5%"  # 0.8 x >= 0.5 from x = 0.625
    levels = [np.asarray(votes.convert("L"))[300, x].item() for x in (100, 700, 1200)]
    assert levels == sorted(set(levels))
    probability, _ = events.engine.draw(result, "probability", 0.5, 1.0)
    assert (np.diff(np.asarray(probability.convert("L"), dtype=int)[300]) >= 0).all()
    by_name, by_support = events.engine.draw_prompts(result)
    assert by_name.size == by_support.size == (480, 240)
    (alone,) = events.engine.predict([circle], "ball", "", [files["photo"]], "visual")
    assert events.engine.draw_prompts(alone)[0] is None


def test_files_have_the_photos_own_size_and_names_of_their_own(app, model, circle, files, tmp_path):
    engine = app.events.engine
    results = engine.predict([circle], "ball", "", [files["large"], files["photo"], files["photo"]], "both")
    archive = engine.pack(engine.write_masks(results, 0.75, tmp_path), tmp_path / "masks.zip")
    with zipfile.ZipFile(archive) as packed:
        assert packed.namelist() == ["large_mask.png", "photo_mask.png", "photo-2_mask.png"]
        mask = np.asarray(Image.open(packed.open("large_mask.png")))
    assert mask.shape == (1500, 3000)
    np.testing.assert_array_equal(mask[:, :2248] > 0, False)
    np.testing.assert_array_equal(mask[:, 2252:] > 0, True)  # within a pixel of what was worked on
    coco = COCO(engine.write_coco(results, 0.75, tmp_path / "annotations.json"))
    assert [entry["file_name"] for entry in coco.loadImgs([1, 2, 3])] == ["large.jpg", "photo.png", "photo-2.png"]
    np.testing.assert_array_equal(coco.annToMask(coco.loadAnns([1])[0]) > 0, mask > 0)


def test_examples_are_complete(app):
    for example in app.events.EXAMPLES:
        assert example.draft().mask.any()
        assert example.class_name
        assert example.description
        assert Image.open(example.query_file).size == (480, 360)


# For programs ----------------------------------------------------------------------------------------------------


def test_programs_call_the_events_by_name(app, model, address, circle, files, tmp_path):
    assert set(app.demo.get_api_info()["named_endpoints"]) == {"/segment", "/describe", "/mask"}
    client = Client(address, verbose=False, download_files=tmp_path / "got")
    request = {
        "class_name": "ball",
        "queries": [handle_file(files["large"]), handle_file(files["photo"])],
        "support_photos": [handle_file(files["photo"])],
        "support_masks": [handle_file(files["mask"])],
        "threshold": 0.75,
        "api_name": "/segment",
    }
    masks, overlays, coco, report = client.predict(**request)
    assert [Image.open(file).size for file in masks] == [(3000, 1500), (80, 60)]
    assert [Image.open(file).size for file in overlays] == [(1280, 640), (80, 60)]
    assert len(json.loads(Path(coco).read_text())["annotations"]) == 2
    assert report[0] == {
        "name": "large.jpg",
        "area_percent": pytest.approx(25, abs=0.1),
        "percent_by_votes": {"0": pytest.approx(75, abs=0.1), "1": pytest.approx(25, abs=0.1)},
    }
    np.testing.assert_array_equal(model.supports[0][1], circle[1])
    assert client.predict("blue cube", api_name="/describe") == "A blue cube has corners."
    mask = client.predict(handle_file(files["photo"]), [10, 5, 30, 25], None, None, api_name="/mask")
    assert (np.asarray(Image.open(mask)) > 0).sum() == 400

    for change, sentence in (
        ({"queries": [handle_file(files["broken"])]}, "The query photo cannot be read"),
        ({"support_masks": [handle_file(files["broken"])]}, "The mask cannot be read"),
        ({"support_masks": []}, "give a mask for each photo"),
        ({"class_name": ""}, "Name the class"),
        ({"queries": []}, "Add a query photo"),
    ):
        with pytest.raises(AppError, match=sentence):
            client.predict(**{**request, **change})
    with pytest.raises(AppError, match=r"Give the box as \[left"):
        client.predict(handle_file(files["photo"]), [10, 5], None, None, api_name="/mask")


def test_the_example_of_a_program_runs(app, address, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["call_page.py", address])
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "call_page.py"), run_name="__main__")
    *files, report = capsys.readouterr().out.splitlines()[-4:]
    assert [Path(file).suffix for file in files] == [".png", ".jpg", ".json"]
    assert Image.open(files[0]).size == (480, 360)
    assert "penguin_query.jpg" in report


def test_eight_clients_at_once_each_get_their_own(app, model, address, files):
    def ask(number: int) -> float:
        client = Client(address, verbose=False)
        name, threshold = ("left", "ball")[number % 2], 0.1 + number / 10
        queries = [handle_file(files["photo"])]
        masks, *_ = client.predict(name, queries, [], [], "", "semantic", threshold, api_name="/segment")
        expected = ramp((80, 60), name) >= threshold
        return float(((np.asarray(Image.open(masks[0])) > 0) == expected).mean())

    with ThreadPoolExecutor(8) as pool:
        assert min(pool.map(ask, range(8))) > 0.98  # the grey levels of a threshold's own column apart


# In a browser ----------------------------------------------------------------------------------------------------


def test_a_visitor_paints_segments_and_moves_the_threshold(app, model, visit):
    page = visit()
    photo = app.events.engine.decode_preview(app.events.first_results()[0].preview)
    assert_looks_like(shown_image(page, ""), overlay(photo, ramp(photo.size) >= 0.5))
    assert field(page, "area").input_value() == "50.0% of the photo"

    source = shown_source(page)
    field(page, "class-name").fill("left")
    page.locator("#segment").click()
    assert_looks_like(shown_image(page, source), overlay(photo, ramp(photo.size, "left") >= 0.5))
    np.testing.assert_array_equal(model.supports[-1][1], app.events.EXAMPLES[0].draft().mask)  # through the canvas

    asked, source = len(model.queries), shown_source(page)
    page.locator("#threshold input[type=number]").fill("0.75")
    assert_looks_like(shown_image(page, source), overlay(photo, ramp(photo.size, "left") >= 0.75))
    assert len(model.queries) == asked

    with page.expect_response(lambda response: response.request.method == "POST"):
        page.locator("#clear").click()
    page.wait_for_timeout(1000)  # the canvas draws its layers
    page.locator("#segment").click()
    page.get_by_text("Paint over the object in").wait_for()
    box = page.locator("#support canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 30, y)
    page.mouse.down()
    page.mouse.move(x + 30, y, steps=8)
    page.mouse.up()
    answered = len(model.queries)
    page.locator("#segment").click()
    _wait_for(page, lambda: len(model.queries) > answered)
    painted = model.supports[-1][1]
    rows, columns = painted.any(axis=1).nonzero()[0], painted.any(axis=0).nonzero()[0]
    assert columns[-1] - columns[0] > 60 * 0.9
    assert columns[-1] - columns[0] > rows[-1] - rows[0]
    assert abs((columns[0] + columns[-1]) / 2 - 240) < 24


def test_a_visitor_marks_two_supports_by_a_box_and_takes_the_results_away(app, model, visit, tmp_path):
    page = visit()
    photos = []
    for number, size in enumerate([(300, 500), (640, 400)]):
        photos.append(tmp_path / f"own{number}.png")
        Image.new("RGB", size, "tan").save(photos[-1])
    with page.expect_file_chooser() as chooser:
        page.locator("#support-photo").click()
    chooser.value.set_files(photos)
    page.locator("#which").get_by_label("2").wait_for()
    page.locator("#tools").get_by_label("Box").check()
    for number, corners in enumerate([[(30, 50), (270, 450)], [(100, 60), (500, 300)]]):
        page.locator("#which").get_by_label(str(number + 1)).check()
        for point in corners:
            _click_photo(page, Image.open(photos[number]).size, point)
    page.locator("#tools").get_by_label("Brush").check()  # to correct it; the editor has the mask
    page.locator("#support canvas").first.wait_for()
    page.wait_for_timeout(1500)  # the canvas draws its layers
    field(page, "class-name").fill("ball")
    page.locator("#segment").click()
    page.wait_for_function("document.querySelector('#area :is(input, textarea)').value.includes('votes of 2')")
    for (photo, mask), (left, top, right, bottom) in zip(
        model.supports[-2:], [(30, 50, 270, 450), (100, 60, 500, 300)]
    ):
        expected = fill_box(None, photo, (left, top, right, bottom))
        assert (mask & expected).sum() / (mask | expected).sum() > 0.97

    with page.expect_download() as download:
        page.locator("#masks").click()
    mask = Image.open(download.value.path())
    assert (download.value.suggested_filename, mask.size) == ("penguin_query_mask.png", (480, 360))
    with page.expect_download() as download:
        page.locator("#coco").click()
    content = json.loads(Path(download.value.path()).read_text())
    assert [category["name"] for category in content["categories"]] == ["ball"]
    assert len(content["annotations"]) == 1


def test_a_visitors_wrong_input_is_a_sentence_on_the_page(app, model, visit, files):
    page = visit()
    field(page, "class-name").fill("")
    page.locator("#segment").click()
    page.get_by_text("Name the class, such as").wait_for()
    with page.expect_file_chooser() as chooser:
        page.locator("#support-photo").click()
    chooser.value.set_files(files["broken"])
    page.get_by_text("The support photo cannot be read").wait_for()
    with page.expect_file_chooser() as chooser:
        page.locator("#support-mask").click()
    chooser.value.set_files(files["large"])
    page.get_by_text("The mask has other proportions").wait_for()
    page.locator("#describe").click()
    page.get_by_text("Name the class first").wait_for()
    field(page, "class-name").fill("cube")
    page.locator("#describe").click()
    page.wait_for_function("document.querySelector('#description textarea').value == 'A cube has corners.'")


def test_two_visitors_at_once_do_not_mix(app, model, visit):
    first, second = visit(), visit(390, 844)
    photo = app.events.engine.decode_preview(app.events.first_results()[0].preview)
    sources = [shown_source(page) for page in (first, second)]
    for page, name in ((first, "left"), (second, "ball")):
        field(page, "class-name").fill(name)
    for page in (first, second):
        page.locator("#segment").click()
    second.locator("#threshold input[type=number]").fill("0.25")
    for page, name, threshold, source in zip((first, second), ("left", "ball"), (0.5, 0.25), sources):
        page.wait_for_function(
            "area => document.querySelector('#area :is(input, textarea)').value == area",
            arg=f"{1 - threshold:.1%} of the photo",
        )
        assert_looks_like(shown_image(page, source), overlay(photo, ramp(photo.size, name) >= threshold))
    # On a phone nothing has to be moved sideways.
    assert second.evaluate("document.documentElement.scrollWidth") <= 390


def _wait_for(page: Any, holds: Callable[[], bool]) -> None:
    """Lets the page go on until something holds."""
    for _ in range(900):
        if holds():
            return
        page.wait_for_timeout(100)
    raise AssertionError("it never held")


def _click_photo(page: Any, size: tuple[int, int], point: tuple[int, int]) -> None:
    """Clicks a pixel of the photo, which is fitted into its frame, and waits for the answer."""
    image = page.locator("#clickable img")
    image.wait_for()
    page.wait_for_function(
        "size => { const i = document.querySelector('#clickable img'); return i.naturalWidth == size[0]; }", arg=size
    )
    source = image.get_attribute("src")
    box = image.bounding_box()
    scale = min(box["width"] / size[0], box["height"] / size[1])
    left, top = (box["width"] - scale * size[0]) / 2, (box["height"] - scale * size[1]) / 2
    image.click(position={"x": left + scale * point[0], "y": top + scale * point[1]})
    page.wait_for_function("s => document.querySelector('#clickable img').src != s", arg=source)
    page.wait_for_timeout(500)
