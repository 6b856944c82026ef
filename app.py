"""The web page: paint one object in a support photo, name its class, and see the class found in another photo.

`python app.py` serves it; gradio's environment variables, such as `GRADIO_SERVER_PORT`, hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
from PIL import Image, ImageOps

import dsvlfs
from dsvlfs import BaseNotAvailableError, InputError
from dsvlfs.processing import DECODING_ERRORS, load_mask, load_photo
from dsvlfs.visualization import TINT, overlay

if TYPE_CHECKING:
    from dsvlfs import DSVLFSModel

MAX_PIXELS = 40_000_000  # of an upload
MAX_SIDE = 1280  # of a photo on the page: bounds what the editor sends and what a session keeps
BRUSH_OPACITY = 0.6
PROMPTS = {"Both": "both", "Name": "semantic", "Support": "visual"}
EXAMPLES_FOLDER = Path(__file__).parent / "examples"

EditorValue = dict[str, Any]
SupportPair = tuple[Image.Image, np.ndarray]


@dataclass(frozen=True)
class Example:
    """An entry of `examples.json`; the images are names of files beside it."""

    class_name: str
    description: str
    support_image: str
    support_mask: str
    query_image: str

    def fields(self) -> tuple[EditorValue, str, str, str]:
        """What fills the page: editor, class name, description, query photo."""
        photo = load_photo(EXAMPLES_FOLDER / self.support_image)
        mask = load_mask(EXAMPLES_FOLDER / self.support_mask, photo.size)
        return editor_value(photo, mask), self.class_name, self.description, str(EXAMPLES_FOLDER / self.query_image)


EXAMPLES = [Example(**entry) for entry in json.loads((EXAMPLES_FOLDER / "examples.json").read_text(encoding="utf-8"))]


@dataclass(frozen=True)
class Result:
    """What the slider needs to draw again: the query photo and its probability map, of the same size."""

    photo: Image.Image
    probability: np.ndarray


@cache
def load_model() -> DSVLFSModel:
    """The model; it keeps nothing of its users and serves them all."""
    return dsvlfs.DSVLFSModel.from_pretrained("dsvlfs-tiny")


# Images in and out -----------------------------------------------------------------------------------------------


def read_upload(path: str, kind: str) -> Image.Image:
    """An uploaded image, upright.

    Raises:
        InputError: it cannot be read or has too many pixels.
    """
    try:
        with Image.open(path) as file:
            if file.width * file.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            return ImageOps.exif_transpose(file)
    except Image.DecompressionBombError as error:
        raise InputError(f"The {kind} has more than {MAX_PIXELS // 10**6} megapixels; scale it down.") from error
    except DECODING_ERRORS as error:
        raise InputError(f"The {kind} cannot be read; choose a whole JPEG, PNG or WebP image.") from error


def read_photo(path: str, kind: str) -> Image.Image:
    """An uploaded photo as RGB, upright, at most `MAX_SIDE` wide and high.

    Raises:
        InputError: it cannot be read or has too many pixels.
    """
    photo = load_photo(read_upload(path, kind))
    photo.thumbnail((MAX_SIDE, MAX_SIDE))
    return photo


def editor_value(photo: Image.Image, mask: np.ndarray | None = None) -> EditorValue:
    """The editor's value for a photo and, as if the brush had painted it, its mask.

    Args:
        photo: RGB.
        mask: bool (height, width) of the photo.
    """
    layers = []
    if mask is not None:
        layer = Image.new("RGB", photo.size, TINT)
        layer.putalpha(Image.fromarray(np.uint8(255 * BRUSH_OPACITY * mask)))
        layers.append(layer)
    return {"background": photo, "layers": layers, "composite": None}


def painted_mask(editor: EditorValue) -> np.ndarray:
    """Where the brush has been: bool (height, width) of the photo, all False without strokes."""
    photo = editor["background"]
    mask = np.zeros((photo.height, photo.width), dtype=bool)
    for layer in editor["layers"]:
        pixels = np.array(layer.convert("RGBA").resize(photo.size, Image.Resampling.NEAREST))
        alpha = pixels[..., 3]
        # An opaque layer comes from a program rather than the brush: a mask in black and white.
        mask |= pixels[..., :3].any(axis=-1) if alpha.min() == 255 else alpha > 0
    return mask


def read_support(editor: EditorValue | None) -> SupportPair | None:
    """The support photo and its painted mask, or None without a photo.

    Raises:
        InputError: nothing is painted.
    """
    if editor is None or editor["background"] is None:
        return None
    mask = painted_mask(editor)
    if not mask.any():
        raise InputError("Paint over the object in the support photo, or upload its mask.")
    return editor["background"].convert("RGB"), mask


def area_text(mask: np.ndarray) -> str:
    """The foreground's share of the photo, in words."""
    return f"{mask.mean():.1%} of the photo" if mask.any() else "Nothing reaches the threshold; lower it."


# Asking the model ------------------------------------------------------------------------------------------------


def predict(
    supports: Sequence[SupportPair], class_name: str, description: str, query_file: str | None, mode: str
) -> Result:
    """Segments a class in a query photo.

    Raises:
        InputError: something is missing or cannot be used.
    """
    if not class_name.strip():
        raise InputError("Name the class, such as “penguin”.")
    if query_file is None:
        raise InputError("Add a query photo: the one to find the class in.")
    if not supports and mode != "semantic":
        raise InputError("Upload a support photo and paint over the object, or choose the prompt “Name”.")
    photo = read_photo(query_file, "query photo")
    model = load_model()
    support = None if mode == "semantic" else model.encode_support(supports)
    result = model.segment(photo, class_name, support=support, description=description.strip() or None, mode=mode)
    return Result(photo, result.probability)


@cache
def first_result() -> Result:
    """The first example's result, the same for every visitor."""
    editor, class_name, description, query_file = EXAMPLES[0].fields()
    return predict([read_support(editor)], class_name, description, query_file, "both")


# What the page's events call -------------------------------------------------------------------------------------


@contextmanager
def errors_on_page() -> Iterator[None]:
    """Shows what the user can mend as a message, and leaves the fields as they are."""
    try:
        yield
    except (InputError, BaseNotAvailableError) as error:
        raise gr.Error(str(error), duration=None, print_exception=False) from error


def render(result: Result | None, threshold: float) -> tuple[Image.Image | None, str]:
    """Draws the overlay and words the area, at a threshold."""
    if result is None:
        return None, ""
    mask = result.probability >= threshold
    return overlay(result.photo, mask), area_text(mask)


def segment(
    editor: EditorValue | None, class_name: str, description: str, query_file: str | None, mode: str, threshold: float
) -> tuple[Result, Image.Image, str]:
    """Segments the class in the query photo; returns the result for the slider, the overlay and the area."""
    with errors_on_page():
        support = None if mode == "semantic" else read_support(editor)
        result = predict([support] if support else [], class_name, description, query_file, mode)
    return result, *render(result, threshold)


def open_page(threshold: float) -> tuple[Result, Image.Image, str]:
    """What a visitor finds: the first example, already segmented."""
    with errors_on_page():
        result = first_result()
    return result, *render(result, threshold)


def put_support_photo(path: str) -> EditorValue | dict[str, Any]:
    """Opens an uploaded photo in the editor."""
    try:
        return editor_value(read_photo(path, "support photo"))
    except InputError as error:
        gr.Warning(str(error))
        return gr.skip()


def put_support_mask(editor: EditorValue | None, path: str) -> EditorValue | dict[str, Any]:
    """Paints an uploaded mask over the editor's photo."""
    try:
        if editor is None or editor["background"] is None:
            raise InputError("Upload the support photo first, then its mask.")
        photo = editor["background"]
        mask = read_upload(path, "mask")
        if abs(mask.width * photo.height - mask.height * photo.width) > max(mask.size):
            raise InputError("The mask has other proportions than the support photo; choose the mask of this photo.")
        return editor_value(photo, load_mask(mask.resize(photo.size, Image.Resampling.NEAREST), photo.size))
    except InputError as error:
        gr.Warning(str(error))
        return gr.skip()


def check_query_photo(upload: dict[str, Any]) -> dict[str, Any] | None:
    """Takes a photo that cannot be used out of the query field again."""
    try:
        read_upload(upload["path"], "query photo")
        return gr.skip()
    except InputError as error:
        gr.Warning(str(error))
        return None


# The page --------------------------------------------------------------------------------------------------------

CSS = """
.gradio-container { max-width: 1280px !important; }
#header { align-items: center; }
#title { flex: 1 1 420px; }
#examples { flex: 1 1 340px; flex-wrap: nowrap; }
.example { flex-direction: column; gap: 2px; padding: 4px !important; }
.example img { width: 56px; height: 42px; border-radius: 4px; }
"""


def build_page() -> gr.Blocks:
    """Lays out the page; nothing asks for the model until it is opened."""
    editor_start, class_name_start, description_start, query_start = EXAMPLES[0].fields()
    with gr.Blocks(title="DSV-LFS: few-shot segmentation", delete_cache=(3600, 3600)) as page:
        result = gr.State(time_to_live=3600)
        with gr.Row(elem_id="header"):
            gr.Markdown(
                "## Few-shot segmentation\nPaint one object, name it, and find others of its kind in another photo.",
                elem_id="title",
            )
            with gr.Row(elem_id="examples"):
                example_buttons = [
                    gr.Button(
                        example.class_name.capitalize(),
                        icon=EXAMPLES_FOLDER / example.query_image,
                        size="sm",
                        min_width=0,
                        elem_id=f"example-{number}",
                        elem_classes="example",
                    )
                    for number, example in enumerate(EXAMPLES)
                ]
        with gr.Row():
            with gr.Column():
                editor = gr.ImageEditor(
                    editor_start,
                    type="pil",
                    format="png",  # a lossy format would blur the mask
                    label="1. Support",
                    sources=(),
                    transforms=(),
                    layers=False,
                    canvas_size=editor_start["background"].size,  # of another size, the first layer would be off-centre
                    brush=gr.Brush(colors=[("#{:02x}{:02x}{:02x}".format(*TINT), BRUSH_OPACITY)], color_mode="fixed"),
                    height=340,
                    elem_id="support",
                )
                with gr.Row():
                    photo_upload, mask_upload = (
                        gr.UploadButton(
                            f"Upload {kind}", file_types=["image"], size="sm", min_width=0, elem_id=f"support-{kind}"
                        )
                        for kind in ("photo", "mask")
                    )
                class_name = gr.Textbox(class_name_start, label="Class name", max_lines=1, elem_id="class-name")
                description = gr.Textbox(
                    description_start, label="Description (optional)", lines=2, elem_id="description"
                )
            with gr.Column():
                query = gr.Image(
                    query_start,
                    type="filepath",
                    image_mode=None,
                    label="2. Query",
                    sources=["upload", "clipboard"],
                    height=340,
                    elem_id="query",
                )
                mode = gr.Radio(list(PROMPTS.items()), value="both", label="Prompts", elem_id="mode")
                segment_button = gr.Button("Segment", variant="primary", elem_id="segment")
            with gr.Column():
                found = gr.Image(
                    label="3. Result",
                    format="jpeg",
                    interactive=False,
                    buttons=["fullscreen", "download"],
                    height=340,
                    elem_id="overlay",
                )
                threshold = gr.Slider(0.05, 0.95, 0.5, step=0.05, label="Threshold", elem_id="threshold")
                area = gr.Textbox(label="Area", interactive=False, elem_id="area")

        fields = [editor, class_name, description, query]
        inputs, outputs = [*fields, mode, threshold], [result, found, area]
        asks_model = {"concurrency_id": "model", "concurrency_limit": 1, "show_progress_on": found}
        checks_upload = {"concurrency_limit": None, "api_visibility": "private"}
        page.load(open_page, threshold, outputs, api_visibility="private", **asks_model)
        gr.on([segment_button.click, class_name.submit], segment, inputs, outputs, api_name="segment", **asks_model)
        threshold.input(
            render,
            [result, threshold],
            [found, area],
            queue=False,
            show_progress="hidden",
            trigger_mode="always_last",
            api_name="threshold",
        )
        photo_upload.upload(put_support_photo, photo_upload, editor, **checks_upload)
        mask_upload.upload(put_support_mask, [editor, mask_upload], editor, **checks_upload)
        query.upload(check_query_photo, query, query, preprocess=False, **checks_upload)
        for button, example in zip(example_buttons, EXAMPLES, strict=True):
            button.click(example.fields, outputs=fields, queue=False, api_visibility="private").then(
                segment, inputs, outputs, api_visibility="private", **asks_model
            )
    return page.queue(max_size=16)


def launch(**options: Any) -> None:
    """Serves the page; options are those of `gr.Blocks.launch`."""
    demo.launch(
        css=CSS,
        footer_links=["api"],
        max_file_size="20mb",
        run_history=False,
        state_session_capacity=100,
        theme=gr.themes.Default(primary_hue="blue"),
        **options,
    )


gr.set_static_paths([EXAMPLES_FOLDER])
demo = build_page()

if __name__ == "__main__":
    try:
        first_result()
    except (InputError, BaseNotAvailableError) as error:
        raise SystemExit(str(error)) from error
    launch()
