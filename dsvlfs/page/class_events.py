"""The list of classes on the page: which there are, and which of them the page's fields show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from .. import InputError
from . import events
from .events import Update, keep_strokes, show_draft
from .several import MAX_ALL_SUPPORTS, MAX_CLASSES, AskedClass
from .supports import Draft, EditorValue, marked
from .uploads import shorten
from .visits import warn

TOO_MANY = f"There can be {MAX_ALL_SUPPORTS} support photos of all classes together at most; remove some first."


@dataclass(frozen=True)
class ClassDraft:
    """A class while a person says what it is.

    Args:
        drafts: its support photos.
    """

    name: str = ""
    description: str = ""
    drafts: tuple[Draft, ...] = ()


Classes = list[ClassDraft]
"""All of them; the one that the fields show is in them as it was when it was left."""


def all_classes(
    classes: Classes | None, place: int, drafts: Sequence[Draft], class_name: str, description: str
) -> Classes:
    """The classes, the one that is shown as the fields have it by now."""
    found = list(classes or [ClassDraft()])
    found[place] = ClassDraft(class_name or "", description or "", tuple(drafts))
    return found


def show_class(classes: Classes, place: int, tool: str) -> tuple[Any, ...]:
    """Fills the fields with a class: all outputs that have to do with classes and their supports."""
    shown = classes[place]
    drafts = list(shown.drafts)
    return (
        classes,
        place,
        drafts,
        0,
        *show_draft(drafts, 0, tool),
        shown.name,
        shown.description,
        *show_list(classes, place),
    )


def show_list(classes: Classes, place: int) -> tuple[Update, Update]:
    """Updates of the choice of the class, and of the button that removes one; a single class needs neither."""
    choices = [(shorten(" ".join(entry.name.split()), 24) or f"Class {i + 1}", i) for i, entry in enumerate(classes)]
    several = len(classes) > 1
    return gr.update(choices=choices, value=place, visible=several), gr.update(visible=several)


def add_class(
    classes: Classes | None, place: int, drafts: list[Draft], current: int, tool: str, editor: EditorValue | None,
    class_name: str, description: str,
) -> tuple[Any, ...]:  # fmt: skip
    """Goes to a new class, with nothing in it."""
    found = all_classes(classes, place, keep_strokes(drafts, current, tool, editor), class_name, description)
    if len(found) >= MAX_CLASSES:
        warn(f"There can be {MAX_CLASSES} classes at most; remove one first.")
        return show_class(found, place, tool)
    if any(not entry.name.strip() for entry in found):
        warn("Name this class first, then add the next one.")
        return show_class(found, place, tool)
    return show_class([*found, ClassDraft()], len(found), tool)


def choose_class(
    classes: Classes | None, place: int, drafts: list[Draft], current: int, tool: str, editor: EditorValue | None,
    class_name: str, description: str, chosen: int,
) -> tuple[Any, ...]:  # fmt: skip
    """Goes to another class."""
    found = all_classes(classes, place, keep_strokes(drafts, current, tool, editor), class_name, description)
    return show_class(found, min(chosen, len(found) - 1), tool)


def remove_class(classes: Classes | None, place: int, tool: str) -> tuple[Any, ...]:
    """Takes the class that is shown away."""
    found = list(classes or [ClassDraft()])
    del found[place : place + 1]
    return show_class(found or [ClassDraft()], max(0, min(place, len(found) - 1)), tool)


def add_photos(
    classes: Classes | None, place: int, drafts: list[Draft], current: int, tool: str, editor: EditorValue | None,
    class_name: str, description: str, paths: list[str],
) -> tuple[Any, ...]:  # fmt: skip
    """As `events.add_photos`, for a class among others."""
    others = sum(len(entry.drafts) for number, entry in enumerate(classes or []) if number != place)
    if others and others + len(drafts or []) + len(paths) > MAX_ALL_SUPPORTS:
        warn(TOO_MANY)
        return (gr.skip(),) * 7
    return events.add_photos(drafts, current, tool, editor, class_name, description, paths)


def name_class(
    classes: Classes | None, place: int, drafts: list[Draft], class_name: str, description: str
) -> tuple[Any, Any]:
    """Shows a class's new name in the list."""
    if not classes or len(classes) < 2:
        return gr.skip(), gr.skip()
    return show_list(all_classes(classes, place, drafts or (), class_name, description), place)


def asked_classes(classes: Classes, mode: str) -> list[AskedClass]:
    """What the model is to look for.

    Raises:
        InputError: nothing is marked in a support photo, or there are too many.
    """
    several = len(classes) > 1
    if several and sum(len(entry.drafts) for entry in classes) > MAX_ALL_SUPPORTS:
        raise InputError(TOO_MANY)
    asked = []
    for entry in classes:
        try:
            supports = [] if mode == "semantic" else marked(entry.drafts)
        except InputError as error:
            raise InputError(f"“{shorten(entry.name)}”: {error}" if several else str(error)) from error
        asked.append(AskedClass(entry.name, entry.description, supports))
    return asked
