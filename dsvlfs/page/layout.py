"""The web page: mark one object in a support photo or in several, name its class, and see the class found in others.

`dsvlfs demo` serves it. What its events do is in `events.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..errors import InputError

try:
    import gradio as gr
except ImportError as error:
    raise InputError("The page needs Gradio; install it with: pip install 'dsvlfs[demo]'") from error

from . import asking, class_events, events, programs
from .answers import Page
from .editor import MarksEditor
from .events import BRUSH, TOOLS
from .examples import EXAMPLES, FOLDER, Example
from .serving import end_well, launch_page
from .store import page_store
from .style import keep_to_itself, painting
from .supports import editor_value
from .visits import quick_turn

PROMPTS = {"Both": "both", "Name": "semantic", "Support": "visual"}
VIEWS = {"Mask": "mask", "Probability": "probability", "Votes": "votes"}

# A download starts when its file is ready: the visible button makes it, the hidden one has it.
TAKE = "() => document.querySelector('#{} a, #{} button, a#{}, button#{}')?.click()"

CSS = """
.gradio-container { max-width: 1360px !important; }
#header { align-items: center; }
#title { flex: 1 1 420px; }
#examples { flex: 1 1 340px; flex-wrap: nowrap; }
.example { flex-direction: column; gap: 2px; padding: 4px !important; }
.example img { width: 56px; height: 42px; border-radius: 4px; }
#clickable img { cursor: crosshair; }
.tight { gap: 6px; }
.legend { list-style: none; margin: 0 !important; padding: 0 !important; }
.legend .swatch { display: inline-block; width: 14px; height: 14px; margin-right: 6px; border: 1px solid #555; }
"""


def build_page() -> gr.Blocks:
    """Lays out the page; nothing asks for the model until it is opened."""
    keep_to_itself()
    store = page_store()  # before the first component, which asks where files go
    (start,) = events.first_drafts()
    with Page(store=store, quick=quick_turn, title="DSV-LFS: few-shot segmentation") as page:
        drafts = gr.State(time_to_live=3600)  # None once it is given up
        current, tool = gr.State(0), gr.State(BRUSH)
        classes, place = gr.State([], time_to_live=3600), gr.State(0)
        results, chosen = gr.State(time_to_live=3600), gr.State(0)
        asks_model = {"concurrency_id": "model", "concurrency_limit": None}  # `visits.MODEL_TURNS` bounds it
        _add_endpoints(asks_model)  # before the page's own events, which would take their names

        with gr.Row(elem_id="header"):
            gr.Markdown(
                "# Few-shot segmentation\nMark one object, name it, and find others of its kind in other photos.",
                elem_id="title",
            )
            with gr.Row(elem_id="examples"):
                example_buttons = [
                    gr.Button(
                        example.class_name.capitalize(),
                        icon=example.query_file,
                        size="sm",
                        min_width=0,
                        elem_id=f"example-{number}",
                        elem_classes="example",
                    )
                    for number, example in enumerate(EXAMPLES)
                ]
        with gr.Row():
            with gr.Column(min_width=300):
                which = gr.Radio([("1", 0)], value=0, label="Support photo", visible=False, elem_id="which")
                editor = MarksEditor(
                    editor_value(start),
                    label="1. Support",
                    canvas_size=start.photo.size,  # of another size, the first layer would be off-centre
                    height=340,
                    **painting(),
                )
                clickable = gr.Image(
                    label="1. Support",
                    format="jpeg",
                    interactive=False,
                    buttons=[],
                    visible=False,
                    height=340,
                    elem_id="clickable",
                )
                tools = gr.Radio(list(TOOLS), value=BRUSH, label="Mark the object", info=TOOLS[BRUSH], elem_id="tools")
                with gr.Row(elem_classes="tight"):
                    small = {"size": "sm", "min_width": 0}
                    photo_upload = gr.UploadButton(
                        "Add photo", file_types=["image"], file_count="multiple", elem_id="support-photo", **small
                    )
                    mask_upload = gr.UploadButton("Add mask", file_types=["image"], elem_id="support-mask", **small)
                    clear_button = gr.Button("Clear mask", elem_id="clear", **small)
                    remove_button = gr.Button("Remove", elem_id="remove", **small)
            with gr.Column(min_width=300):
                query = gr.Gallery(
                    [str(EXAMPLES[0].query_file)],
                    type="filepath",
                    file_types=["image"],
                    label="2. Query photos",
                    sources=["upload", "clipboard"],
                    columns=2,
                    fit_columns=False,
                    height=220,
                    object_fit="contain",
                    buttons=[],
                    elem_id="query",
                )
                which_class = gr.Radio([("1", 0)], value=0, label="Class", visible=False, elem_id="which-class")
                class_name = gr.Textbox(EXAMPLES[0].class_name, label="Class name", max_lines=1, elem_id="class-name")
                description = gr.Textbox(
                    EXAMPLES[0].description, label="Description (optional)", lines=2, elem_id="description"
                )
                with gr.Row(elem_classes="tight"):
                    describe_button = gr.Button("Write a description", elem_id="describe", **small)
                    add_class_button = gr.Button("Add a class", elem_id="add-class", **small)
                    remove_class_button = gr.Button("Remove class", visible=False, elem_id="remove-class", **small)
                mode = gr.Radio(list(PROMPTS.items()), value="both", label="Prompts", elem_id="mode")
                segment_button = gr.Button("Segment", variant="primary", elem_id="segment")
            with gr.Column(min_width=300):
                found = gr.Image(
                    label="3. Result",
                    format="jpeg",
                    interactive=False,
                    buttons=["fullscreen", "download"],
                    height=340,
                    elem_id="overlay",
                )
                strip = gr.Gallery(
                    label="All results",
                    columns=4,
                    height=130,
                    allow_preview=False,
                    interactive=False,
                    visible=False,
                    buttons=[],
                    elem_id="strip",
                )
                area = gr.Textbox(label="Area", interactive=False, elem_id="area")
                legend = gr.HTML(visible=False, elem_id="legend")
                view = gr.Radio(list(VIEWS.items()), value="mask", label="Show", elem_id="view")
                with gr.Row(elem_classes="tight"):
                    threshold = gr.Slider(
                        0.05, 0.95, 0.5, step=0.05, label="Threshold", min_width=140, elem_id="threshold"
                    )
                    opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity", min_width=140, elem_id="opacity")
                with gr.Row(elem_classes="tight"):
                    of_prompt = {"format": "jpeg", "interactive": False, "buttons": [], "height": 150, "min_width": 120}
                    by_name = gr.Image(label="By the name alone", elem_id="by-name", **of_prompt)
                    by_support = gr.Image(label="By the support alone", elem_id="by-support", **of_prompt)
                with gr.Row(elem_classes="tight"):
                    masks_button = gr.Button("Masks (PNG)", elem_id="masks", **small)
                    coco_button = gr.Button("COCO JSON", elem_id="coco", **small)
                    masks_file = gr.DownloadButton("Masks", visible="hidden", elem_id="masks-file")
                    coco_file = gr.DownloadButton("COCO JSON", visible="hidden", elem_id="coco-file")

        shown = [which, editor, clickable]
        marking = [drafts, current, tool]
        words = [class_name, description]
        drawing = [view, threshold, opacity]
        in_fields = [classes, place, *marking, editor, *words]
        class_list = [which_class, remove_class_button]
        of_class = [classes, place, drafts, current, *shown, *words, *class_list]
        inputs = [*in_fields, query, mode, threshold]
        outputs = [results, chosen, strip, by_name, by_support]
        to_draw, drawn = [results, chosen, *drawing], [found, area, legend]
        private = {"api_visibility": "private"}
        is_quick = {"queue": False, "show_progress": "hidden", **private}
        reads_files = {"concurrency_id": "files", "concurrency_limit": None, **private}

        page.load(events.first_drafts, None, drafts, **is_quick)
        page.load(events.open_page, threshold, outputs, show_progress_on=found, **asks_model, **private).success(
            events.redraw, to_draw, drawn, **is_quick
        )
        gr.on(
            [segment_button.click, class_name.submit],
            asking.segment,
            inputs,
            [classes, drafts, *class_list, *outputs],
            show_progress_on=found,
            **asks_model,
            **private,
        ).success(events.redraw, to_draw, drawn, **is_quick)
        describe_button.click(
            events.describe, class_name, description, show_progress_on=description, **asks_model, **private
        )
        for change in (threshold.input, opacity.input, view.input):
            change(events.redraw, to_draw, drawn, trigger_mode="always_last", **is_quick)
        strip.select(events.choose_result, [results, *drawing], [chosen, *drawn, by_name, by_support], **is_quick)

        add_class_button.click(class_events.add_class, in_fields, of_class, **is_quick)
        which_class.input(class_events.choose_class, [*in_fields, which_class], of_class, **is_quick)
        remove_class_button.click(class_events.remove_class, [classes, place, tool], of_class, **is_quick)
        class_name.blur(class_events.name_class, [classes, place, drafts, *words], class_list, **is_quick)
        which.input(events.choose_support, [*marking, editor, which], [drafts, current, *shown], **is_quick)
        tools.input(events.choose_tool, [*marking, editor, tools], [drafts, tool, *shown, tools], **is_quick)
        remove_button.click(events.remove_support, [*marking, editor], [drafts, current, *shown], **is_quick)
        clear_button.click(events.clear_marks, marking, [drafts, *shown], **is_quick)
        clickable.select(events.note_click, marking, [drafts, clickable], **is_quick).then(
            events.follow_clicks, [drafts, current], [drafts, clickable], **asks_model, **private
        )
        photo_upload.upload(
            class_events.add_photos,
            [*in_fields, photo_upload],
            [drafts, current, *shown, *words],
            **reads_files,
        )
        mask_upload.upload(events.add_mask, [*marking, mask_upload], [drafts, *shown], **reads_files)
        query.upload(events.check_queries, query, query, **reads_files)
        for save, button, file in (
            (events.save_masks, masks_button, masks_file),
            (events.save_coco, coco_button, coco_file),
        ):
            button.click(save, [results, threshold], file, **reads_files).success(
                None, js=TAKE.replace("{}", file.elem_id), api_visibility="private"
            )
        for button, example in zip(example_buttons, EXAMPLES, strict=True):
            button.click(partial(_open_example, example), tool, [*of_class, query], **is_quick).then(
                asking.segment,
                inputs,
                [classes, drafts, *class_list, *outputs],
                show_progress_on=found,
                **asks_model,
                **private,
            ).success(events.redraw, to_draw, drawn, **is_quick)
    store.keep()  # what the page shows at first
    return page.queue(max_size=64)


def _open_example(example: Example, tool: str) -> tuple[Any, ...]:
    """Fills the page with an example."""
    only = class_events.ClassDraft(example.class_name, example.description, (example.draft(),))
    return *class_events.show_class([only], 0, tool), [str(example.query_file)]


def _add_endpoints(asks_model: dict[str, Any]) -> None:
    """What programs call; their fields are not on the page."""
    with gr.Group(visible=False):
        photos = {"file_count": "multiple", "file_types": ["image"]}
        given = [
            gr.Textbox(label="Class name"),
            gr.File(label="Query photos", **photos),
            gr.File(label="Support photos", **photos),
            gr.File(label="Support masks, in the same order", **photos),
            gr.Textbox("", label="Description"),
            gr.Radio(list(PROMPTS.values()), value="both", label="Prompts"),
            gr.Number(0.5, minimum=0, maximum=1, label="Threshold"),
        ]
        made = [
            gr.File(label="Masks", file_count="multiple"),
            gr.File(label="Overlays", file_count="multiple"),
            gr.File(label="COCO JSON"),
            gr.JSON(label="Name and areas of each photo"),
        ]
        gr.Button().click(programs.segment, given, made, api_name="segment", **asks_model)
        marks = [
            gr.File(label="Photo", file_types=["image"]),
            gr.JSON(label="Box: [left, top, right, bottom]"),
            gr.JSON(label="Points on the object: [[x, y], ...]"),
            gr.JSON(label="Points beside it: [[x, y], ...]"),
        ]
        gr.Button().click(programs.mask, marks, gr.File(label="Mask"), api_name="mask", **asks_model)
        named, described = gr.Textbox(label="Class name"), gr.Textbox(label="Description")
        gr.Button().click(events.describe, named, described, api_name="describe", **asks_model)


def launch(**options: Any) -> None:
    """Serves the page; options are those of `gr.Blocks.launch`."""
    launch_page(demo, page_store(), CSS, footer_links=["api"], **options)


gr.set_static_paths([FOLDER])
demo = build_page()


def serve(**options: Any) -> None:
    """As `launch`, once an example is segmented, for the first visitor to find.

    Raises:
        BaseNotAvailableError: a base cannot be had.
    """
    end_well(page_store())
    events.first_results()
    launch(**options)
