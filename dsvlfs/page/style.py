"""How the pages look, and what their parts are called where Gradio leaves them without a name."""

from __future__ import annotations

import os
from typing import Any

import gradio as gr

from ..inference.pictures import TINT
from .supports import BRUSH_OPACITY

# Gradio leaves these without a name: they get that of their block.
NAME_PARTS = """
() => {
    const label = (part) =>
        part.closest(".block")?.querySelector("label, [data-testid=block-info]")?.innerText.trim() || "";
    const each = (parts, change) => document.querySelectorAll(parts).forEach(change);
    const call = (parts, name) => each(`${parts}:not([aria-label])`, (part) => {
        if (name(part)) part.setAttribute("aria-label", name(part));
    });
    const name = () => {
        each(".image-container > button img[alt='']", (picture) => picture.setAttribute("alt", label(picture)));
        each("#strip button.thumbnail-item", (button) => button.removeAttribute("aria-label"));  // has a caption
        each("#support canvas", (canvas) => canvas.setAttribute("role", "img"));
        call("#support canvas", label);
        call("#support input[type=range]", () => "Size");
        call("#support button.color", () => "Color");
        call("fieldset", label);
    };
    name();
    new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
}
"""

# Gradio's own greys and blue fall short of the contrast that WCAG asks for.
THEME = gr.themes.Default(primary_hue="blue").set(
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
)


def keep_to_itself() -> None:
    """Has Gradio tell nobody of starts and requests; before the first component."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # gradio would tell its makers of each start
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000")  # and sum all requests up after each


def painting() -> dict[str, Any]:
    """Options of an editor in which a mask is painted over a photo."""
    return {
        "type": "pil",
        "format": "png",  # a lossy format would blur the mask
        "sources": (),
        "transforms": (),
        "layers": False,
        "brush": gr.Brush(colors=[("#{:02x}{:02x}{:02x}".format(*TINT), BRUSH_OPACITY)], color_mode="fixed"),
        "elem_id": "support",
    }
