"""The web page for people who do not see it, who have no mouse, or who hold a phone."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from page_browser import assert_looks_like, field, ramp, shown_image, shown_source, tab_to
from PIL import Image

from dsvlfs.inference.pictures import overlay

# What a person operates, and what holds several of those, as the accessibility tree calls it.
NAMED_ROLES = {
    "button", "checkbox", "combobox", "group", "link", "listbox", "menuitem", "option", "radio", "radiogroup",
    "searchbox", "slider", "spinbutton", "switch", "tab", "textbox",
}  # fmt: skip

# Controls within controls, inside gradio's own components, where the page cannot take them apart; and why they do.
NESTED_IN_GRADIO = {
    "#query button[aria-label='Click to Upload']": "an icon around the button that opens the files",
    "#overlay a.download-link": "a link around a button that looks the same",
    ".toast-header": "the bar that folds a message, around its closing button",
}

CONTROLS = "button, input, textarea, select, a[href], [role=button], [tabindex='0']"


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Two, of which one is tall."""
    files = []
    for number, size in enumerate([(300, 500), (640, 400)]):
        files.append(str(tmp_path / f"own{number}.png"))
        Image.new("RGB", size, "tan").save(files[-1])
    return files


def test_the_page_has_a_language_a_title_and_one_first_heading(visit):
    page = visit()
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.title().startswith("DSV-LFS")
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(h => +h.tagName[1])")
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.locator("h1").inner_text() == "Few-shot segmentation"
    assert page.get_by_role("main").count() == 1
    assert page.get_by_role("main").locator("#segment, #overlay, #support, #query").count() == 4


@pytest.mark.parametrize("width", [1280, 390])
def test_all_that_is_shown_has_a_name_and_fits_the_screen(visit, photos, width):
    page = visit(width)
    for state in _states(page, photos):
        assert _nameless(page) == [], state
        assert _silent_pictures(page) == [], state
        assert _nested(page) == [], state
        assert _wide(page) == [], state


def test_names_say_what_a_part_is(visit, photos):
    page = visit()
    role = page.get_by_role
    for name in ("Mark the object", "Prompts", "Show"):
        assert role("group", name=name, exact=True).get_by_role("radio").count() >= 3
    for name in ("3. Result", "By the name alone", "By the support alone"):
        assert role("button", name=name, exact=True).get_by_alt_text(name).is_visible()
    assert role("img", name="1. Support", exact=True).count() > 0
    for name in ("Class name", "Description (optional)"):
        assert role("textbox", name=name, exact=True).is_editable()
    for name in ("Threshold", "Opacity"):
        assert role("slider", name=name).is_visible()
    *_, last = _states(page, photos)
    assert last == "several results"
    for name in ("penguin_query.jpg", "own0.png", "own1.png"):
        assert page.locator("#strip").get_by_role("button", name=name).is_visible()


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_tab_and_keys_name_the_class_segment_and_move_the_threshold(app, model, visit, key):
    page = visit()
    photo = app.events.engine.decode_preview(app.events.first_results()[0].preview)
    tab_to(page, "#class-name :is(input, textarea)")
    page.keyboard.press("Control+A")
    page.keyboard.type("left")
    asked, before = len(model.queries), shown_source(page)
    tab_to(page, "#segment")
    page.keyboard.press(key)
    assert_looks_like(shown_image(page, before), overlay(photo, ramp(photo.size, "left") >= 0.5))
    assert [query["class_name"] for query in model.queries[asked:]] == ["left"]

    slider = page.locator("#threshold input[type=range]")
    tab_to(page, "#threshold input[type=range]")
    for arrow, step in (("ArrowRight", 0.05), ("ArrowLeft", -0.05), ("ArrowLeft", -0.05)):
        before, threshold = shown_source(page), float(slider.input_value())
        page.keyboard.press(arrow)
        assert float(slider.input_value()) == pytest.approx(threshold + step)
        expected = overlay(photo, ramp(photo.size, "left") >= threshold + step)
        assert_looks_like(shown_image(page, before), expected)
    assert len(model.queries) == asked + 1


def _states(page: Any, photos: list[str]) -> Iterator[str]:
    """Brings the page to where parts of it show that did not before, and says where."""
    yield "first example"
    for tool, part in (("Brush Size", "input[type=range]"), ("Color", "button.color")):
        page.locator(f"#support button[aria-label='{tool}']").click()
        page.locator(f"#support {part}").first.wait_for()
        yield tool
    with page.expect_file_chooser() as chooser:
        page.locator("#support-photo").click()
    chooser.value.set_files(photos)
    page.locator("#which").get_by_label("2").wait_for()
    page.locator("#tools").get_by_label("Box").check()
    page.locator("#clickable img").wait_for()
    yield "two supports and a box"
    page.locator("#segment").click()
    page.get_by_text("Paint over the object in").wait_for()
    yield "message"
    page.get_by_test_id("toast-close").click()
    page.get_by_test_id("toast-close").wait_for(state="detached")
    page.locator("#query input[type=file]").first.set_input_files(photos)
    page.locator("#query img").nth(2).wait_for()
    page.locator("#mode").get_by_label("Name").check()
    field(page, "class-name").fill("ball")
    page.locator("#segment").click()
    page.locator("#strip img").nth(2).wait_for()
    page.locator("#add-class").click()
    page.get_by_role("radio", name="Class 2").wait_for()
    field(page, "class-name").fill("a second class with a name that is long enough to be cut")
    page.locator("#segment").click()
    page.locator("#legend li").nth(1).wait_for()
    yield "two classes"
    page.locator("#remove-class").click()
    page.locator("#which-class").wait_for(state="detached")
    page.locator("#segment").click()
    page.locator("#legend").wait_for(state="detached")
    yield "several results"


def _nameless(page: Any) -> list[str]:
    """Roles of what should have a name in the accessibility tree, and has none."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    shown = [node for node in tree if not node["ignored"] and node["role"]["value"] in NAMED_ROLES]
    assert {"button", "group", "radio", "slider", "textbox"} <= {node["role"]["value"] for node in shown}
    return [node["role"]["value"] for node in shown if not node.get("name", {}).get("value", "").strip()]


def _silent_pictures(page: Any) -> list[str]:
    """Pictures and canvases with no text of their own, nor from a named button around them."""
    return page.evaluate(
        """[...document.querySelectorAll('img, canvas')].filter((part) => part.checkVisibility()
            && !(part.alt || part.ariaLabel || part.closest('button[aria-label]'))).map((part) => part.outerHTML)"""
    )


def _nested(page: Any) -> list[str]:
    """Controls around others, but for gradio's own."""
    return page.evaluate(
        """([controls, known]) => [...document.querySelectorAll(controls)].filter((part) => part.checkVisibility()
            && !part.matches(known) && [...part.querySelectorAll(controls)].some((inner) => inner.checkVisibility())
        ).map((part) => part.outerHTML)""",
        [CONTROLS, ", ".join(NESTED_IN_GRADIO)],
    )


def _wide(page: Any) -> list[str]:
    """What lies beyond the screen's sides, once nothing moves."""
    page.wait_for_function("document.getAnimations().every((a) => a.playState != 'running')")
    return page.evaluate(
        """() => [...document.querySelectorAll('html, body *')].filter((part) => {
            const { left, right } = part.getBoundingClientRect();
            return part.checkVisibility() && (left < -1 || right > innerWidth + 1 || part.scrollWidth > innerWidth);
        }).map((part) => part.outerHTML.slice(0, 200))"""
    )
