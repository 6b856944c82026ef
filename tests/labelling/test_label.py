import json
import os
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
from datasets import load_dataset
from PIL import Image
from pycocotools.coco import COCO

from dsvlfs.cli import main
from dsvlfs.labelling import label

# What runs in each process: the command with a stand-in for the model, which takes its time.
DRIVER = """
import sys, time
from test_label import BrightnessModel
from dsvlfs.labelling import label
from dsvlfs.cli import main
class SlowModel(BrightnessModel):
    def segment(self, *arguments, **options):
        time.sleep(0.3)
        return super().segment(*arguments, **options)
label.DSVLFSModel = SlowModel
sys.exit(main(sys.argv[1:]))
"""


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


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> type[BrightnessModel]:
    monkeypatch.setattr(label, "DSVLFSModel", BrightnessModel)
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


def test_two_processes_share_the_photos_and_survive_a_kill(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    names = [draw(photos / f"{number:02d}.png", bright=number).name for number in range(24)]
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(driver)]
    command = [*launch, *arguments(photos, out)]
    path = os.pathsep.join(map(str, (*Path(__file__).parents[:2], Path(label.__file__).parents[2])))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    first = subprocess.Popen(command, env=environment, start_new_session=True)
    while len(list(out.glob("labels-*.jsonl"))) < 2:
        assert first.poll() is None
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = {name: (out / "masks" / name).stat().st_mtime_ns for name in labels(out)}
    assert 2 <= len(before) < 24
    subprocess.run(command, env=environment, check=True)
    assert labels(out) == dict.fromkeys(names, 1)
    assert all((out / f"labels-{process}.jsonl").is_file() for process in (0, 1))
    assert all((out / "masks" / name).stat().st_mtime_ns == changed for name, changed in before.items())
    assert len(COCO(out / "annotations.json").imgs) == 24
