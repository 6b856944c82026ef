"""Whatever is sent to the page, the answer is a result or one sentence."""

import asyncio
import io
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import numpy as np
import pytest
from gradio.exceptions import Error
from gradio.state_holder import SessionState
from hypothesis import strategies as st
from page_browser import FakeModel, field, fill_box
from PIL import Image
from properties import property_test

from dsvlfs.errors import LONGEST
from dsvlfs.page import answers, editor, visits

NUMBERS = st.one_of(
    st.integers(-(10**40), 10**40),
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e40, -0.0, 10**400, True]),
    st.floats(0, 80),
)
VALUES = st.recursive(
    st.one_of(st.none(), NUMBERS, st.text(), st.sampled_from(["\ud800", "<SEM_prompt>", "[UNK]", "<b>", "x" * 3000])),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)
POINTS = st.one_of(VALUES, st.lists(st.lists(NUMBERS, min_size=2, max_size=2), max_size=4))
FILES = st.one_of(
    VALUES,
    st.fixed_dictionaries({"path": st.one_of(VALUES, st.sampled_from(["/etc/passwd", "http://a/b", "..", "\0"]))}),
)


@pytest.fixture
def uploaded(app: ModuleType, circle: tuple[Image.Image, np.ndarray]) -> Callable[[str, Any], dict[str, Any]]:
    """Puts a file where uploads are, and says so as a client does."""

    def upload(name: str, content: Image.Image | bytes | None) -> dict[str, Any]:
        file = app.page_store().uploads / f"folder of {name}"[:100] / name
        file.parent.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif content is not None:
            content.save(file, "PNG")
        return {"path": str(file), "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    return upload


@pytest.fixture
def call(app: ModuleType, model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Calls an event as gradio does: what it answers, or the sentence that it refuses with."""
    monkeypatch.setattr(
        app.events.engine, "mask_at_points", lambda model, photo, on, beside: fill_box(model, photo, (1, 2, 9, 9))
    )

    def call(name: str, *inputs: Any) -> tuple[bool, Any]:
        function = next(fn for fn in app.demo.fns.values() if fn.api_name == name)
        request = SimpleNamespace(client=SimpleNamespace(host="here"))
        try:
            answer = asyncio.run(
                app.demo.process_api(function, list(inputs), SessionState(app.demo), request, session_hash="me")
            )
        except Error as error:
            return False, error.message
        return True, answer["data"]

    yield call
    assert visits.MODEL_TURNS._under_way.total() == visits.QUICK_TURNS._under_way.total() == 0


@pytest.fixture
def odd(
    call: Callable[..., Any], uploaded: Callable[..., Any], circle: tuple[Image.Image, np.ndarray]
) -> dict[str, Any]:
    return {"call": call, "uploaded": uploaded, "circle": circle}


def assert_sentence(text: Any) -> None:
    """One line of a bounded length, and nothing of the page's insides."""
    assert isinstance(text, str)
    assert 10 < len(text) <= LONGEST
    assert "\n" not in text
    assert text.endswith((".", ". ", "null."))
    assert text != answers.OWN_FAULT
    assert "Traceback" not in text


@property_test(VALUES, POINTS, POINTS)
def test_any_marks_are_a_mask_or_a_sentence(box, on, beside, *, call, uploaded, circle):
    done, answer = call("mask", uploaded("photo.png", circle[0]), box, on, beside)
    if done:
        assert Image.open(answer[0]["path"]).size == circle[0].size
    else:
        assert_sentence(answer)


@property_test(VALUES, VALUES, VALUES, VALUES)
def test_any_words_and_numbers_are_a_result_or_a_sentence(
    name, description, prompts, threshold, *, call, uploaded, circle
):
    photo = uploaded("photo.png", circle[0])
    done, answer = call("segment", name, [photo], None, None, description, prompts, threshold)
    if not done:
        assert_sentence(answer)
    done, answer = call("segment", "ball", [photo], None, None, description, "semantic", 0.5)
    assert done or assert_sentence(answer) is None
    done, answer = call("describe", name)
    assert done or assert_sentence(answer) is None


@property_test(FILES, st.one_of(FILES, st.lists(FILES)), st.lists(FILES))
def test_any_files_are_refused_in_a_sentence(photo, queries, supports, *, call, uploaded, circle):
    for name, inputs in (
        ("mask", (photo, [1, 2, 30, 40], None, None)),
        ("segment", ("ball", queries, supports, supports, "", "both", 0.5)),
    ):
        done, answer = call(name, *inputs)
        assert not done
        assert_sentence(answer)
        assert "/tmp" not in answer


@property_test(
    st.binary(max_size=300), st.integers(0, 200), st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
)
def test_any_photo_is_a_mask_or_a_sentence(noise, place, kind, *, call, uploaded, circle):
    whole = io.BytesIO()
    circle[0].save(whole, kind)
    content = whole.getvalue()
    photo = uploaded("photo.png", content[:place] + noise + content[place + len(noise) :])
    done, answer = call("mask", photo, [0, 0, 10, 10], None, None)
    assert done or assert_sentence(answer) is None


@pytest.mark.parametrize(
    ("marks", "sentence"),
    [
        (([math.nan, 1, 2, 3], None, None), "Give the box as"),
        (([1e40, 1, 2, 3], None, None), "Give the box as"),
        (("box", None, None), "Give the box as"),
        ((None, [[math.inf, 1]], None), "Give points as"),
        ((None, [[None, 1]], None), "Give points as"),
        ((None, [[81, 1]], None), r"The point \[81, 1\] is outside the photo, which has 80 x 60 pixels"),
        ((None, [[1, 1]] * 101, None), "There are 101 points; give at most 100"),
    ],
)
def test_marks_that_cannot_be_are_named(call, uploaded, circle, marks, sentence):
    done, answer = call("mask", uploaded("photo.png", circle[0]), *marks)
    assert not done
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(answer)


def test_inputs_of_a_wrong_kind_are_named(call, uploaded, circle):
    photo = uploaded("photo.png", circle[0])
    right = {
        "name": "ball",
        "queries": [photo],
        "photos": None,
        "masks": None,
        "text": "",
        "prompts": "semantic",
        "t": 0.5,
    }
    for change, sentence in (
        ({"t": math.nan}, "“Threshold” is no number from 0 to 1; send one."),
        ({"t": "half"}, "“Threshold” is no number from 0 to 1; send one."),
        ({"t": None}, "The threshold is None; give a number from 0 to 1."),
        ({"name": 5}, "“Class name” is not text; send text."),
        ({"name": None}, "Name the class, such as “penguin”."),
        ({"text": "\ud800"}, "“Description” is not text; send text."),
        ({"prompts": "all"}, "“Prompts” is none of both, semantic, visual; send one of these."),
        ({"prompts": None}, "Give the prompts as “both”, “semantic” or “visual”."),
        (
            {"queries": [{**photo, "path": "https://example.org/a.png"}]},
            "“Query photos” holds an address; the page fetches nothing: send the photo itself.",
        ),
    ):
        assert call("segment", *{**right, **change}.values()) == (False, sentence)
    assert call("segment", *right.values())[0]
    assert call("segment", "ball") == (False, "1 inputs were sent; send 7.")


def test_words_that_a_prompt_must_not_hold_are_named_before_any_work(call, model, uploaded, circle):
    photo = uploaded("photo.png", circle[0])
    for name, text, sentence in (
        ("<SEM_prompt>", "", "The class name holds '<SEM_prompt>', a token reserved for the model; leave it out."),
        ("ball", "x " * 700, "The description is 700 tokens long to the language model"),
        ("ball", "x" * 2001, "The description has 2,001 characters"),
    ):
        done, answer = call("segment", name, [photo], [photo], [photo], text, "both", 0.5)
        assert not done
        assert answer.startswith(sentence)
    assert model.encoded == model.supports == []


def test_a_photo_that_has_been_swept_away_has_expired(app, call, uploaded, circle):
    photo, gone = uploaded("photo.png", circle[0]), uploaded("gone.png", None)
    expected = "“Query photos”: gone.png has expired, for the page keeps uploads an hour at most; add it again."
    assert call("segment", "ball", [photo, gone], None, None, "", "semantic", 0.5) == (False, expected)
    with pytest.warns(UserWarning, match="The query photo gone.png has expired"):
        assert app.events.check_queries([(photo["path"], None), (gone["path"], None)]) == [(photo["path"], None)]


def test_which_of_twelve_photos_cannot_be_read_is_said(call, model, uploaded, circle):
    photos = [uploaded(f"photo{number}.png", circle[0]) for number in range(12)]
    photos[7] = uploaded("seventh.png", b"no photo")
    done, answer = call("segment", "ball", photos, None, None, "", "semantic", 0.5)
    assert (done, answer[:45]) == (False, "The query photo seventh.png cannot be read; c")
    same = [uploaded("photo.png", circle[0])] * 11 + [{**uploaded("a", None), **_same_name(uploaded)}]
    done, answer = call("segment", "ball", same, None, None, "", "semantic", 0.5)
    assert (done, answer[:45]) == (False, "The query photo 12, photo.png, cannot be read")
    assert model.queries == []


def _same_name(uploaded: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Another upload of the name photo.png, damaged."""
    other = Path(uploaded("photo.png", None)["path"]).parents[1] / "another folder" / "photo.png"
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(b"no photo")
    return {"path": str(other)}


def test_a_large_photo_is_worked_on_in_a_bounded_size_and_its_mask_has_its_own(call, model, uploaded):
    done, answer = call(
        "mask", uploaded("large.png", Image.new("RGB", (4000, 2000))), [1000, 500, 3000, 1500], None, None
    )
    mask = np.asarray(Image.open(answer[0]["path"])) > 0
    assert mask.shape == (2000, 4000)
    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    np.testing.assert_allclose([columns[0], columns[-1], rows[0], rows[-1]], [1000, 3000, 500, 1500], atol=5)
    done, _ = call("segment", "ball", [uploaded("large.png", None)], None, None, "", "semantic", 0.5)
    assert done
    assert [photo.size for photo in model.encoded] == [(1280, 640)]


def test_faults_of_the_page_are_told_as_such_and_logged(app, call, uploaded, circle, monkeypatch, capsys):
    def broken(*given: Any) -> None:
        raise KeyError("/secret/path")

    monkeypatch.setattr(app.events.engine, "mask_in_box", broken)
    done, answer = call("mask", uploaded("photo.png", circle[0]), [1, 1, 9, 9], None, None)
    assert (done, answer) == (False, answers.OWN_FAULT)
    assert "/secret/path" in capsys.readouterr().err


def test_programs_get_the_sentence_over_the_network(address):
    for name, data, sentence in (
        ("mask", '[null, [NaN, 1e40, "a", null], null, null]', "Give the photo."),
        ("segment", '["<SEM_prompt>", [], [], [], null, "both", 0.5]', "The class name holds '<SEM_prompt>', a token"),
        ("segment", '["a", [], [], [], "", "both", Infinity]', "“Threshold” is no number from 0 to 1"),
        ("describe", "[null]", "Name the class first"),
        ("describe", '[{"a": NaN}]', "“Class name” is not text"),
    ):
        root = f"{address}gradio_api/call/{name}"
        headers = {"Content-Type": "application/json"}
        event = httpx.post(root, content=f'{{"data": {data}}}', headers=headers).json()["event_id"]
        lines = httpx.get(f"{root}/{event}", timeout=60).text.splitlines()
        assert lines[0] == "event: error"
        assert json.loads(lines[1].removeprefix("data: "))["error"].startswith(sentence)


def test_the_editor_takes_no_more_than_it_would_send(app, circle, monkeypatch):
    monkeypatch.setattr(editor, "MAX_KEPT", 2**20)
    component = next(block for block in app.demo.blocks.values() if isinstance(block, gr.ImageEditor))
    assert not Path(editor.__file__).with_suffix(".pyi").exists()  # gradio would write it

    def send(kind: str, index: Any, content: bytes, key: str = "key") -> None:
        data = SimpleNamespace(data={"type": kind, "index": index, "id": key}, files=[("a.png", content)])
        component.accept_blobs(data)

    file = app.page_store().work / "layer.png"
    Image.new("RGBA", circle[0].size, (1, 2, 3, 255)).save(file)
    for index in ("1000000000", "-1", "null-ish"):
        send("layer", index, b"x")
    assert not editor._KEPT
    send("background", None, file.read_bytes())
    send("layer", "0", file.read_bytes())
    value = component.preprocess(component.data_model(id="key"))
    assert (value["background"].size, [layer.mode for layer in value["layers"]]) == (circle[0].size, ["RGBA"])
    assert not editor._KEPT
    for content, sentence in ((b"no image", "cannot be read"), (_large_png(file), "5000 x 5000 pixels came")):
        send("layer", "0", content)
        with pytest.raises(ValueError, match=sentence):
            component.preprocess(component.data_model(id="key"))
    for number in range(editor.MAX_KEPT // editor.LEAST_KEPT + 5):
        send("layer", "0", b"x", str(number))
    assert len(editor._KEPT) == editor.MAX_KEPT // editor.LEAST_KEPT
    assert "0" not in editor._KEPT
    editor._KEPT.clear()
    file.unlink()


def _large_png(file: Path) -> bytes:
    Image.new("1", (5000, 5000)).save(file)
    return file.read_bytes()


def test_nobody_is_told_of_the_start(app):
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert app.demo.analytics_enabled is False


def test_markup_in_a_name_is_shown_and_not_obeyed(model, visit):
    page = visit()
    name = "<SEM_prompt> <img src=x onerror=\"document.title='taken'\"> & so on"
    field(page, "class-name").fill(name)
    page.locator("#segment").click()
    message = page.locator(".toast-body").get_by_text(
        "The class name holds '<SEM_prompt>', a token reserved for the model"
    )
    message.wait_for()
    page.get_by_test_id("toast-close").click()
    field(page, "class-name").fill("<b>" * 100)
    page.locator("#describe").click()
    page.locator(".toast-body").get_by_text("300 characters").wait_for()
    assert page.title() != "taken"
