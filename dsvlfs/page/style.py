"""How the pages look, and what their parts are called where Gradio leaves them without a name."""

from __future__ import annotations

import gradio as gr

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
