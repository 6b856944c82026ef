import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
from colour_model import ColourModel
from datasets import load_dataset
from forked import run_process, run_two_processes, two_processes
from PIL import Image
from pycocotools.coco import COCO

from dsvlfs.cli import main
from dsvlfs.labelling import label, request
from dsvlfs.labelling.labels import Figures, overall
from dsvlfs.labelling.record import Label
from dsvlfs.labelling.review import worst_first, write_sheet


class BrightnessModel:
    """Stands in for `DSVLFSModel`: whatever is bright is the class."""

    stop_after: int | None = None
    asked = 0
    options: dict

    @classmethod
    def from_pretrained(cls, name: str) -> "BrightnessModel":
        return cls()

    def to(self, device: object) -> None:
        pass

    def encode_support(self, examples: list) -> int:
        return len(examples)

    def segment(self, image: Image.Image, class_name: str, threshold: float, **options: object) -> SimpleNamespace:
        if type(self).asked == self.stop_after:
            raise KeyboardInterrupt
        type(self).asked += 1
        type(self).options = options
        probability = np.asarray(image.convert("L"), dtype=np.float32) / 255
        return SimpleNamespace(mask=probability >= threshold, probability=probability)


class SlowModel(BrightnessModel):
    def segment(self, *arguments: object, **options: object) -> SimpleNamespace:
        time.sleep(0.3)
        return super().segment(*arguments, **options)


def label_slowly(command: list[str]) -> int:
    """The command with a stand-in that takes its time, for a process of its own."""
    request.DSVLFSModel = SlowModel
    return main(command)


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> type[BrightnessModel]:
    monkeypatch.setattr(request, "DSVLFSModel", BrightnessModel)
    monkeypatch.setattr(BrightnessModel, "asked", 0)
    return BrightnessModel


def draw(file: Path, bright: int = 20) -> Path:
    """A photo (40 x 30) whose left part is bright."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", (40, 30))
    image.paste(255, (0, 0, bright, 30))
    image.save(file)
    return file


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number, name in enumerate(["a.png", "b.png", "nested/a.png", "nested/z.png"]):
        draw(folder / name, bright=10 * number)
    (folder / "notes.txt").write_text("no photo")
    return folder


def arguments(photos: object, out: Path, *more: object) -> list[str]:
    support = draw(out.parent / "support.png")
    given = ["label", "--class-name", "fox", "--support", support, support, "--photos", photos, "--out", out, *more]
    return [str(argument) for argument in given]


def labels(out: Path) -> Counter[str]:
    """How often each photo was labelled."""
    lines = [line for file in out.glob("labels-*.jsonl") for line in file.read_text().splitlines()]
    return Counter(json.loads(line)["photo"] for line in lines)


def test_every_photo_gets_a_mask_an_overlay_and_its_place_in_the_data_set(photos, tmp_path):
    out = tmp_path / "out"
    assert main(arguments(photos, out)) == 0
    mask = Image.open(out / "masks" / "nested" / "a.png")
    assert (mask.mode, mask.size) == ("L", (40, 30))
    assert np.asarray(mask)[:, :20].all()
    assert not np.asarray(mask)[:, 20:].any()
    assert Image.open(out / "overlays" / "nested" / "z.jpg").size == (40, 30)
    coco = COCO(out / "annotations.json")
    assert [entry["file_name"] for entry in coco.loadImgs(coco.getImgIds())] == [
        "a.png", "b.png", "nested/a.png", "nested/z.png",
    ]  # fmt: skip
    assert [entry["area"] for entry in coco.loadAnns(coco.getAnnIds())] == [300, 600, 900]  # 'a' is empty
    rows = load_dataset(str(out / "dataset"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["photo"][:] == ["a.png", "b.png", "nested/a.png", "nested/z.png"]
    np.testing.assert_array_equal(np.asarray(rows[2]["mask"]), np.asarray(mask))
    np.testing.assert_array_equal(np.asarray(rows[2]["image"]), np.asarray(Image.open(photos / "nested" / "a.png")))
    assert rows["area_percent"][:] == [0.0, 25.0, 50.0, 75.0]
    assert rows["score"][:] == [0.0, 1.0, 1.0, 1.0]
    sheet = Image.open(out / "contact_sheet.jpg")
    assert sheet.width > 4 * 200


def test_a_stopped_run_goes_on_where_it_was(photos, tmp_path, model, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(model, "stop_after", 2)
    assert main(arguments(photos, out)) == 130
    assert sum(labels(out).values()) == 2
    with (out / "labels-0.jsonl").open("a") as file:
        file.write('{"photo": "nes')  # killed while writing
    monkeypatch.setattr(model, "stop_after", None)
    assert main(arguments(photos, out)) == 0
    assert model.asked == 4  # none twice
    assert len(COCO(out / "annotations.json").imgs) == 4  # none missing
    assert main(arguments(photos, out)) == 0
    assert model.asked == 4
    draw(photos / "new.png")
    assert main(arguments(photos, out)) == 0
    assert model.asked == 5


def test_labels_of_other_settings_are_not_mixed(photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(arguments(photos, out)) == 0
    assert main(arguments(photos, out, "--threshold", 0.9)) == 2
    assert "other settings (threshold)" in capsys.readouterr().err
    assert main(arguments(photos, out, "--alike")) == 2
    assert "other settings (alike)" in capsys.readouterr().err
    again = arguments(photos, out)
    draw(tmp_path / "support.png", bright=5)  # the same name, another example
    assert main(again) == 2
    assert "other settings (examples)" in capsys.readouterr().err


def test_labels_aggregate_as_asked_and_older_ones_did_as_the_checkpoint(photos, tmp_path, model, capsys):
    assert main(arguments(photos, tmp_path / "votes", "--aggregation", "votes")) == 0
    assert model.options["aggregation"] == "votes"
    out = tmp_path / "out"
    assert main(arguments(photos, out)) == 0
    settings = json.loads((out / "settings.json").read_text())
    assert settings.pop("aggregation", "") is None
    (out / "settings.json").write_text(json.dumps(settings))
    assert main(arguments(photos, out, "--aggregation", "votes")) == 2
    assert "other settings (aggregation)" in capsys.readouterr().err
    draw(photos / "new.png")
    assert main(arguments(photos, out)) == 0
    assert len(labels(out)) == 5


def test_an_unreadable_photo_does_not_stop_the_others(photos, tmp_path, capsys):
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:40])
    assert main(arguments(photos, tmp_path / "out")) == 1
    (complaint,) = (line for line in capsys.readouterr().err.splitlines() if "dsvlfs: " in line)
    assert "b.png" in complaint
    assert sorted(labels(tmp_path / "out")) == ["a.png", "nested/a.png", "nested/z.png"]


def test_a_data_set_is_labelled_like_a_folder(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    assert main(arguments(photos, tmp_path / "first")) == 0
    out = tmp_path / "second"
    assert main(arguments(tmp_path / "first" / "dataset", out)) == 0
    np.testing.assert_array_equal(
        np.asarray(Image.open(out / "masks" / "000002.png")),
        np.asarray(Image.open(tmp_path / "first" / "masks" / "nested" / "a.png")),
    )
    assert main(arguments(tmp_path / "first" / "dataset", out, "--image-column", "mask")) == 2  # other photos


def test_a_failed_start_can_be_mended(tmp_path):
    for model in ("absent", "dsvlfs-tiny"):
        record = label.Record(tmp_path, {"model": model}, "photos")
        with record.joined():
            assert record.labels == {}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--photos", "absent/data"], "neither a folder of photos nor a data set"),
        (["--mode", "visual", "--support", "absent.png", "absent.png"], "There is no photo absent.png"),
    ],
)
def test_wrong_input_is_one_sentence(photos, tmp_path, capsys, monkeypatch, change, sentence):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert main(arguments(photos, tmp_path / "out", *change)) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_results_among_the_photos_are_refused(photos, capsys):
    assert main(arguments(photos, photos / "labels")) == 2
    assert "would be taken for photos" in capsys.readouterr().err


def test_photos_of_equal_stems_are_kept_apart(photos, tmp_path):
    assert main(arguments(photos, tmp_path / "out")) == 0
    draw(photos / "A.jpg")
    draw(photos / "b.jpg")
    assert main(arguments(photos, tmp_path / "out")) == 0
    lines = [json.loads(line) for line in (tmp_path / "out/labels-0.jsonl").read_text().splitlines()]
    masks = {line["photo"]: line["mask"] for line in lines}
    assert masks["a.png"] == "masks/a.png"  # as it was before
    assert len({name.casefold() for name in masks.values()}) == len(masks) == 6
    assert all((tmp_path / "out" / name).is_file() for name in masks.values())


def first_line(out: Path) -> dict:
    return json.loads((out / "labels-0.jsonl").read_text().splitlines()[0])


def test_several_classes_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(request, "DSVLFSModel", ColourModel)
    project = tmp_path / "p.yaml"
    draw(tmp_path / "support.png")
    project.write_text(
        "classes:\n  green: {}\n  red:\n    supports: [{photo: support.png, mask: support.png}]\n  blue: {}\n"
    )
    image = Image.new("RGB", (40, 30), "red")
    image.paste((0, 0, 255), (20, 0, 40, 30))
    (tmp_path / "photos").mkdir()
    image.save(tmp_path / "photos/a.png")
    Image.new("RGB", (20, 20), "gray").save(tmp_path / "photos/b.png")
    out = tmp_path / "out"
    given = [str(word) for word in ("label", "--project", project, "--photos", tmp_path / "photos", "--out", out)]
    assert main(given) == 0
    assert "2 photos labelled (1 left empty, 2 with a class that is hardly there left out)" in capsys.readouterr().out
    mask = Image.open(out / "masks/a.png")
    assert mask.mode == "P"
    assert np.asarray(mask)[0, [0, 39]].tolist() == [2, 3]
    coco = COCO(out / "annotations.json")
    assert [entry["category_id"] for entry in coco.loadAnns(coco.getAnnIds())] == [2, 3]
    line = first_line(out)
    assert line["classes"]["green"]["is_emptied"]
    assert not line["is_emptied"]
    assert line["presence"] > 0.5
    project.write_text(project.read_text() + "  orange: {}\n")
    assert main(given) == 2
    assert "other settings (classes)" in capsys.readouterr().err


def test_a_photo_that_was_replaced_is_done_again(photos, tmp_path, model):
    out = tmp_path / "out"
    assert main(arguments(photos, out)) == 0
    Image.new("L", (50, 20), 255).save(photos / "b.png")
    assert main(arguments(photos, out)) == 0
    assert model.asked == 5
    assert Image.open(out / "masks/b.png").size == (50, 20)
    assert set(labels(out).values()) == {1}
    os.utime(photos / "a.png")  # the content is the same
    assert main(arguments(photos, out)) == 0
    assert model.asked == 5


@pytest.mark.parametrize("damage", ["deleted", "cut", "empty", "other size", "no image"])
def test_a_mask_that_is_gone_or_damaged_is_made_again(photos, tmp_path, model, damage):
    out = tmp_path / "out"
    assert main(arguments(photos, out)) == 0
    mask = out / "masks/nested/z.png"
    before = mask.read_bytes()
    if damage == "deleted":
        mask.unlink()
    elif damage == "other size":
        Image.new("L", (4, 4)).save(mask)
    else:
        mask.write_bytes({"cut": before[:-20], "empty": b"", "no image": b"?" * len(before)}[damage])
    assert main(arguments(photos, out)) == 0
    assert mask.read_bytes() == before
    assert model.asked == 5
    assert sum(labels(out).values()) == 4


def test_a_mask_that_a_person_corrected_stays(photos, tmp_path, model):
    out = tmp_path / "out"
    assert main(arguments(photos, out)) == 0
    corrected = Image.new("L", (40, 30))
    corrected.paste(255, (0, 0, 3, 3))
    corrected.save(out / "masks/b.png")
    assert main(arguments(photos, out)) == 0
    assert model.asked == 4
    coco = COCO(out / "annotations.json")
    assert coco.loadAnns(coco.getAnnIds(imgIds=[2]))[0]["area"] == 9


def test_an_overlay_that_is_gone_or_damaged_is_drawn_again(photos, tmp_path, model):
    out = tmp_path / "out"
    assert main(arguments(photos, out)) == 0
    (out / "overlays/a.jpg").unlink()
    (out / "overlays/b.jpg").write_bytes((out / "overlays/b.jpg").read_bytes()[:300])
    assert main(arguments(photos, out)) == 0
    for name in "ab":
        Image.open(out / f"overlays/{name}.jpg").load()
    assert model.asked == 4


def test_a_moved_folder_goes_on_and_another_is_refused(photos, tmp_path, model, capsys):
    out = tmp_path / "out"
    assert main(arguments(photos, out)) == 0
    moved = photos.rename(tmp_path / "moved")
    draw(moved / "new.png")
    (moved / "b.png").unlink()
    assert main(arguments(moved, out)) == 0
    assert model.asked == 5
    other = tmp_path / "other"
    for name in ("a.png", "new.png"):
        draw(other / name, bright=37)
    assert main(arguments(other, out)) == 2
    assert f"labels of other photos ({moved})" in capsys.readouterr().err
    assert main(arguments(moved, out)) == 0
    assert model.asked == 5


def test_photos_are_done_again_as_asked(photos, tmp_path, model, capsys):
    out = tmp_path / "out"
    assert main(arguments(photos, out)) == 0
    assert main(arguments(photos, out, "--redo", "a.png", "nested/*")) == 0
    assert model.asked == 7
    assert set(labels(out).values()) == {1}
    assert "3 photos labelled (1 left empty); 1 labelled before" in capsys.readouterr().out
    assert main(arguments(photos, out, "--redo", "absent.png")) == 2
    assert "no photo 'absent.png'" in capsys.readouterr().err


def test_the_end_says_what_was_done(photos, tmp_path, capsys):
    (photos / "b.png").write_bytes(b"no image")
    (photos / "c.nef").write_bytes(b"raw")
    support = photos / "support.png"
    draw(support)
    given = arguments(photos, tmp_path / "out", "--support", support, support)
    assert main(given) == 1
    told = capsys.readouterr().out
    assert told == (
        "3 photos labelled (1 left empty); 1 skipped: unreadable; 1 skipped: raw photo; 1 skipped: support. "
        f"Results in {tmp_path / 'out'}.\n"
    )


def test_the_sheet_begins_where_a_correction_gains_most(tmp_path):
    def one(name: str, **classes: Figures) -> Label:
        return Label(
            photo=name, digest="", mask="", overlay=f"{name}.jpg", mask_stamp="", width=1, height=1, classes=classes,
            **vars(overall(list(classes.values()))),
        )  # fmt: skip

    order = [
        one("good", fox=Figures(20.0, 0.5, 0.9, 0.9), wolf=Figures(0.0, 0.0, None, 0.0)),
        one("small and bad", fox=Figures(1.0, 0.5, 0.2, 0.9), wolf=Figures(0.0, 0.0, None, 0.0)),
        one("large and half good", fox=Figures(20.0, 0.5, 0.5, 0.9), wolf=Figures(0.0, 0.0, None, 0.0)),
        one("rare", fox=Figures(0.0, 0.0, None, 0.0), wolf=Figures(0.5, 0.5, 0.5, 0.9)),  # half of all wolves
        one("doubted", fox=Figures(0.0, 0.0, None, 0.4), wolf=Figures(0.0, 0.0, None, 0.0)),
    ]
    assert [entry.photo for entry in worst_first(order)] == [
        "rare", "large and half good", "doubted", "good", "small and bad",
    ]  # fmt: skip
    for entry in order:
        Image.new("RGB", (9, 9)).save(tmp_path / entry.overlay)
    write_sheet(tmp_path / "sheet.jpg", order, tmp_path)
    assert Image.open(tmp_path / "sheet.jpg").width > 4 * 200


# A disk that fills: a limit on file sizes, in a process each.
def label_on_a_full_disk(command: list[str], limit: int) -> int:
    """The command, where no file may grow beyond so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    request.DSVLFSModel = BrightnessModel
    return main(command)


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_made(tmp_path):
    photos, out, limits = tmp_path / "photos", tmp_path / "out", (300, 500, 2000, 20000, 30000)
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    for name in "ab":
        Image.fromarray(noise).save(photos / f"{name}.png")
    given = arguments(photos, out)[:-2]
    for limit in limits:
        status, told = run_process(label_on_a_full_disk, [*given, "--out", f"{out}-{limit}"], limit)
        assert status == 2
        (complaint,) = (line for line in told.splitlines() if line.startswith("dsvlfs: "))
        assert "disk is full" in complaint
        folder = Path(f"{out}-{limit}")
        for name in labels(folder):
            for part in (f"masks/{name}", f"overlays/{Path(name).stem}.jpg"):
                Image.open(folder / part).load()
        assert main([*given, "--out", str(folder)]) == 0
        assert len(COCO(folder / "annotations.json").imgs) == 2


def test_a_terminated_run_says_how_to_go_on(photos, tmp_path, model, capsys):
    def terminated(self, *arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BrightnessModel, "segment", terminated)
        assert main(arguments(photos, tmp_path / "out")) == 143
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dsvlfs: ")]
    assert told == ["dsvlfs: stopped; what is labelled is kept: the same command goes on from there."]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("seed", [3])
def test_killed_at_random_moments_nothing_is_lost_or_done_twice(tmp_path, seed):
    path = os.pathsep.join(map(str, (*Path(__file__).parents[:2], Path(label.__file__).parents[2])))
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("kill_runs.py"), tmp_path / "kills", "4", str(seed)],
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "nothing lost, nothing done twice", done.stderr[-2000:]


def test_supports_without_a_mask_image(photos, tmp_path, model, monkeypatch):
    shown = []
    monkeypatch.setattr(BrightnessModel, "encode_support", lambda self, examples: shown.append(examples))
    numbers = np.zeros((30, 40), dtype=np.uint8)
    numbers[:, :10], numbers[:, 10:15] = 7, 3
    Image.fromarray(numbers).save(tmp_path / "index.png")
    photo = draw(tmp_path / "p.png")
    given = ["label", "--class-name", "fox", "--photos", photos, "--support", photo, tmp_path / "index.png"]
    assert main([*map(str, given), "--mask-value", "7", "--out", str(tmp_path / "one")]) == 0
    assert shown[0][0][1].sum() == 300
    monkeypatch.setattr(
        "dsvlfs.labelling.supports.mask_in_box", lambda model, photo, box: np.full((30, 40), box[0] == 1)
    )
    monkeypatch.setattr(
        "dsvlfs.labelling.supports.mask_at_points",
        lambda model, photo, inside, beside: np.full((30, 40), len(inside) == 2),
    )
    given = ["label", "--class-name", "fox", "--photos", photos, "--box", photo, 1, 2, 30, 20]
    given += ["--point", photo, 3, 4, "--point", photo, 5, 6.5]
    assert main([*map(str, given), "--out", str(tmp_path / "two")]) == 0
    assert [mask.all() for _, mask in shown[1]] == [True, True]
    line = json.loads((tmp_path / "two/settings.json").read_text())["classes"]["fox"]["examples"]
    assert line[0]["box"] == [1, 2, 30, 20]
    assert line[1]["inside"] == [[3, 4], [5, 6.5]]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "nothing to label"),
        (["--class-name", "fox", "--project", "p.yaml"], "said twice"),
        (["--project", "p.yaml", "--description", "red"], "has its own examples"),
        (["--class-name", "fox", "--mask-value", "7"], "--mask-value is of the masks"),
        (["--class-name", "fox", "--box", "a.png", "1", "2", "3", "x"], "no place in a photo"),
        (["--class-name", "fox", "--point", "a.png", "1", "nan"], "no place in a photo"),
        (["--class-name", "fox", "--point", "a.png", "1", "2"], "There is no photo a.png"),
    ],
)
def test_wrong_words_are_one_sentence(photos, tmp_path, capsys, words, sentence):
    assert main(["label", "--photos", str(photos), "--out", str(tmp_path / "out"), *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_data_set_is_sent_to_the_hub(photos, tmp_path, monkeypatch, capsys):
    sent = {}

    class Hub:
        def __init__(self, token: object) -> None: ...

        def create_repo(self, repo_id: str, **options: object) -> SimpleNamespace:
            sent.update(options)
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, folder_path: Path, **options: object) -> SimpleNamespace:
            sent.update(options, files=sorted(file.name for file in folder_path.iterdir()))
            return SimpleNamespace(commit_url="https://hub/commit")

    monkeypatch.setattr("dsvlfs.labelling.formats.huggingface.HfApi", Hub)
    assert main(arguments(photos, tmp_path / "out", "--push-to-hub", "me/foxes")) == 0
    assert "https://hub/commit" in capsys.readouterr().out
    assert (sent["repo_type"], sent["private"], sent["repo_id"]) == ("dataset", True, "me/foxes")
    assert sent["files"] == ["README.md", "train.parquet"]


def test_two_processes_share_the_photos_and_survive_a_kill(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    names = [draw(photos / f"{number:02d}.png", bright=number).name for number in range(24)]
    command = arguments(photos, out)
    with two_processes(label_slowly, command) as running:
        while len(list(out.glob("labels-*.jsonl"))) < 2:
            assert all(process.is_alive() for process in running)
            time.sleep(0.05)
    before = {name: (out / "masks" / name).stat().st_mtime_ns for name in labels(out)}
    assert 2 <= len(before) < 24
    ended = run_two_processes(label_slowly, command)
    assert [status for status, _ in ended] == [0, 0], ended
    assert labels(out) == dict.fromkeys(names, 1)
    assert all((out / f"labels-{process}.jsonl").is_file() for process in (0, 1))
    assert all((out / "masks" / name).stat().st_mtime_ns == changed for name, changed in before.items())
    assert len(COCO(out / "annotations.json").imgs) == 24
