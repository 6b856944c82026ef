import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from drawn_sets import draw_coco, draw_lvis, draw_pascal
from PIL import Image
from stand_ins import BrightnessModel

from dsvlfs import modeling, processes
from dsvlfs.cli import main
from dsvlfs.cli.arguments import AGGREGATIONS, MODES, SETS
from dsvlfs.data.named_sets import NAMED_SETS
from dsvlfs.descriptions.bank import bank_description
from dsvlfs.inference import checks
from dsvlfs.parts import aggregation


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Puts the stand-in in the model's place, and notes what it is asked."""
    calls: list[dict] = []
    monkeypatch.setattr(BrightnessModel, "calls", calls)
    monkeypatch.setattr(BrightnessModel, "devices", [])
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
        {
            "class_name": "red fox",
            "support": 2,
            "description": "It is red.",
            "mode": "both",
            "threshold": 0.25,
            "min_presence": None,
            "aggregation": None,
        }
    ]


def test_segment_aggregates_as_asked(tmp_path, calls, capsys, micro_model, monkeypatch):
    photo = draw(tmp_path / "photo.png")
    command = ["segment", "--class-name", "fox", "--query", photo, "--out", tmp_path / "out", "--support", photo, photo]
    assert run(*command, "--aggregation", "votes") == 0
    assert calls[0]["aggregation"] == "votes"
    monkeypatch.setattr("dsvlfs.cli.running.load_model", lambda name: micro_model)
    assert run(*command, "--aggregation", "joint") == 0
    capsys.readouterr()
    assert run(*command, "--aggregation", "attention") == 2
    assert "learned no attention" in only_sentence(capsys)


def test_a_second_segment_with_the_same_supports_encodes_none(tmp_path, micro_model, monkeypatch, kept_supports_folder):
    encoded = []
    encode = type(micro_model).encode_support

    def noted(model, examples):
        encoded.extend(examples)
        return encode(model, examples)

    monkeypatch.setattr(type(micro_model), "encode_support", noted)
    monkeypatch.setattr("dsvlfs.cli.running.load_model", lambda name: micro_model)
    photo = draw(tmp_path / "photo.png")
    command = ["segment", "--class-name", "circle", "--query", photo, "--support", photo, photo]
    masks = []
    for number, options in enumerate(([], [], ["--no-cache"], ["--class-name", "square"])):
        assert run(*command, *options, "--out", tmp_path / f"{number}") == 0
        masks.append((len(encoded), (tmp_path / f"{number}" / "photo_mask.png").read_bytes()))
    assert [number for number, _ in masks] == [1, 1, 2, 2]
    assert masks[0] == masks[1]
    assert masks[2][1] == masks[0][1]
    assert len(list(kept_supports_folder.glob("*.safetensors"))) == 1


def test_the_model_goes_where_the_process_is(tmp_path, monkeypatch):
    query = draw(tmp_path / "q.png")
    for device in ("cpu", "cuda:0"):
        monkeypatch.setattr(processes, "join_processes", lambda device=device: SimpleNamespace(device=device))
        assert run("segment", "--class-name", "fox", "--query", query, "--out", tmp_path / "out") == 0
        assert BrightnessModel.devices[-1] == device


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


@pytest.mark.parametrize(
    "arguments", [["--threshold", "2"], ["--threshold", "much"], ["--mode", "loud"], ["--aggregation", "sum"]]
)
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
    assert result["arguments"]["mode"] == ["visual"]
    assert result["arguments"]["limit"] is None
    assert [file.name for file in out.parent.iterdir()] == ["result.json"]
    assert [call["mode"] for call in calls] == ["visual", "visual"]
    assert not any({"aggregation", "description"} & call.keys() for call in calls)
    assert "described" not in result
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
        (["--method", "prototype", "--aggregation", "votes"], "leave --aggregation and"),
        (["--method", "prototype", "--describe"], "leave --aggregation and"),
        (["--model", "absent"], "checkpoint"),
    ]
    for arguments, message in cases:
        assert run(*base, *arguments) == 2
        assert message in only_sentence(capsys)
    assert not (tmp_path / "r.json").exists()


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of named sets."""
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "cache"))
    draw_pascal(tmp_path / "VOC2012")
    draw_coco(tmp_path / "coco")
    return tmp_path


def test_evaluate_a_named_set(sets, capsys, calls):
    out = sets / "result.json"
    options = ("--root", sets / "coco", "--set", "coco-20i", "--fold", 1, "--shots", 2, "--seeds", 2, "--limit", 6)
    assert run("evaluate", *options, "--aggregation", "joint", "--out", out) == 0
    result = json.loads(out.read_text())
    assert result["episodes"] == 12
    assert result["iou"].keys() == {"bicycle", "bus"}
    assert result["miou"] == pytest.approx(np.mean(list(result["miou_by_seed"].values())))
    assert {"boundary_iou", "base_false_positive_rate", "fb_iou", "miou_std"} <= result.keys()
    assert (result["arguments"]["set"], result["arguments"]["fold"]) == ("coco-20i", 1)
    assert {(call["support"], call["aggregation"]) for call in calls} == {(2, "joint")}
    table = capsys.readouterr().out
    for words in ("boundary IoU", "base classes covered", "2 seeds"):
        assert words in table


def test_evaluate_describes_the_classes_where_asked(sets, calls):
    options = ("--root", sets / "VOC2012", "--set", "pascal-5i", "--fold", 0, "--seeds", 1, "--limit", 5)
    assert run("evaluate", *options, "--describe", "--out", sets / "result.json") == 0
    result = json.loads((sets / "result.json").read_text())
    assert result["described"] == 5
    assert result["arguments"]["describe"] is True
    assert {call["description"] for call in calls} == {bank_description(call["class_name"]) for call in calls}


def test_a_written_list_measures_the_same(sets):
    root, file = sets / "VOC2012", sets / "new" / "episodes.jsonl"
    options = ("--root", root, "--set", "pascal-5i", "--fold", 2, "--seeds", 2, "--limit", 4)
    assert run("episodes", *options, "--out", file) == 0
    assert run("evaluate", *options, "--out", sets / "a.json") == 0
    assert run("evaluate", "--root", root, "--episodes", file, "--out", sets / "b.json") == 0
    one, other = (json.loads((sets / name).read_text()) for name in ("a.json", "b.json"))
    for result in (one, other):
        del result["arguments"], result["seconds_per_query"]
    assert one == other


@pytest.mark.parametrize(
    ("tested", "trained", "shared", "new"),
    [
        ("pascal-5i", "coco-20i:0", {"bicycle", "car", "motorbike"}, {"person", "aeroplane", "boat"}),
        ("coco-20i", "pascal-5i:0", {"person", "car", "motorcycle", "train"}, {"airplane", "bicycle", "truck"}),
        ("coco-20i", "pascal-5i", {"airplane", "bicycle"}, {"truck"}),
    ],
)
def test_another_set_than_trained_on_reports_shared_classes_apart(sets, capsys, tested, trained, shared, new):
    root, out = sets / {"pascal-5i": "VOC2012", "coco-20i": "coco"}[tested], sets / "result.json"
    options = ("--root", root, "--set", tested, "--trained-on", trained, "--seeds", 1, "--limit", 40)
    assert run("evaluate", *options, "--out", out) == 0
    result = json.loads(out.read_text())
    assert shared <= set(result["shared_classes"]["classes"])
    assert new <= set(result["new_classes"]["classes"])
    assert "base_false_positive_rate" in result
    assert "mIoU, trained classes" in capsys.readouterr().out


def test_wrong_inputs_of_named_sets_give_one_sentence(sets, capsys):
    base = ["evaluate", "--root", sets / "coco", "--out", sets / "r.json"]
    cases = [
        (["--set", "coco-20i", "--fold", 4], "has no fold 4"),
        (["--set", "pascal-5i", "--fold", 0], "SegmentationClassAug"),
        (["--set", "coco-20i", "--fold", 0, "--shots", 9], "9 other photos"),
        (["--set", "coco-20i", "--trained-on", "fss-1000"], "give its folder"),
        (["--set", "coco-20i", "--trained-on", "pascal-5i:7"], "no fold 7"),
        (["--episodes", sets / "e.jsonl", "--fold", 0], "leave these options out"),
    ]
    for arguments, message in cases:
        capsys.readouterr()
        assert run(*base, *arguments) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (sets / "r.json").exists()
    with pytest.raises(SystemExit):
        run(*base, "--set", "coco-20i", "--trained-on", "imagenet")
    assert run("episodes", "--root", sets / "coco", "--set", "coco-20i", "--out", sets) == 2
    draw_lvis(sets / "lvis")
    options = ("--root", sets / "lvis", "--set", "lvis-92i", "--fold", 0, "--trained-on", "lvis-92i:0")
    assert run("evaluate", *options, "--limit", 2, "--out", sets / "r.json") == 0


def test_only_the_first_process_complains(sets, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert run("episodes", "--root", sets, "--set", "folder", "--out", sets / "e.jsonl") == 2
    assert capsys.readouterr().err == ""


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
    assert MODES == checks.MODES


def test_aggregations_are_the_models():
    assert AGGREGATIONS == aggregation.AGGREGATIONS


def test_sets_are_the_named():
    assert tuple(NAMED_SETS) == SETS
