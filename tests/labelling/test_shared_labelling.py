"""Labelling that two processes share, as they are without a launcher, which would end one when the other fails."""

import os
from pathlib import Path

from colour_model import ColourModel
from drawn_sets import draw_folder
from forked import run_two_processes

from dsvlfs import cli
from dsvlfs.labelling import request
from dsvlfs.labelling.record import Label, Record


def label_command(photos: Path, out: Path) -> int:
    add = Record.add

    def on_a_full_disk(record: Record, made: Label) -> None:
        if os.environ["RANK"] == "1":
            raise OSError("No space left on device")
        add(record, made)

    request.DSVLFSModel, Record.add = ColourModel, on_a_full_disk
    return cli.main(["label", "--class-name", "red", "--photos", str(photos), "--out", str(out)])


def test_a_failed_share_fails_in_both(tmp_path):
    photos, out = draw_folder(tmp_path / "set") / "images", tmp_path / "labels"
    (first, errors), (second, others_errors) = run_two_processes(label_command, photos, out)
    assert (first, second) == (2, 2), (errors, others_errors)
    assert "dsvlfs: No space left on device" in errors.splitlines()
    assert "No space" not in others_errors
    assert list(out.glob("masks/*.png"))  # what the other did is kept
