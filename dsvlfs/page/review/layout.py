"""The review page: labels one by one, those first where a correction gains most, and what a person says of each."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import InputError

try:
    import gradio as gr
except ImportError as error:
    raise InputError("The page needs Gradio; install it with: pip install 'dsvlfs[demo]'") from error

from ...labelling.photos_source import Photos
from ...labelling.record import Record
from ...labelling.request import Request
from ..answers import Page
from ..editor import MarksEditor
from ..serving import end_well, launch_page
from ..store import page_store
from ..style import NAME_PARTS, keep_to_itself, painting
from ..visits import quick_turn
from .desk import FILTERS, Desk
from .events import LOOK, TOOLS, Events, Sitting
from .relabelling import Relabelling

KEYS = {
    "a": "accept",
    "r": "reject",
    "s": "support-too",
    "e": "empty",
    "u": "undo",
    "n": "next",
    "ArrowRight": "next",
    "p": "previous",
    "ArrowLeft": "previous",
    "+": "more",
    "=": "more",
    "-": "less",
    "l": "again",
}
"""Keys, and the buttons that they press; v, b, c and x choose a tool, 1 to 9 a class."""

LISTEN = """
() => {
    const keys = %s;
    const press = (selector) => document.querySelector(selector)?.click();
    document.addEventListener("keydown", (event) => {
        const at = event.target;
        const types = at.matches("textarea, select, [contenteditable]") ||
            (at.matches("input") && !["radio", "range", "checkbox"].includes(at.type));
        if (event.ctrlKey || event.metaKey || event.altKey || types) return;
        const button = keys[event.key], tool = "vbcx".indexOf(event.key), number = "123456789".indexOf(event.key);
        if (button) press(`button#${button}`);
        else if (tool >= 0) press(`#tools label:nth-of-type(${tool + 1}) input`);
        else if (number >= 0) press(`#class-drawn label:nth-of-type(${number + 1}) input`);
        else return;
        event.preventDefault();
        event.stopImmediatePropagation();  // the editor has keys of its own
    }, true);
    // The editor tells of what it is shown as of a stroke, three times each, and sends its pictures along.
    document.addEventListener("pointerup", (event) => {
        if (event.target.closest("#support")) setTimeout(() => press("button#keep"), 250);
    }, true);
    (%s)();
}
"""

CSS = """
.gradio-container { max-width: 1360px !important; }
#clickable img { cursor: crosshair; }
.tight { gap: 6px; }
"""


def build_page(desk: Desk, again: Relabelling) -> gr.Blocks:
    """Lays out the page.

    Args:
        desk: what is reviewed.
        again: labels the rest.
    """
    keep_to_itself()
    events, store = Events(desk, again), page_store()
    small = {"size": "sm", "min_width": 0}
    with Page(store=store, quick=quick_turn, title="dsvlfs review") as page:
        sitting, token = gr.State(Sitting()), gr.Textbox(visible="hidden")
        with gr.Row():
            with gr.Column(scale=3, min_width=420):
                caption = gr.Textbox(label="Label", interactive=False, elem_id="caption")
                editor = MarksEditor(
                    label="Mask",
                    canvas_size=desk.canvas,
                    visible=False,
                    height=560,
                    **painting(),
                )
                clickable = gr.Image(
                    label="Mask",
                    format="jpeg",
                    interactive=False,
                    buttons=[],
                    height=560,
                    elem_id="clickable",
                )
            with gr.Column(scale=2, min_width=320):
                progress = gr.Textbox(label="Progress", interactive=False, lines=2, elem_id="progress")
                which = gr.Radio(list(FILTERS), value="To look at", label="Show", elem_id="which")
                with gr.Row(elem_classes="tight"):
                    accept = gr.Button("Accept (A)", variant="primary", elem_id="accept", **small)
                    reject = gr.Button("Reject (R)", elem_id="reject", **small)
                    empty = gr.Button("Nothing here (E)", elem_id="empty", **small)
                with gr.Row(elem_classes="tight"):
                    support = gr.Button("Accept, use as support (S)", elem_id="support-too", **small)
                    undo = gr.Button("Undo (U)", elem_id="undo", **small)
                with gr.Row(elem_classes="tight"):
                    previous = gr.Button("Previous (←)", elem_id="previous", **small)
                    following = gr.Button("Next (→)", elem_id="next", **small)
                drawn = gr.Radio(
                    [(name, number) for number, name in enumerate(desk.class_names, 1)],
                    value=1,
                    label="Class that is drawn (1 to 9)",
                    visible=len(desk.class_names) > 1,
                    elem_id="class-drawn",
                )
                tools = gr.Radio(
                    list(TOOLS), value=LOOK, label="Correct with (V, B, C, X)", info=TOOLS[LOOK], elem_id="tools"
                )
                threshold = gr.Slider(0.05, 0.95, 0.5, step=0.05, label="Threshold (+, -)", elem_id="threshold")
                with gr.Row(elem_classes="tight"):
                    less = gr.Button("Threshold - 0.05", elem_id="less", **small)
                    more = gr.Button("Threshold + 0.05", elem_id="more", **small)
                label_rest = gr.Button("Label the rest again (L)", elem_id="again", **small)
        strip = gr.Gallery(
            label="Next",
            columns=12,
            height=150,
            allow_preview=False,
            interactive=False,
            buttons=[],
            format="jpeg",
            elem_id="strip",
        )
        keep = gr.Button("Keep", visible="hidden", elem_id="keep")
        timer = gr.Timer(2.0, active=False)

        shown = [sitting, token, editor, clickable, caption, strip, drawn, tools, threshold, progress]
        judged = [sitting, token]
        one_by_one = {"concurrency_id": "review", "concurrency_limit": 1, "api_visibility": "private"}
        # Gradio drops a click while it is still drawing what the one before has changed.
        event = {**one_by_one, "show_progress": "hidden", "trigger_mode": "multiple"}
        page.load(events.open, [sitting, which], shown, **event)
        which.input(events.open, [sitting, which], shown, **event)
        for button, word in (
            (accept, events.accept),
            (support, events.support),
            (reject, events.reject),
            (empty, events.empty),
        ):
            button.click(word, judged, shown, **event)
        undo.click(events.undo, sitting, shown, **event)
        previous.click(partial(events.go, steps=-1), sitting, shown, **event)
        following.click(partial(events.go, steps=1), sitting, shown, **event)
        strip.select(events.choose, sitting, shown, **event)
        drawn.input(events.choose_class, [sitting, drawn], shown, **event)
        tools.input(events.choose_tool, [sitting, tools], shown, **event)
        keep.click(
            events.stroke, [*judged, editor], [sitting, caption, progress], **{**event, "trigger_mode": "always_last"}
        )
        clickable.select(events.click, sitting, shown, **event)
        threshold.release(events.threshold, [sitting, threshold], shown, **event)
        for button, step in ((less, -0.05), (more, 0.05)):
            button.click(partial(_stepped, step), threshold, threshold, **event).then(
                events.threshold, [sitting, threshold], shown, **event
            )
        label_rest.click(events.label_rest, sitting, [sitting, progress, timer], **event)
        timer.tick(events.watch, sitting, [sitting, timer, *shown[1:]], **event)
    store.keep()
    return page.queue(max_size=64)


def _stepped(step: float, threshold: float) -> float:
    return round(min(0.95, max(0.05, threshold + step)), 2)


def serve(out: Path, photos: Photos, place: str, request: Request, again: Relabelling, **options: Any) -> None:
    """Serves the page until it is stopped.

    Args:
        out: folder of the labels.
        photos: that were labelled.
        place: where they are.
        request: that they were labelled with.
        again: labels the rest.
        options: of `gr.Blocks.launch`.

    Raises:
        InputError: there are no labels, or they were made with other settings.
    """
    record = Record(out, {**request.settings(), "photos": photos.kind}, place)
    with record.joined():
        if not record.labels:
            raise InputError(f"There are no labels in {out} yet; run dsvlfs label first.")
        end_well(page_store())
        page = build_page(Desk(record, photos, request), again)
        launch_page(page, page_store(), CSS, js=LISTEN % (json.dumps(KEYS), NAME_PARTS.strip()), **options)
