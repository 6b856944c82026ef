"""A person's word on labels, and what a run does with it."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from colour_model import COLOURS, ColourModel
from forked import two_processes
from PIL import Image
from pycocotools.coco import COCO

from dsvlfs import InputError
from dsvlfs.cli import main
from dsvlfs.files import read_json
from dsvlfs.labelling import request
from dsvlfs.labelling.record import Record
from dsvlfs.labelling.verdicts import Verdicts

CLASSES = ("red", "green")


class CountingModel(ColourModel):
    """Remembers how many supports each class had."""

    shots: ClassVar[list[int]] = []

    def encode_support(self, examples: list) -> int:
        type(self).shots.append(len(examples))
        return super().encode_support(examples)


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> type[CountingModel]:
    monkeypatch.setattr(request, "DSVLFSModel", CountingModel)
    monkeypatch.setattr(CountingModel, "shots", [])
    return CountingModel


def draw(file: Path, *boxes: tuple[str, tuple[int, int, int, int]]) -> Path:
    """A photo (40 x 30) with boxes of colours."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (40, 30))
    for name, box in boxes:
        image.paste(COLOURS[name], box)
    image.save(file)
    return file


def command(folder: Path, *more: str) -> list[str]:
    words = ["label", "--project", folder / "project.yaml", "--photos", folder / "photos", "--out", folder / "out"]
    return [*map(str, words), "--no-cache", *more]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A labelled folder of three photos and two classes."""
    draw(tmp_path / "photos" / "a.png", ("red", (0, 0, 20, 30)))
    draw(tmp_path / "photos" / "b.png", ("red", (0, 0, 10, 30)), ("green", (20, 0, 40, 30)))
    draw(tmp_path / "photos" / "c.png", ("green", (0, 0, 40, 15)))
    lines = ["classes:"]
    for name in CLASSES:
        photo = draw(tmp_path / f"{name}.png", (name, (0, 0, 20, 30)))
        Image.fromarray(np.uint8(255 * (np.arange(40) < 20)[None].repeat(30, 0))).save(tmp_path / f"{name}_mask.png")
        lines.append(f"  {name}: {{supports: [{{photo: {photo.name}, mask: {name}_mask.png}}]}}")
    (tmp_path / "project.yaml").write_text("\n".join(lines))
    assert main(command(tmp_path)) == 0
    return tmp_path


@contextmanager
def reviewing(folder: Path) -> Iterator[Verdicts]:
    """The person's run on a folder."""
    record = opened(folder)
    with record.joined():
        yield Verdicts(record, CLASSES)


@pytest.fixture
def verdicts(folder: Path) -> Iterator[Verdicts]:
    with reviewing(folder) as known:
        yield known


def opened(folder: Path) -> Record:
    settings = read_json(folder / "out" / "settings.json")
    place = settings.pop("place")
    settings.pop("command")
    return Record(folder / "out", settings, place)


def photo(folder: Path, name: str) -> Image.Image:
    return Image.open(folder / "photos" / name).convert("RGB")


def mask(folder: Path, stem: str) -> np.ndarray:
    return np.asarray(Image.open(folder / "out" / "masks" / f"{stem}.png"))


def now(folder: Path) -> dict[str, tuple[str | None, bool, str]]:
    record = opened(folder)
    record.refresh()
    return {name: (label.verdict, label.is_support, label.made_with) for name, label in record.labels.items()}


def test_a_word_is_written_down_when_it_is_said(folder, verdicts):
    labels = verdicts.record.labels
    verdicts.say(labels["a.png"], "accepted")
    verdicts.say(labels["b.png"], "rejected")
    verdicts.say(labels["c.png"], "accepted", is_support=True)
    assert now(folder) == {
        "a.png": ("accepted", False, ""), "b.png": ("rejected", False, ""), "c.png": ("accepted", True, ""),
    }  # fmt: skip
    verdicts.say(labels["b.png"], None)
    assert now(folder)["b.png"] == (None, False, "")


def test_what_was_seen_before_it_changed_cannot_be_judged(verdicts):
    seen = verdicts.record.labels["a.png"]
    verdicts.say(seen, "rejected")
    with pytest.raises(InputError, match=r"a\.png has been labelled again"):
        verdicts.say(seen, "accepted")


def test_an_empty_mask_is_no_support(folder, verdicts):
    drawn = verdicts.draw(verdicts.record.labels["a.png"], np.zeros((30, 40), np.uint8), photo(folder, "a.png"))
    assert drawn.area_percent == 0
    with pytest.raises(InputError, match="is empty"):
        verdicts.say(drawn, "accepted", is_support=True)


def test_a_mask_of_the_whole_photo_is_no_support(folder, verdicts):
    drawn = verdicts.draw(verdicts.record.labels["a.png"], np.ones((30, 40), np.uint8), photo(folder, "a.png"))
    with pytest.raises(InputError, match="covers the whole photo"):
        verdicts.say(drawn, "accepted", is_support=True)


def test_a_drawing_is_the_mask_from_then_on_and_can_be_taken_back(folder, verdicts):
    before, label = mask(folder, "b"), verdicts.record.labels["b.png"]
    drawn = before.copy()
    drawn[:10] = 1
    made = verdicts.draw(label, drawn, photo(folder, "b.png"))
    np.testing.assert_array_equal(mask(folder, "b"), drawn)
    assert made.verdict == "drawn"
    assert made.classes["red"].score == 1.0
    assert made.area_percent == pytest.approx(100 * (drawn > 0).mean(), abs=1e-3)
    again = verdicts.draw(made, np.full((30, 40), 2, np.uint8), photo(folder, "b.png"))
    assert verdicts.say(again, "accepted").verdict == "drawn"
    restored = verdicts.say(verdicts.record.labels["b.png"], None)
    np.testing.assert_array_equal(mask(folder, "b"), before)
    assert (restored.verdict, restored.classes) == (None, label.classes)


def test_a_drawing_of_another_size_is_refused(folder, verdicts):
    with pytest.raises(InputError, match="not of the size"):
        verdicts.draw(verdicts.record.labels["a.png"], np.zeros((5, 5), np.uint8), photo(folder, "a.png"))


def test_the_rest_is_labelled_again_with_further_supports_and_what_a_person_said_stays(folder, model):
    with reviewing(folder) as verdicts:
        labels = verdicts.record.labels
        drawn = np.full((30, 40), 2, np.uint8)
        drawn[:, :5] = 1
        support = verdicts.draw(labels["a.png"], drawn, photo(folder, "a.png"))
        support = verdicts.say(support, "accepted", is_support=True)
        verdicts.say(labels["b.png"], "rejected")
    model.shots.clear()
    assert main(command(folder)) == 0
    assert model.shots == [2, 2]  # the photo shows both classes
    made_with = str(support.number)
    assert now(folder) == {
        "a.png": ("drawn", True, ""), "b.png": (None, False, made_with), "c.png": (None, False, made_with),
    }  # fmt: skip
    np.testing.assert_array_equal(mask(folder, "a"), drawn)
    model.shots.clear()
    assert main(command(folder)) == 0
    assert model.shots == []  # nothing is left to do
    assert main(command(folder, "--redo", "*")) == 0
    np.testing.assert_array_equal(mask(folder, "a"), drawn)


def test_a_rejected_label_is_left_out_of_the_formats(folder):
    with reviewing(folder) as verdicts:
        verdicts.say(verdicts.record.labels["b.png"], "rejected")
    assert main(command(folder, "--formats", "index-png")) == 0
    coco = COCO(folder / "out" / "annotations.json")
    assert [entry["file_name"] for entry in coco.loadImgs(coco.getImgIds())] == ["a.png", "c.png"]


def test_a_mask_that_was_changed_in_another_tool_is_not_made_again(folder):
    with reviewing(folder) as verdicts:
        verdicts.say(verdicts.record.labels["a.png"], "accepted", is_support=True)
    changed = mask(folder, "c").copy()
    changed[:] = 1
    file = folder / "out" / "masks" / "c.png"
    Image.fromarray(changed).save(file)
    os.utime(file, (1, 1))
    assert main(command(folder)) == 0
    np.testing.assert_array_equal(mask(folder, "c"), changed)


def test_what_was_accepted_on_a_photo_that_has_changed_is_set_aside(folder):
    with reviewing(folder) as verdicts:
        label = verdicts.say(verdicts.record.labels["c.png"], "accepted")
    accepted = mask(folder, "c")
    draw(folder / "photos" / "c.png", ("red", (0, 0, 40, 30)))
    assert main(command(folder)) == 0
    assert (mask(folder, "c") == 1).all()
    aside = folder / "out" / "set_aside" / "masks" / f"c-{label.digest[:8]}.png"
    np.testing.assert_array_equal(np.asarray(Image.open(aside)), accepted)


def test_a_run_that_is_at_a_photo_loses_to_a_drawing(folder):
    other = opened(folder)
    with reviewing(folder) as verdicts, other.joined():
        label = verdicts.record.labels["a.png"]
        other.forget([other.labels["a.png"]])
        assert other.claim("a.png")
        with pytest.raises(InputError, match="is just now"):
            verdicts.say(label, "accepted")
        done: list[object] = []
        thread = threading.Thread(
            target=lambda: done.append(verdicts.draw(label, np.ones((30, 40), np.uint8), photo(folder, "a.png")))
        )
        thread.start()
        time.sleep(0.3)
        assert done == []
        other.add(label)
        other.let_go()
        thread.join(20)
        assert done
    assert now(folder)["a.png"][0] == "drawn"
    assert (mask(folder, "a") == 1).all()


def judge_for_ever(folder: str) -> int:
    """Accepts and takes back, over and over."""
    with reviewing(Path(folder)) as verdicts:
        while True:
            for name in ("a.png", "b.png", "c.png"):
                picture = photo(Path(folder), name)
                value = np.full((30, 40), 1 + int(time.monotonic() * 1000) % 2, np.uint8)
                verdicts.draw(verdicts.record.labels[name], value, picture)
                Path(folder, "said").write_text("yes")


def test_a_kill_loses_no_word(folder):
    with two_processes(judge_for_ever, str(folder)) as running:
        while not (folder / "said").exists():
            time.sleep(0.05)
        time.sleep(0.5)
        for process in running:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
    known = now(folder)
    assert {name for name, (verdict, _, _) in known.items() if verdict == "drawn"} == set(known)
    drawn = {stem: mask(folder, stem) for stem in ("a", "b", "c")}
    assert all(len(np.unique(values)) == 1 for values in drawn.values())
    assert main(command(folder, "--redo", "*")) == 0
    for stem, values in drawn.items():
        np.testing.assert_array_equal(mask(folder, stem), values)
