import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from dsvlfs import InputError
from dsvlfs.labelling.labels import Figures, ObjectFigures
from dsvlfs.labelling.record import Label, Record, line_of

SETTINGS = {"threshold": 0.5, "classes": {"fox": {"description": None, "examples": ["a"]}}}


def label(photo: str, digest: str = "1") -> Label:
    figures = Figures(5.0, 0.5, 0.6, 0.7)
    return Label(
        photo=photo,
        digest=digest,
        mask=f"masks/{photo}.png",
        overlay=f"overlays/{photo}.jpg",
        mask_stamp="1",
        width=8,
        height=6,
        classes={"fox": figures},
        found=[ObjectFigures(1, (1, 2, 3, 4), 12, 0.5)],
        **vars(figures),
    )


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path, SETTINGS, "photos")


def again(record: Record) -> Record:
    """The same folder, as another run sees it."""
    return Record(record.folder, SETTINGS, "photos")


def test_a_label_is_read_as_it_was_written(record):
    odd = os.fsdecode(b"caf\xe9\n.png")
    with record.joined():
        for name in ("a", odd):
            assert record.claim(name) is True
            record.add(label(name))
        assert record.claim("a") is False
    other = again(record)
    with other.joined():
        assert other.labels["a"] == replace(label("a"), number=1)
        assert other.labels[odd].found == label(odd).found
        assert other.claim(odd) is False
    assert (record.folder / "labels-0.jsonl").read_bytes().count(b"\n") == 2


def test_two_runs_share_the_photos(record):
    other = again(record)
    with record.joined(), other.joined():
        assert record.claim("a") is True
        assert other.claim("a") is None
        assert other.claim("b") is True
        record.add(label("a"))
        assert other.claim("a") is False
        other.add(label("b"))
        assert record.claim("b") is False
        assert {entry.number for entry in record.labels.values()} == {1, 2}
    assert sorted(file.name for file in record.folder.glob("*.jsonl")) == ["labels-0.jsonl", "labels-1.jsonl"]


def test_what_one_cannot_read_the_other_leaves(record):
    other = again(record)
    with other.joined():
        with record.joined():
            assert record.claim("a") is True
            record.fail("a")
            assert other.claim("a") is False
        assert other.claim("a") is True  # perhaps it can


def test_a_dead_run_holds_nothing(record):
    pid = os.fork()
    if pid == 0:
        try:
            dying = again(record)
            with dying.joined():
                os._exit(0 if dying.claim("a") else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert (record.folder / ".work/claim-0").read_text() == '["a", []]'
    other = again(record)
    with other.joined():
        assert other.claim("a") is True


def test_half_a_line_does_not_count(record):
    with record.joined():
        record.claim("a")
        record.add(label("a"))
    journal = record.folder / "labels-0.jsonl"
    journal.write_bytes(journal.read_bytes() + line_of(label("b")).encode()[:40])
    other = again(record)
    with other.joined():
        assert list(other.labels) == ["a"]
        other.claim("b")
        other.add(label("b"))
    assert [json.loads(line)["photo"] for line in journal.read_text().splitlines()] == ["a", "b"]


def test_what_does_not_hold_any_more_is_done_again_and_once(record):
    other = again(record)
    with record.joined(), other.joined():
        record.claim("a")
        record.add(label("a", "old"))
        other.refresh()
        outdated = [other.labels["a"]]
        # The other run's file is not this one's to write to.
        other.forget(outdated)
        record.forget(outdated)
        assert record.claim("a") is True
        record.add(label("a", "new"))
        assert other.claim("a") is False
        assert other.labels["a"].digest == "new"
        other.forget(outdated)  # it was judged before; the newer one stays
        assert other.labels["a"].digest == "new"
    assert (record.folder / "labels-0.jsonl").read_text().count("\n") == 1


def test_other_settings_are_named(record):
    with record.joined():
        record.claim("a")
        record.add(label("a"))
    for settings, name in (
        ({**SETTINGS, "threshold": 0.4}, "threshold"),
        ({**SETTINGS, "classes": {"fox": {"description": None, "examples": ["b"]}}}, "examples"),
        ({**SETTINGS, "classes": {"owl": {}}}, "classes"),
    ):
        with pytest.raises(InputError, match=rf"other settings \({name}\)"):
            Record(record.folder, settings, "photos").check()


def test_two_runs_of_other_settings_do_not_meet(record):
    with (
        record.joined(),
        pytest.raises(InputError, match="other settings"),
        Record(record.folder, {**SETTINGS, "threshold": 0.4}, "photos").joined(),
    ):
        pass
