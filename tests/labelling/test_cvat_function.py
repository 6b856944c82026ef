"""The function of `examples/cvat`, through cvat-sdk's own driver, which checks what a function says: `pip install
"cvat-sdk[masks]"`, in an environment of its own."""

import importlib.util
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from colour_model import ColourModel
from PIL import Image, ImageDraw

REASON = 'cvat-sdk is not installed: pip install "cvat-sdk[masks]"'
cvataa = pytest.importorskip("cvat_sdk.auto_annotation", reason=REASON)

from cvat_sdk import models  # noqa: E402
from cvat_sdk.auto_annotation import driver  # noqa: E402
from cvat_sdk.masks import decode_mask  # noqa: E402

FILE = Path(__file__).parents[2] / "examples" / "cvat" / "function.py"
WIDTH, HEIGHT = 200, 100


def photo() -> Image.Image:
    """Red on the left, two blue parts on the right."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "gray")
    image.paste("red", (0, 0, 60, 100))
    image.paste("blue", (100, 10, 140, 50))
    image.paste("blue", (160, 50, 190, 100))
    return image


@pytest.fixture
def create(tmp_path, monkeypatch):
    """Makes the function as `cvat-cli --function-file` does, of a project that asks for classes by their names."""
    monkeypatch.setattr("dsvlfs.labelling.request.DSVLFSModel", ColourModel)
    spec = importlib.util.spec_from_file_location("__cvat_function__", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    project = tmp_path / "project.yaml"
    project.write_text("classes: {red: {}, green: {}, blue: {}}")
    return lambda **parameters: module.create(project=str(project), **parameters)


@pytest.fixture
def annotate(monkeypatch):
    """Annotates a task of one frame, whose labels have other numbers; gives what is sent to the server."""

    def run(function, label_type: str = "any", **options) -> list:
        sent = []
        labels = [
            models.Label(id=number, name=name, type=label_type, attributes=[], sublabels=[])
            for number, name in ((51, "blue"), (52, "red"), (53, "green"))
        ]
        frame = SimpleNamespace(frame_index=4, frame_name="a.png", media=SimpleNamespace(load_image=photo))
        monkeypatch.setattr(driver, "TaskDataset", lambda *_, **__: SimpleNamespace(labels=labels, samples=[frame]))
        api = SimpleNamespace(partial_update_annotations=lambda *_, **request: sent.append(request))
        client = SimpleNamespace(logger=logging.getLogger("cvat"), tasks=SimpleNamespace(api=api))
        cvataa.annotate_task(client, 1, function, **options)
        (request,) = sent
        request = request["patched_labeled_data_request"]
        assert request.tags == []
        return request.shapes

    return run


def masks_of(shapes) -> dict[int, np.ndarray]:
    """By the label's number in the task."""
    masks = {}
    for shape in shapes:
        mask = decode_mask(shape.points, image_width=WIDTH, image_height=HEIGHT)
        masks[shape.label_id] = masks.get(shape.label_id, False) | mask
    return masks


def blue() -> np.ndarray:
    return (np.asarray(photo()) == (0, 0, 255)).all(axis=-1)


def test_a_mask_a_class_under_the_tasks_own_labels(create, annotate):
    function = create()
    assert [(label.name, label.id) for label in function.spec.labels] == [("red", 1), ("green", 2), ("blue", 3)]
    shapes = annotate(function)
    assert [(shape.label_id, shape.frame, shape.type.value) for shape in shapes] == [(52, 4, "mask"), (51, 4, "mask")]
    assert all(0.5 < shape.score <= 1 for shape in shapes)
    masks = masks_of(shapes)
    assert masks[52].sum() == 6000
    np.testing.assert_array_equal(masks[51], blue())


def test_a_task_may_ask_for_polygons(create, annotate):
    shapes = annotate(create(), "polygon", conv_mask_to_poly=True)
    assert [(shape.label_id, shape.type.value) for shape in shapes] == [
        (52, "polygon"),
        (51, "polygon"),
        (51, "polygon"),
    ]
    image = Image.new("1", (WIDTH, HEIGHT))
    for shape in shapes[1:]:
        assert len(shape.points) >= 6
        ImageDraw.Draw(image).polygon(shape.points, fill=1)
    drawn = np.array(image)
    assert (drawn & blue()).sum() / (drawn | blue()).sum() > 0.95


def test_objects_are_shapes_of_their_own(create, annotate):
    shapes = annotate(create(instances=True))
    assert [shape.label_id for shape in shapes].count(51) == 2
    np.testing.assert_array_equal(masks_of(shapes)[51], blue())


def test_what_is_less_sure_than_the_threshold_is_left_out(create, annotate):
    least = min(shape.score for shape in annotate(create()))
    assert len(annotate(create(), conf_threshold=least)) == 2
    assert annotate(create(), conf_threshold=1.0) == []


def test_the_command_line_passes_the_parameters(create, tmp_path, monkeypatch):
    common = pytest.importorskip("cvat_cli._internal.common", reason="cvat-cli is not installed: pip install cvat-cli")
    parsers = pytest.importorskip("cvat_cli._internal.parsers")
    texts = (f"project=str:{tmp_path / 'project.yaml'}", "instances=bool:true", "min_presence=float:0.2")
    parameters = dict(parsers.parse_function_parameter(text) for text in texts)
    function = common.FunctionLoader(None, FILE, parameters).load()
    agent = pytest.importorskip("cvat_cli._internal.agent").get_function_driver_class(function.spec)
    labels = agent.get_remote_function_fields(function.spec)["labels_v2"]
    assert [(label["name"], label["type"]) for label in labels] == [
        ("red", "mask"),
        ("green", "mask"),
        ("blue", "mask"),
    ]
