"""The backend of `examples/label_studio`, by what label-studio-sdk says of the interface: `pip install
dsvlfs[readers]`."""

from pathlib import Path

import numpy as np
import pytest
from colour_model import ColourModel
from PIL import Image

from dsvlfs.labelling.formats.label_studio import brush_runs
from dsvlfs.labelling.project import read_project

pytest.importorskip("label_studio_sdk", reason="label-studio-sdk is not installed: pip install dsvlfs[readers]")
pytest.importorskip("fastapi", reason="fastapi is not installed: pip install dsvlfs[demo]")
testclient = pytest.importorskip("fastapi.testclient", reason="httpx is not installed: pip install dsvlfs[demo]")

from label_studio_sdk._extensions.label_studio_tools.core.utils import io  # noqa: E402
from label_studio_sdk.converter.brush import decode_rle  # noqa: E402
from label_studio_sdk.label_interface import LabelInterface  # noqa: E402
from label_studio_sdk.label_interface.objects import PredictionValue  # noqa: E402

CONFIG = """<View>
  <Image name="scene" value="$picture"/>
  <BrushLabels name="kind" toName="scene"><Label value="red"/><Label value="blue"/></BrushLabels>
</View>"""
PROJECT = {"id": 7, "label_config": CONFIG}
WIDTH, HEIGHT = 40, 30


@pytest.fixture
def model() -> ColourModel:
    return ColourModel()


@pytest.fixture
def state(tmp_path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def ask(model, state, tmp_path, monkeypatch):
    """Asks the backend as Label Studio does; a photo whose left half is red and whose upper right is blue is there."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples" / "label_studio")
    from backend import Backend
    from serve import app_of

    monkeypatch.setattr(io, "LOCAL_FILES_DOCUMENT_ROOT", str(tmp_path))  # the variable's, of which it reads files
    image = Image.new("RGB", (WIDTH, HEIGHT), "gray")
    image.paste("red", (0, 0, 20, 30))
    image.paste("blue", (20, 0, 40, 10))
    image.save(tmp_path / "a b.png")
    client = testclient.TestClient(app_of(Backend(model, state)))

    def run(path: str, **asked) -> dict:
        answer = client.post(path, json=asked)
        assert answer.status_code < 300, answer.text
        return answer.json()

    run.client = client
    return run


def task(number: int = 1, name: str = "a%20b.png") -> dict:
    return {"id": number, "project": 7, "data": {"picture": f"/data/local-files/?d={name}"}}


def predicted(ask, *tasks) -> list:
    return ask("/predict", project="7.1700000000", label_config=CONFIG, tasks=list(tasks), params={})["results"]


def mask_of(region: dict) -> np.ndarray:
    return np.reshape(decode_rle(region["value"]["rle"]), (HEIGHT, WIDTH, 4))[:, :, 3] > 0


def annotation(number: int, *, red: int | None = None, blue: int | None = None, **more) -> dict:
    """A person's, with the first columns of a class drawn."""
    result = []
    for name, columns in (("red", red), ("blue", blue)):
        if columns is not None:
            mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
            mask[:, :columns] = True
            value = {"format": "rle", "rle": brush_runs(mask), "brushlabels": [name]}
            result.append(
                {
                    "type": "brushlabels",
                    "from_name": "kind",
                    "to_name": "scene",
                    "original_width": WIDTH,
                    "original_height": HEIGHT,
                    "value": value,
                }
            )
    return {"id": number, "result": result, "was_cancelled": False, **more}


def say(ask, event: str, entry: dict) -> None:
    assert ask("/webhook", action=event, project=PROJECT, task=task(), annotation=entry)["status"] == "ok"


def test_predictions_are_what_label_studio_takes(ask):
    assert ask.client.get("/health").json()["status"] == "UP"
    version = ask("/setup", project="7.1700000000", schema=CONFIG)["model_version"]
    ((prediction,),) = predicted(ask, task())
    assert prediction["model_version"] == version
    assert LabelInterface(CONFIG).validate_prediction(prediction, return_errors=True) == []
    assert 0 < PredictionValue(**prediction).score <= 1
    masks = {region["value"]["brushlabels"][0]: mask_of(region) for region in prediction["result"]}
    assert masks.keys() == {"red", "blue"}
    assert masks["red"][:, :20].all()
    assert masks["red"].sum() == 600
    assert masks["blue"][:10, 20:].all()
    assert masks["blue"].sum() == 200


def test_a_photo_that_cannot_be_had_keeps_no_other_waiting(ask, monkeypatch):
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_HOST"):
        monkeypatch.delenv(name, raising=False)
    found = predicted(ask, task(1, "gone.png"), task(2))
    assert [len(entry) for entry in found] == [0, 1]


def test_an_interface_without_a_brush_is_told_so(ask):
    config = '<View><Image name="scene" value="$picture"/></View>'
    answer = ask.client.post("/setup", json={"project": "7.1", "schema": config})
    assert answer.status_code == 422
    assert "no BrushLabels" in answer.json()["detail"]


def test_what_a_person_accepted_is_learned_from(ask, model, state):
    ((before,),) = predicted(ask, task())
    assert model.asked["encode_support"] == 0  # by the names alone
    say(ask, "ANNOTATION_CREATED", annotation(3, red=20))
    ((after,),) = predicted(ask, task())
    assert model.asked["encode_support"] == 1
    assert after["model_version"] != before["model_version"]
    predicted(ask, task())
    assert model.asked["encode_support"] == 1  # once for all photos
    # And it is a project of dsvlfs.
    (known,) = read_project(state / "7" / "project.yaml")
    assert known.name == "red"
    photo, mask = known.supports[0].load(None)
    assert photo.size == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(mask, np.arange(WIDTH) < np.full((HEIGHT, 1), 20))


def test_an_annotation_that_is_changed_or_deleted_counts_as_it_is_now(ask, state):
    say(ask, "ANNOTATION_CREATED", annotation(3, red=20, blue=5))
    say(ask, "ANNOTATION_CREATED", annotation(4, red=10))
    say(ask, "ANNOTATION_UPDATED", annotation(3, red=30))
    (known,) = read_project(state / "7" / "project.yaml")
    assert [int(support.load(None)[1].sum()) for support in known.supports] == [300, 900]
    say(ask, "ANNOTATION_UPDATED", annotation(4, red=10, was_cancelled=True))
    (known,) = read_project(state / "7" / "project.yaml")
    assert len(known.supports) == 1
    ask("/webhook", action="ANNOTATIONS_DELETED", project=PROJECT, annotations=[{"id": 3}])
    assert not list((state / "7").glob("*/*"))
    assert len(predicted(ask, task())) == 1


def test_only_what_shows_something_is_a_support_and_five_are_kept(ask, state):
    say(ask, "ANNOTATION_CREATED", annotation(1, red=0, blue=WIDTH))
    assert not (state / "7" / "photos").exists()
    for number in range(2, 9):
        say(ask, "ANNOTATION_CREATED", annotation(number, red=number))
    (known,) = read_project(state / "7" / "project.yaml")
    assert [support.photo.stem for support in known.supports] == ["4", "5", "6", "7", "8"]
    assert len(list((state / "7").glob("*/*"))) == 10


def test_what_no_one_has_looked_at_is_no_support(ask, state):
    ask("/webhook", action="ANNOTATIONS_CREATED", project=PROJECT, task=[task()], annotation=[annotation(1, red=9)])
    ask("/webhook", action="PROJECT_UPDATED", project=PROJECT)
    assert not state.exists()
