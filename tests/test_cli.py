import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dsvlfs import modeling
from dsvlfs.cli import MODES, main
from dsvlfs.errors import InputError


class BrightnessModel:
    """Stands in for `DSVLFSModel`: whatever is bright is the class."""

    calls: list[dict]

    @classmethod
    def from_pretrained(cls, name: str) -> "BrightnessModel":
        if name == "absent":
            raise InputError("There is no checkpoint absent; give a folder.")
        return cls()

    def encode_support(self, examples: list) -> int:
        return len(examples)

    def segment(self, image: Image.Image, class_name: str, **options: object) -> SimpleNamespace:
        self.calls.append({"class_name": class_name, **options})
        probability = np.asarray(image.convert("L"), dtype=np.float32) / 255
        return SimpleNamespace(mask=probability >= options.get("threshold", 0.5), probability=probability)


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Puts the stand-in in the model's place, and notes what it is asked."""
    calls: list[dict] = []
    monkeypatch.setattr(BrightnessModel, "calls", calls, raising=False)
    monkeypatch.setattr(modeling, "DSVLFSModel", BrightnessModel)
    return calls


def draw(file: Path, size: tuple[int, int] = (40, 30)) -> Path:
    """A photo, dark with a bright left half, which is its own mask too."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", size)
    image.paste(255, (0, 0, size[0] // 2, size[1]))
    image.save(file)
    return file


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def only_sentence(capsys: pytest.CaptureFixture) -> str:
    """What a failed command says: one line."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dsvlfs: ")
    return line


def test_segment_writes_mask_and_overlay_of_the_photos_size(tmp_path, calls):
    query, photo, mask = (draw(tmp_path / f"{stem}.png") for stem in ("query", "photo", "mask"))
    status = run(
        *("segment", "--class-name", "red fox", "--description", "It is red.", "--query", query),
        *("--support", photo, mask, "--support", photo, mask, "--threshold", 0.25, "--out", tmp_path / "new" / "out"),
    )
    assert status == 0
    written = Image.open(tmp_path / "new" / "out" / "query_mask.png")
    assert (written.mode, written.size) == ("L", (40, 30))
    assert np.array_equal(np.unique(np.asarray(written)), [0, 255])
    assert np.asarray(written)[:, :20].all()
    assert Image.open(tmp_path / "new" / "out" / "query_overlay.png").size == (40, 30)
    assert calls == [
        {"class_name": "red fox", "support": 2, "description": "It is red.", "mode": "both", "threshold": 0.25}
    ]


def test_segment_without_support_asks_by_name(tmp_path, calls):
    assert run("segment", "--class-name", "fox", "--query", draw(tmp_path / "q.png"), "--out", tmp_path / "out") == 0
    assert (calls[0]["mode"], calls[0]["support"]) == ("semantic", None)


def test_segment_takes_folders(tmp_path):
    for name in ("b.png", "a.jpg"):
        draw(tmp_path / "queries" / name)
    (tmp_path / "queries" / "notes.txt").write_text("no photo")
    queries = (tmp_path / "queries", tmp_path / "queries" / "b.png")
    assert run("segment", "--class-name", "fox", "--query", *queries, "--out", tmp_path / "out") == 0
    written = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert written == ["a_mask.png", "a_overlay.png", "b_mask.png", "b_overlay.png"]


def test_an_unreadable_query_does_not_stop_the_others(tmp_path, capsys):
    queries = [draw(tmp_path / f"{stem}.png") for stem in "abc"]
    queries[1].write_bytes(queries[1].read_bytes()[:50])
    assert run("segment", "--class-name", "fox", "--query", *queries, "--out", tmp_path / "out") == 1
    assert sorted(file.name for file in (tmp_path / "out").glob("*_mask.png")) == ["a_mask.png", "c_mask.png"]
    (complaint,) = (line for line in capsys.readouterr().err.splitlines() if "dsvlfs: " in line)
    assert "b.png" in complaint
    assert run("segment", "--class-name", "fox", "--query", queries[1], "--out", tmp_path / "out") == 2
    assert "b.png" in only_sentence(capsys)


def test_a_query_given_by_two_paths_counts_once(tmp_path, monkeypatch, calls):
    monkeypatch.chdir(tmp_path)
    query = draw(tmp_path / "fox.png")
    assert run("segment", "--class-name", "fox", "--query", query, "fox.png", tmp_path, "--out", "out") == 0
    assert len(calls) == 1


@pytest.mark.parametrize("other", ["fox.png", "Fox.png", "fox.jpg"])
def test_queries_whose_results_would_share_a_name_are_refused(tmp_path, capsys, other):
    queries = draw(tmp_path / "a" / "fox.png"), draw(tmp_path / "b" / other)
    assert run("segment", "--class-name", "fox", "--query", *queries, "--out", tmp_path / "out") == 2
    assert "same name" in only_sentence(capsys)
    assert not (tmp_path / "out").exists()


def test_a_result_never_overwrites_an_input(tmp_path, capsys):
    photo, mask = draw(tmp_path / "fox.png"), draw(tmp_path / "fox_mask.png")
    before = mask.read_bytes()
    status = run("segment", "--class-name", "fox", "--support", photo, mask, "--query", photo, "--out", tmp_path)
    assert status == 2
    assert "would overwrite" in only_sentence(capsys)
    assert mask.read_bytes() == before


def test_wrong_inputs_of_segment_give_one_sentence(tmp_path, capsys):
    photo = draw(tmp_path / "photo.png")
    small = draw(tmp_path / "small.png", (20, 10))
    empty = tmp_path / "empty.png"
    Image.new("L", (40, 30)).save(empty)
    (tmp_path / "nothing").mkdir()
    base = ["segment", "--class-name", "fox", "--query", photo, "--out", tmp_path / "out"]
    cases = [
        (["--support", photo, small], "small.png"),
        (["--support", photo, empty], "empty.png"),
        (["--support", photo, tmp_path / "absent.png"], "absent.png"),
        (["--support", tmp_path / "absent.png", photo], "absent.png"),
        (["--query", tmp_path / "nothing"], "holds no photos"),
        (["--mode", "visual"], "--support"),
        (["--model", "absent"], "checkpoint"),
        (["--out", photo], "cannot be made"),
    ]
    for arguments, message in cases:
        assert run(*base, *arguments) == 2
        assert message in only_sentence(capsys)


@pytest.mark.parametrize("arguments", [["--threshold", "2"], ["--threshold", "much"], ["--mode", "loud"]])
def test_wrong_options_are_refused(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        run("segment", "--class-name", "fox", "--query", "q.png", "--out", tmp_path, *arguments)
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.fixture
def episodes(tmp_path: Path) -> Path:
    """A folder of photos with two single episodes and a file of mosaics."""
    entries = []
    for stem in "abcd":
        draw(tmp_path / "images" / f"{stem}.png")
        entries.append({"image": f"images/{stem}.png", "mask": f"images/{stem}.png", "name": stem})
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, entries)))
    single = [{"class_name": "half", "query": stem, "support": ["a"]} for stem in "bc"]
    (tmp_path / "single.jsonl").write_text("\n".join(map(json.dumps, single)))
    mosaic = {**single[0], "distractors": ["a", "c", "d"], "position": 0}
    (tmp_path / "mosaic.jsonl").write_text(json.dumps(mosaic))
    return tmp_path


def test_evaluate_writes_measures_and_arguments(episodes, tmp_path, capsys, calls):
    out = tmp_path / "new" / "result.json"
    status = run(
        *("evaluate", "--root", episodes, "--episodes", episodes / "single.jsonl", "--mode", "visual", "--out", out)
    )
    assert status == 0
    result = json.loads(out.read_text())
    assert result["miou"] == result["fb_iou"] == 100
    assert result["iou"] == {"half": 100}
    assert result["miou_interval_95"] == [100, 100]
    assert result["episodes"] == 2
    assert result["seconds_per_query"] >= 0
    assert "right_tile" not in result
    assert result["arguments"]["root"] == str(episodes)
    assert result["arguments"]["mode"] == "visual"
    assert result["arguments"]["limit"] is None
    assert [file.name for file in out.parent.iterdir()] == ["result.json"]
    assert [call["mode"] for call in calls] == ["visual", "visual"]
    table = capsys.readouterr().out
    assert "mIoU" in table
    assert "half" in table


def test_evaluate_counts_the_right_tile_of_mosaics(episodes, tmp_path):
    out = tmp_path / "result.json"
    assert run("evaluate", "--root", episodes, "--episodes", episodes / "mosaic.jsonl", "--out", out) == 0
    result = json.loads(out.read_text())
    assert result["miou"] == 25  # four bright halves, one of them the class
    assert result["right_tile"] == 100


def test_evaluate_limit_and_semantic_mode(episodes, tmp_path, calls):
    out = tmp_path / "result.json"
    single = episodes / "single.jsonl"
    assert (
        run("evaluate", "--root", episodes, "--episodes", single, "--out", out, "--limit", 1, "--mode", "semantic") == 0
    )
    assert json.loads(out.read_text())["episodes"] == 1
    assert [call["support"] for call in calls] == [None]


def test_wrong_inputs_of_evaluate_give_one_sentence(episodes, tmp_path, capsys):
    base = ["evaluate", "--root", episodes, "--episodes", episodes / "single.jsonl", "--out", tmp_path / "r.json"]
    cases = [
        (["--episodes", tmp_path / "absent.jsonl"], "absent.jsonl"),
        (["--root", episodes / "images"], "metadata.jsonl"),
        (["--out", tmp_path], "is a folder"),
        (["--method", "prototype", "--mode", "semantic", "--root", "absent"], "prototype has no semantic mode"),
        (["--model", "absent"], "checkpoint"),
    ]
    for arguments, message in cases:
        assert run(*base, *arguments) == 2
        assert message in only_sentence(capsys)
    assert not (tmp_path / "r.json").exists()


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from dsvlfs.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(sorted({'torch', 'transformers', 'datasets', 'PIL'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "dsvlfs", "--help"], capture_output=True, text=True, check=True)
    assert "segment" in done.stdout
    assert "evaluate" in done.stdout


def test_modes_are_the_models():
    assert MODES == modeling.MODES
