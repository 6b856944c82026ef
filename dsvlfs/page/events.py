"""What the page's events call: a person's input in, updates of the page out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import gradio as gr

from .. import InputError
from . import engine, several
from .examples import EXAMPLES
from .several import AnyResult
from .supports import Draft, EditorValue, clickable, editor_value, marked, painted_mask
from .turns import BusyError
from .uploads import (
    MAX_SUPPORTS,
    PREVIEW_SIDE,
    SUPPORT_SIDE,
    read_mask,
    read_photo,
    titles,
)
from .visits import MODEL_TURNS, QUICK_TURNS, errors_on_page, warn, written_files

BRUSH, BOX, ON, BESIDE = "Brush", "Box", "Point on it", "Point beside it"
TOOLS = {
    BRUSH: "Paint over the object.",
    BOX: "Click two opposite corners of a box around the object.",
    ON: "Click on the object, as often as it takes.",
    BESIDE: "Click on what does not belong to the object.",
}

GalleryValue = list[tuple[str, str | None]]
Update = dict[str, Any]


# Marking the supports --------------------------------------------------------------------------------------------


def first_drafts() -> list[Draft]:
    """What a visitor finds: the first example's support."""
    return [EXAMPLES[0].draft()]


def known(drafts: Sequence[Draft] | None, current: int) -> list[Draft]:
    """A visitor's drafts, or a message where they were given up because the page was idle."""
    if drafts is None or current > max(0, len(drafts) - 1):
        raise gr.Error("The page was idle too long and has lost its photos; reload it.", print_exception=False)
    return list(drafts)


def keep_strokes(drafts: Sequence[Draft] | None, current: int, tool: str, editor: EditorValue | None) -> list[Draft]:
    """The drafts, with what the brush has painted since."""
    drafts = known(drafts, current)
    if tool == BRUSH and drafts and editor is not None and editor["background"] is not None:
        drafts[current] = drafts[current].with_mask(painted_mask(editor, drafts[current].photo.size))
    return drafts


def show_draft(drafts: Sequence[Draft], current: int, tool: str) -> tuple[Update, Update, Update]:
    """Updates of the choice of the support photo, the editor and the clickable photo."""
    draft = drafts[current] if drafts else None
    clicking = draft is not None and tool != BRUSH
    return (
        gr.update(choices=[(str(i + 1), i) for i in range(len(drafts))], value=current, visible=len(drafts) > 1),
        gr.update(value=editor_value(draft) if draft else None, visible=not clicking),
        gr.update(value=clickable(draft) if clicking else None, visible=clicking),
    )


def choose_support(
    drafts: list[Draft], current: int, tool: str, editor: EditorValue | None, chosen: int
) -> tuple[list[Draft], int, Update, Update, Update]:
    """Goes to another support photo."""
    drafts = keep_strokes(drafts, current, tool, editor)
    return drafts, chosen, *show_draft(drafts, chosen, tool)


def choose_tool(
    drafts: list[Draft], current: int, tool: str, editor: EditorValue | None, chosen: str
) -> tuple[list[Draft], str, Update, Update, Update, Update]:
    """Goes to another way of marking."""
    drafts = keep_strokes(drafts, current, tool, editor)
    return drafts, chosen, *show_draft(drafts, current, chosen), gr.update(info=TOOLS[chosen])


def add_photos(
    drafts: list[Draft], current: int, tool: str, editor: EditorValue | None, class_name: str, description: str,
    paths: list[str],
) -> tuple[list[Draft], int, Update, Update, Update, str, str]:  # fmt: skip
    """Adds support photos; the first ones of a person's own take the place of the example and its words."""
    kept = [draft for draft in keep_strokes(drafts, current, tool, editor) if not draft.example]
    own = bool(kept)
    try:
        if len(kept) + len(paths) > MAX_SUPPORTS:
            raise InputError(f"There can be {MAX_SUPPORTS} support photos at most; remove one first.")
        added = []
        with QUICK_TURNS.visit() as visit:
            for path, kind in zip(paths, titles("support photo", paths)):
                with visit.turn():
                    added.append(Draft.of(read_photo(path, kind, SUPPORT_SIDE)))
    except (InputError, BusyError) as error:
        warn(str(error))
        return (gr.skip(),) * 7
    words = (class_name, description) if own else ("", "")
    return kept + added, len(kept), *show_draft(kept + added, len(kept), tool), *words


def add_mask(drafts: list[Draft], current: int, tool: str, path: str) -> tuple[list[Draft], Update, Update, Update]:
    """Takes an uploaded mask for the support photo that is shown."""
    try:
        if not drafts:
            raise InputError("Add the support photo first, then its mask.")
        drafts = known(drafts, current)
        with QUICK_TURNS.visit() as visit, visit.turn():
            drafts[current] = drafts[current].with_mask(read_mask(path, drafts[current].photo))
    except (InputError, BusyError) as error:
        warn(str(error))
        return (gr.skip(),) * 4
    return drafts, *show_draft(drafts, current, tool)


def remove_support(
    drafts: list[Draft], current: int, tool: str, editor: EditorValue | None
) -> tuple[list[Draft], int, Update, Update, Update]:
    """Takes the support photo that is shown away."""
    drafts = keep_strokes(drafts, current, tool, editor)
    del drafts[current : current + 1]
    current = max(0, min(current, len(drafts) - 1))
    return drafts, current, *show_draft(drafts, current, tool)


def clear_marks(drafts: list[Draft], current: int, tool: str) -> tuple[list[Draft], Update, Update, Update]:
    """Takes the mask and the clicks of the support photo that is shown away."""
    drafts = known(drafts, current)
    if drafts:
        drafts[current] = Draft.of(drafts[current].photo)
    return drafts, *show_draft(drafts, current, tool)


def note_click(drafts: list[Draft], current: int, tool: str, click: gr.SelectData) -> tuple[list[Draft], Any]:
    """Draws a click at once; `follow_clicks` makes a mask of it."""
    drafts, point = known(drafts, current), (round(click.index[0]), round(click.index[1]))
    draft = drafts[current]
    if tool == BOX:
        corners = (*draft.corners, point) if len(draft.corners) == 1 else (point,)
        draft = replace(draft, corners=corners, inside=(), beside=())
    elif tool == ON:
        draft = replace(draft, corners=(), inside=(*draft.inside, point)[-engine.MAX_POINTS :])
    else:
        draft = replace(draft, corners=(), beside=(*draft.beside, point)[-engine.MAX_POINTS :])
    drafts[current] = draft
    return drafts, clickable(draft)


def follow_clicks(drafts: list[Draft], current: int) -> tuple[list[Draft], Any]:
    """Makes a mask of a whole box, or of points."""
    draft = known(drafts, current)[current]
    if len(draft.corners) < 2 and not draft.inside:  # half a box, or nothing on the object yet
        return gr.skip(), gr.skip()
    with errors_on_page(), MODEL_TURNS.visit() as visit:
        if len(draft.corners) == 2:
            (left, top), (right, bottom) = draft.corners
            mask = engine.mask_of_box(draft.photo, (left, top, right, bottom), visit.turn)
        else:
            mask = engine.mask_of_points(draft.photo, draft.inside, draft.beside, visit.turn)
    if not mask.any():
        warn("No object was found there; mark it otherwise, or paint it.")
    drafts = list(drafts)
    drafts[current] = replace(draft, mask=mask)
    return drafts, clickable(drafts[current])


# The class and the query photos ----------------------------------------------------------------------------------


def describe(class_name: str) -> str:
    """Says what a class looks like, from a bank or by a small language model; read it before you use it.

    Args:
        class_name: the class, such as "red fox".
    """
    with errors_on_page(), MODEL_TURNS.visit() as visit:
        return engine.describe(class_name or "", visit.turn)


def check_queries(gallery: GalleryValue | None) -> GalleryValue | Update | None:
    """Takes photos that cannot be used out of the gallery again."""
    usable = []
    kinds = titles("query photo", [path for path, _ in gallery or []])
    with errors_on_page(), QUICK_TURNS.visit() as visit:
        for (path, caption), kind in zip(gallery or [], kinds):
            try:
                with visit.turn():
                    read_photo(path, kind, PREVIEW_SIDE)
                usable.append((path, caption))
            except InputError as error:
                warn(str(error))
    return gr.skip() if len(usable) == len(gallery or []) else usable or None


# Results ---------------------------------------------------------------------------------------------------------


def show_results(results: Sequence[AnyResult], threshold: float) -> tuple[Sequence[AnyResult], int, Update, Any, Any]:
    """The results for the sliders, the first one chosen, the strip of all, and the first one's prompts; `redraw`
    follows, with the sliders as they are by then."""
    strip = [(several.thumbnail(result, threshold), result.name) for result in results] if len(results) > 1 else None
    return (
        results,
        0,
        gr.update(value=strip, visible=len(results) > 1, selected_index=0 if strip else None),
        *_shown_prompts(results[0]),
    )


@cache
def first_results() -> tuple[AnyResult, ...]:
    """The first example's, the same for every visitor."""
    example = EXAMPLES[0]
    pairs = marked([example.draft()])
    return tuple(engine.predict(pairs, example.class_name, example.description, [str(example.query_file)], "both"))


def open_page(threshold: float) -> tuple[Any, ...]:
    """What a visitor finds: the first example, already segmented."""
    with errors_on_page(), MODEL_TURNS.visit() as visit, visit.turn():
        return show_results(first_results(), threshold)


def choose_result(
    results: Sequence[AnyResult] | None, view: str, threshold: float, opacity: float, click: gr.SelectData
) -> tuple[Any, ...]:
    """Shows another query photo's result."""
    if not results:
        raise gr.Error("The page was idle too long and has lost its results; reload it.", print_exception=False)
    result = results[click.index]
    return click.index, *_drawn(result, view, threshold, opacity), *_shown_prompts(result)


def redraw(
    results: Sequence[AnyResult] | None, chosen: int, view: str, threshold: float, opacity: float
) -> tuple[Any, str, Update]:
    """Draws the result that is shown again; the model is not asked."""
    return _drawn(results[chosen], view, threshold, opacity) if results else (None, "", gr.update(visible=False))


def _drawn(result: AnyResult, view: str, threshold: float, opacity: float) -> tuple[Any, str, Update]:
    picture, words, legend = several.draw(result, view, threshold, opacity)
    return picture, words, gr.update(value=legend, visible=bool(legend))


def _shown_prompts(result: AnyResult) -> tuple[Update, Update]:
    """What each prompt alone makes of the photo; of several classes it is not asked."""
    by_name, by_support = (
        gr.update(value=picture, visible=isinstance(result, engine.Result)) for picture in several.draw_prompts(result)
    )
    return by_name, by_support


def save_masks(results: Sequence[AnyResult] | None, threshold: float) -> Iterator[str]:
    """The masks, in the photos' own size."""
    if not results:
        raise gr.Error("There is no result yet; press “Segment” first.", print_exception=False)
    with written_files() as folder:
        with QUICK_TURNS.visit() as visit:
            files = several.write_masks(results, threshold, folder, visit.turn)
            packed = engine.pack(files, folder / "masks.zip")
        yield str(packed)


def save_coco(results: Sequence[AnyResult] | None, threshold: float) -> Iterator[str]:
    """All masks as a COCO JSON."""
    if not results:
        raise gr.Error("There is no result yet; press “Segment” first.", print_exception=False)
    with written_files() as folder:
        with QUICK_TURNS.visit() as visit:
            file = several.write_coco(results, threshold, folder / "annotations.json", visit.turn)
        yield str(file)
