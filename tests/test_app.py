"""The web page, with a model that needs no weights."""

import importlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from dsvlfs.visualization import overlay

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class FakeModel:
    """Finds everything ever more likely to the right; a class named "left", to the left."""

    def __init__(self) -> None:
        self.supports: list[Any] = []
        self.queries: list[dict[str, Any]] = []

    def encode_support(self, examples: list[Any]) -> int:
        self.supports.append(examples)
        return len(examples)

    def segment(self, image: Image.Image, class_name: str, **options: Any) -> SimpleNamespace:
        self.queries.append({"class_name": class_name, **options})
        ramp = np.linspace(0, 1, image.width, dtype=np.float32)
        row = ramp[::-1] if class_name == "left" else ramp
        return SimpleNamespace(probability=np.tile(row, (image.height, 1)))


@pytest.fixture(scope="module")
def app() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.syspath_prepend(str(Path(__file__).parents[1]))
        yield importlib.import_module("app")


@pytest.fixture
def model(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeModel]:
    fake = FakeModel()
    monkeypatch.setattr(app, "load_model", lambda: fake)
    app.first_result.cache_clear()
    yield fake
    app.first_result.cache_clear()


@pytest.fixture
def query_file(circle: tuple[Image.Image, np.ndarray], tmp_path: Path) -> str:
    path = tmp_path / "query.png"
    circle[0].save(path)
    return str(path)


def test_the_mask_is_where_the_brush_has_been(app, circle):
    photo, _ = circle
    strokes = Image.new("RGBA", photo.size)
    strokes.paste((0, 150, 255, 40), (10, 5, 30, 25))  # a translucent edge counts
    expected = np.zeros((60, 80), dtype=bool)
    expected[5:25, 10:30] = True
    mask = app.painted_mask({"background": photo, "layers": [strokes], "composite": None})
    np.testing.assert_array_equal(mask, expected)


def test_no_strokes_are_an_empty_mask(app, circle):
    assert not app.painted_mask({"background": circle[0], "layers": [], "composite": None}).any()


def test_a_mask_shown_in_the_editor_comes_back_exactly(app, circle):
    np.testing.assert_array_equal(app.painted_mask(app.editor_value(*circle)), circle[1])


def test_a_program_may_send_a_black_and_white_layer(app, circle):
    photo, mask = circle
    value = {"background": photo, "layers": [Image.fromarray(mask).convert("RGBA")], "composite": None}
    np.testing.assert_array_equal(app.painted_mask(value), mask)


def test_a_mask_of_the_photo_before_it_was_scaled_down_fits(app, circle, tmp_path, monkeypatch):
    monkeypatch.setattr(app, "MAX_SIDE", 128)
    photo_file, mask_file = tmp_path / "photo.png", tmp_path / "mask.png"
    mask = Image.fromarray(circle[1]).resize((401, 299), Image.Resampling.NEAREST)  # scaled down: 128 x 95.4, rounded
    circle[0].resize(mask.size).save(photo_file)
    mask.save(mask_file)
    editor = app.put_support_mask(app.put_support_photo(str(photo_file)), str(mask_file))
    expected = np.array(mask.resize((128, 95), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(app.painted_mask(editor), expected)


def test_a_mask_of_another_photo_is_refused_with_a_sentence(app, circle, tmp_path):
    path = tmp_path / "mask.png"
    Image.new("L", (60, 60), 255).save(path)
    with pytest.warns(UserWarning, match="The mask has other proportions"):
        app.put_support_mask(app.editor_value(circle[0]), str(path))
    with pytest.warns(UserWarning, match="Upload the support photo first"):
        app.put_support_mask(None, str(path))


def test_large_query_photos_are_scaled_down_for_the_page(app, model, tmp_path):
    path = tmp_path / "large.jpg"
    Image.new("RGB", (3000, 1500)).save(path)
    result, shown, _ = app.segment(None, "ball", "", str(path), "semantic", 0.5)
    assert result.probability.shape == (640, 1280)
    assert shown.size == (1280, 640)


def test_deep_gray_photos_keep_their_brightness(app, tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((6, 8), 128 * 257, np.uint16)).save(path)
    assert app.read_photo(str(path), "query photo").getpixel((0, 0)) == (128, 128, 128)


def test_unusable_photos_are_refused_with_a_sentence(app, tmp_path, monkeypatch):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.warns(UserWarning, match="The support photo cannot be read"):
        app.put_support_photo(str(broken))
    with pytest.warns(UserWarning, match="The query photo cannot be read"):
        assert app.check_query_photo({"path": str(broken)}) is None
    huge = tmp_path / "huge.png"
    Image.new("1", (1500, 1000)).save(huge)
    monkeypatch.setattr(app, "MAX_PIXELS", 1_000_000)
    with pytest.warns(UserWarning, match="The query photo has more than 1 megapixels"):
        assert app.check_query_photo({"path": str(huge)}) is None


def test_the_support_reaches_the_model(app, model, circle, query_file):
    result, shown, area = app.segment(app.editor_value(*circle), "ball", " round ", query_file, "both", 0.5)
    [[(photo, mask)]] = model.supports
    assert photo.size == (80, 60)
    np.testing.assert_array_equal(mask, circle[1])
    assert model.queries == [{"class_name": "ball", "support": 1, "description": "round", "mode": "both"}]
    assert result.probability.shape == (60, 80)
    assert shown.size == (80, 60)
    assert area == "50.0% of the photo"


def test_a_name_alone_needs_no_support(app, model, query_file):
    app.segment(None, "ball", "", query_file, "semantic", 0.5)
    assert model.supports == []
    assert model.queries == [{"class_name": "ball", "support": None, "description": None, "mode": "semantic"}]


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("class name", "Name the class"),
        ("query", "Add a query photo"),
        ("support", "Upload a support photo"),
        ("strokes", "Paint over the object"),
    ],
)
def test_what_is_missing_is_named(app, model, circle, query_file, missing, sentence):
    editor = {"support": None, "strokes": app.editor_value(circle[0])}.get(missing, app.editor_value(*circle))
    class_name = " " if missing == "class name" else "ball"
    with pytest.raises(gr.Error, match=sentence):
        app.segment(editor, class_name, "", None if missing == "query" else query_file, "both", 0.5)
    assert model.queries == []


def test_the_threshold_asks_the_model_for_nothing(app, model):
    result, _, area = app.open_page(0.5)
    asked = len(model.queries)
    assert area == "50.0% of the photo"
    shown, area = app.render(result, 0.75)
    assert area == "25.0% of the photo"
    np.testing.assert_array_equal(shown, overlay(result.photo, result.probability >= 0.75))
    assert len(model.queries) == asked


def test_a_threshold_without_a_result_draws_nothing(app):
    assert app.render(None, 0.5) == (None, "")


def test_the_area_is_worded(app):
    mask = np.zeros((10, 100), dtype=bool)
    assert app.area_text(mask) == "Nothing reaches the threshold; lower it."
    mask[0, :5] = True
    assert app.area_text(mask) == "0.5% of the photo"


def test_examples_are_complete(app):
    for example in app.EXAMPLES:
        editor, class_name, description, query_file = example.fields()
        assert app.painted_mask(editor).any()
        assert class_name
        assert description
        assert app.read_photo(query_file, "query photo").size == (480, 360)


def test_programs_find_the_events_by_name(app):
    assert set(app.demo.get_api_info()["named_endpoints"]) == {"/segment", "/threshold"}


def test_the_page_in_a_browser(app, model):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    app.launch(prevent_thread_lock=True, quiet=True)
    try:
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(90_000)
            page.goto(app.demo.local_url)

            first = _shown_image(page, "")
            _assert_looks_like(first, overlay(app.first_result().photo, app.first_result().probability >= 0.5))
            assert _field(page, "area").input_value() == "50.0% of the photo"

            source = page.locator("#overlay img").get_attribute("src")
            _field(page, "class-name").fill("left")
            page.locator("#segment").click()
            second = _shown_image(page, source)
            probability = app.first_result().probability[:, ::-1]
            _assert_looks_like(second, overlay(app.first_result().photo, probability >= 0.5))
            mask = app.painted_mask(app.EXAMPLES[0].fields()[0])
            np.testing.assert_array_equal(model.supports[-1][0][1], mask)  # through the browser's canvas and back

            asked = len(model.queries)
            source = page.locator("#overlay img").get_attribute("src")
            page.locator("#threshold input[type=number]").fill("0.75")
            _assert_looks_like(_shown_image(page, source), overlay(app.first_result().photo, probability >= 0.75))
            assert len(model.queries) == asked

            _field(page, "class-name").fill("")
            page.locator("#segment").click()
            page.get_by_text("Name the class, such as").wait_for()
            browser.close()
    finally:
        app.demo.close()


def _field(page: Any, elem_id: str) -> Any:
    return page.locator(f"#{elem_id} :is(input, textarea)")


def _shown_image(page: Any, before: str) -> Image.Image:
    """The overlay's picture, once it is another than `before`."""
    shown = page.locator(f"#overlay img:not([src='{before}'])")
    shown.wait_for()
    return Image.open(io.BytesIO(page.request.get(shown.evaluate("image => image.src")).body()))


def _assert_looks_like(image: Image.Image, expected: Image.Image) -> None:
    """Equal but for JPEG's losses."""
    assert image.size == expected.size
    difference = np.abs(np.asarray(image.convert("RGB"), dtype=int) - np.asarray(expected, dtype=int))
    assert difference.mean() < 4
