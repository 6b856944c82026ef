"""What the review page's events call: a person's word in, the next label out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import numpy as np

from ... import BaseNotAvailableError, InputError
from ...errors import WriteError
from ...inference.pictures import overlay
from ...labelling.names import shown
from ...labelling.record import Label, Verdict
from ..supports import EditorValue
from ..visits import warn
from .desk import FILTERS, Desk, Look
from .drawing import editor_content, is_shown, painted, small_mask, strokes_in, with_class, with_others, without_part
from .relabelling import Relabelling

LOOK, BRUSH, ADD, REMOVE = "Look", "Brush", "Add by a click", "Remove by a click"
TOOLS = {
    LOOK: "The mask as it is; the editor of the brush takes longer to come.",
    BRUSH: "Paint over the class, or erase.",
    ADD: "Click on an object of the class that was missed.",
    REMOVE: "Click on a part of the mask that is wrong.",
}
STRIP = 12
"""Thumbnails at a time."""
REMEMBERED = 4
"""Labels that a late stroke may be of."""

Update = Any


@dataclass
class Sitting:
    """Where a person is; every word of theirs is written down already.

    Args:
        order: names of the photos to go through.
        place: in it.
        which: of `FILTERS`.
        number: of the class that is drawn.
        tool: of `TOOLS`.
        look: the label that is shown; None where there is none.
        said: names of the photos that were judged, the last one at the end.
        times: that something was shown.
        seen: what was shown last, and the class that was drawn on it, by token.
    """

    order: list[str] = field(default_factory=list)
    place: int = 0
    which: str = "To look at"
    number: int = 1
    tool: str = LOOK
    look: Look | None = None
    said: list[str] = field(default_factory=list)
    times: int = 0
    seen: dict[str, tuple[Look, int]] = field(default_factory=dict)

    @property
    def token(self) -> str:
        """What the page sends with each word: of which showing it is. A key that is pressed twice says nothing of the
        label that comes next."""
        return str(self.times)


class Events:
    """The events of a page.

    Args:
        desk: what is reviewed.
        again: makes the rest again.
    """

    def __init__(self, desk: Desk, again: Relabelling) -> None:
        self.desk, self.again = desk, again

    # Each of these gives: the sitting, and the updates of `shown`.

    def open(self, sitting: Sitting, which: str) -> Any:
        """Begins with the labels of a filter."""
        sitting.which, sitting.order, sitting.place = which, self.desk.order(which), 0
        return self._show(sitting)

    def accept(self, sitting: Sitting, token: str) -> Any:
        """The mask is right, as it is now."""
        return self._judge(sitting, token, "accepted")

    def support(self, sitting: Sitting, token: str) -> Any:
        """It is right, and the photo is a further support."""
        return self._judge(sitting, token, "accepted", is_support=True)

    def reject(self, sitting: Sitting, token: str) -> Any:
        """The mask is wrong."""
        return self._judge(sitting, token, "rejected")

    def empty(self, sitting: Sitting, token: str) -> Any:
        """No class is in the photo."""
        if token != sitting.token:
            return gr.skip()
        with self._told():
            if sitting.look is not None:
                sitting.look = self.desk.draw(sitting.look, np.zeros_like(sitting.look.class_map))
        return self._judge(sitting, token, "accepted")

    def undo(self, sitting: Sitting) -> Any:
        """Takes back the last word, or what was drawn on this photo."""
        with self._told():
            if sitting.look is not None and sitting.look.label.verdict is not None:
                sitting.look = self.desk.say(sitting.look, None)
            elif sitting.said:
                photo = sitting.said.pop()
                look = self.desk.look(photo)
                if look.label.verdict is not None:
                    self.desk.say(look, None)
                if photo not in sitting.order:
                    sitting.order.insert(sitting.place, photo)
                sitting.place = sitting.order.index(photo)
        return self._show(sitting)

    def go(self, sitting: Sitting, steps: int) -> Any:
        """Some photos on, or back."""
        return self._move(sitting, sitting.place + steps)

    def choose(self, sitting: Sitting, click: gr.SelectData) -> Any:
        """A photo of the strip."""
        return self._move(sitting, self._strip_start(sitting) + click.index)

    def choose_class(self, sitting: Sitting, number: int) -> Any:
        """Which class is drawn."""
        sitting.number = number
        return self._show(sitting)

    def choose_tool(self, sitting: Sitting, tool: str) -> Any:
        """What it is drawn with."""
        sitting.tool = tool
        return self._show(sitting)

    def stroke(self, sitting: Sitting, token: str, editor: EditorValue | None) -> Any:
        """Writes down what was painted, at once; the editor stays as it is. A stroke may come after the next label is
        shown: it is written to that which it was painted on."""
        look, number = sitting.seen.get(token, (None, 0))
        if look is None or editor is None or editor["background"] is None:
            return gr.skip()
        with self._told():
            picture = self.desk.picture(look.label.photo)
            content = editor_content(picture, look.class_map, number, len(self.desk.class_names), self.desk.canvas)
            if not is_shown(editor, content["background"]):
                return gr.skip()
            strokes = strokes_in(editor, picture.size, self.desk.canvas)
            drawn = self.desk.draw(look, painted(look.class_map, number, strokes))
            sitting.seen[token] = drawn, number
            if sitting.look is look:
                sitting.look = drawn
        return sitting, self._caption(sitting), self._progress()

    def click(self, sitting: Sitting, click: gr.SelectData) -> Any:
        """Adds the object at a place, or removes the part there."""
        with self._told():
            if (look := sitting.look) is not None:
                photo = self.desk.picture(look.label.photo)
                x, y = (min(max(0, round(at)), side - 1) for at, side in zip(click.index[:2], photo.size))
                size = look.label.width, look.label.height
                if sitting.tool == LOOK:
                    return gr.skip()
                if sitting.tool == ADD:
                    mask = self.desk.mask_at(look.label.photo, x, y, size) | (look.class_map == sitting.number)
                    after = with_class(look.class_map, sitting.number, mask, takes=True)
                else:
                    across, down = (int((at + 0.5) * whole / part) for at, whole, part in zip((x, y), size, photo.size))
                    after = without_part(look.class_map, across, down)
                sitting.look = self.desk.draw(look, after)
        return self._show(sitting)

    def threshold(self, sitting: Sitting, threshold: float) -> Any:
        """The class's mask at another threshold."""
        with self._told():
            if (look := sitting.look) is not None:
                name = self.desk.class_names[sitting.number - 1]
                mask = self.desk.mask_from(look.label.photo, name, threshold)
                sitting.look = self.desk.draw(look, with_class(look.class_map, sitting.number, mask, takes=False))
        return self._show(sitting, threshold)

    def label_rest(self, sitting: Sitting) -> Any:
        """Has what nobody has accepted or drawn labelled again; `watch` follows."""
        self.again.start()
        return sitting, self._progress(), gr.update(active=True)

    def watch(self, sitting: Sitting) -> Any:
        """How far that is; when it is done, its labels."""
        if self.again.is_running:
            return gr.skip(), gr.update(active=True), *self._unchanged(self._progress())
        if self.again.has_failed:
            warn(self.again.last_words)
        return sitting, gr.update(active=False), *self.open(sitting, sitting.which)[1:]

    def _judge(self, sitting: Sitting, token: str, verdict: Verdict, *, is_support: bool = False) -> Any:
        if token != sitting.token:
            return gr.skip()
        if sitting.look is None:
            return self._show(sitting)
        photo = sitting.look.label.photo
        with self._told():
            self.desk.say(sitting.look, verdict, is_support=is_support)
            sitting.said.append(photo)
            if FILTERS[sitting.which] is None:  # what is judged is not to look at any more
                sitting.order.remove(photo)
                return self._move(sitting, sitting.place)
            return self._move(sitting, sitting.place + 1)
        return self._show(sitting)

    def _move(self, sitting: Sitting, place: int) -> Any:
        """Shows the photo at a place, or the nearest to it; the brush is laid down."""
        sitting.place = max(0, min(place, len(sitting.order) - 1))
        if sitting.tool == BRUSH:
            sitting.tool = LOOK
        return self._show(sitting)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tells the person what cannot be done; the label is shown as it stands now."""
        try:
            yield
        except (InputError, WriteError, BaseNotAvailableError) as error:
            warn(str(error))

    # What is shown ----------------------------------------------------------------------------------------------

    def _show(self, sitting: Sitting, threshold: float = 0.5) -> Any:
        """The sitting, and the updates of what is shown."""
        sitting.look = self._looked(sitting)
        sitting.times += 1
        if sitting.look is not None and sitting.tool == BRUSH:
            last = list(sitting.seen.items())[1 - REMEMBERED :]
            sitting.seen = dict([*last, (sitting.token, (sitting.look, sitting.number))])
        look, classes = sitting.look, len(self.desk.class_names)
        editor, clickable = gr.update(visible=False), gr.update(value=None, visible=True)
        if look is not None:
            picture = self.desk.picture(look.label.photo)
            if sitting.tool == BRUSH:
                content = editor_content(picture, look.class_map, sitting.number, classes, self.desk.canvas)
                editor, clickable = gr.update(value=content, visible=True), gr.update(visible=False)
            else:
                drawn = with_others(picture, look.class_map, sitting.number, classes)
                drawn = overlay(drawn, small_mask(look.class_map, sitting.number, picture.size))
                clickable = gr.update(value=drawn, visible=True)
        return (
            sitting,
            sitting.token,
            editor,
            clickable,
            self._caption(sitting),
            self._strip(sitting),
            gr.update(value=sitting.number),
            gr.update(value=sitting.tool, info=TOOLS[sitting.tool]),
            gr.update(value=threshold),
            self._progress(),
        )

    def _unchanged(self, progress: Update) -> Any:
        return *(gr.skip() for _ in range(8)), progress

    def _looked(self, sitting: Sitting) -> Look | None:
        """At the photo of the place, or at the next that can be shown."""
        while sitting.order:
            photo = sitting.order[sitting.place]
            now = self.desk.label(photo)
            if sitting.look is not None and sitting.look.label == now:
                return sitting.look
            try:
                self.desk.picture(photo)
                return self.desk.look(photo)
            except (InputError, OSError) as error:
                warn(str(error))
                sitting.order.pop(sitting.place)
                sitting.place = max(0, min(sitting.place, len(sitting.order) - 1))
        return None

    def _strip_start(self, sitting: Sitting) -> int:
        return sitting.place // STRIP * STRIP

    def _strip(self, sitting: Sitting) -> Update:
        start = self._strip_start(sitting)
        names = sitting.order[start : start + STRIP]
        captions = [_short(self.desk.label(name), name) for name in names]
        pictures = list(zip(self.desk.thumbnails(names), captions))
        return gr.update(value=pictures, selected_index=sitting.place - start if pictures else None)

    def _caption(self, sitting: Sitting) -> str:
        if sitting.look is None:
            return f"Nothing {sitting.which.lower()}." if sitting.which == "To look at" else "None."
        label = sitting.look.label
        return f"{sitting.place + 1} of {len(sitting.order)}: {shown(label.photo)}: {describe(label)}"

    def _progress(self) -> str:
        labels = self.desk.labels()
        count: Callable[[Verdict | None], int] = lambda verdict: sum(x.verdict == verdict for x in labels)  # noqa: E731
        words = [f"{count(None)} to look at"]
        words += [f"{count(verdict)} {verdict}" for verdict in ("accepted", "drawn", "rejected") if count(verdict)]
        if supports := sum(label.is_support for label in labels):
            words.append(f"{supports} further support{'s' if supports > 1 else ''}")
        said = self.again.last_words
        return ", ".join(words) + (f". Labelling: {said}" if said else "")


def describe(label: Label) -> str:
    """What is known of a label, in words."""
    words = [f"{label.area_percent:.1f} % of the photo" if label.area_percent else "empty"]
    if label.verdict is None and label.expected_iou is not None:
        words.append(f"expected IoU {100 * label.expected_iou:.0f} %")
    if label.verdict is None and label.presence is not None:
        words.append(f"presence {label.presence:.2f}")
    words += [label.verdict] if label.verdict else []
    words += ["a further support"] if label.is_support else []
    return ", ".join(words)


def _short(label: Label | None, photo: str) -> str:
    if label is None:
        return shown(photo)
    if label.verdict:
        return label.verdict
    return "" if label.expected_iou is None or not label.area_percent else f"{100 * label.expected_iou:.0f} %"
