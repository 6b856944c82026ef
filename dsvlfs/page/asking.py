"""What “Segment” does: the classes as the page's fields have them, looked for in the query photos."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from . import several
from .class_events import Classes, all_classes, asked_classes, show_list
from .events import GalleryValue, keep_strokes, show_results
from .supports import Draft, EditorValue
from .visits import MODEL_TURNS, errors_on_page


def segment(
    classes: Classes | None, place: int, drafts: list[Draft], current: int, tool: str, editor: EditorValue | None,
    class_name: str, description: str, gallery: GalleryValue | None, mode: str, threshold: float,
    progress: gr.Progress = gr.Progress(),  # noqa: B008 (gradio looks for it there)
) -> tuple[Any, ...]:  # fmt: skip
    """Segments the classes in the query photos."""
    drafts = keep_strokes(drafts, current, tool, editor)
    found = all_classes(classes, place, drafts, class_name, description)
    share = 0.0

    def report(done: float, text: str) -> None:
        nonlocal share
        share = done
        progress(done, desc=text)

    def waiting(ahead: int) -> None:
        progress(share, desc=f"Waiting for others ({ahead})")

    with errors_on_page(), MODEL_TURNS.visit() as visit:
        turn = partial(visit.turn, waiting)
        files = [path for path, _ in gallery or []]
        results = several.predict(asked_classes(found, mode), files, mode, report, turn)
        with turn():
            return found, drafts, *show_list(found, place), *show_results(results, threshold)
