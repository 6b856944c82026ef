import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from accelerate import PartialState
from drawn_sets import draw_coco, draw_folder, draw_fss, draw_lvis, draw_pascal
from forked import run_two_processes
from PIL import Image
from stand_ins import ContrastSegmenter

from dsvlfs.data.episodes import Episode, load_episodes, named_episodes
from dsvlfs.data.protocol import protocol_episodes, write_episodes
from dsvlfs.descriptions.bank import bank_description
from dsvlfs.errors import InputError
from dsvlfs.measuring.evaluation import evaluate


def measured(segmenter: object, episodes: Sequence[Episode], mode: str, **options: object) -> dict[str, Any]:
    return evaluate(segmenter, episodes, modes=[mode], **options)[mode]


def square_episode(**changes: object) -> Episode:
    """A white square of 4 x 4 in the lower right of 8 x 8, and a base class's column beside it."""
    photo = np.full((8, 8, 3), 128, dtype=np.uint8)
    photo[4:, 4:] = photo[:, 3] = 255
    target, base = np.zeros((2, 8, 8), dtype=bool)
    target[4:, 4:] = base[:, 3] = True
    episode = Episode(
        class_name="square",
        query=Image.fromarray(photo),
        query_mask=target,
        support=[(Image.fromarray(photo), target)],
        support_ids=("a",),
        class_names=("square", "box"),
        query_base=base,
    )
    return replace(episode, **changes)


class Everything(ContrastSegmenter):
    """Takes all that is not gray."""

    def segment(self, photo: Image.Image, class_name: str, **_: object) -> SimpleNamespace:
        return SimpleNamespace(mask=np.asarray(photo)[..., 0] > 200)


def test_measures_by_hand():
    right = square_episode(query=Image.fromarray(np.kron(np.eye(2), np.full((4, 4), 255)).astype(np.uint8)))
    right = replace(right, query=Image.fromarray(np.stack([np.asarray(right.query_mask) * np.uint8(255)] * 3, -1)))
    result = measured(Everything(), [square_episode(), right], "visual")
    # 16 + 16 of 24 + 16 pixels of foreground, 40 + 48 of 48 + 48 of background; 8 of 16 base pixels.
    assert result["miou"] == result["iou"]["square"] == pytest.approx(100 * 32 / 40)
    assert result["fb_iou"] == pytest.approx(100 * (32 / 40 + 88 / 96) / 2)
    assert result["base_false_positive_rate"] == pytest.approx(50)
    assert result["episodes"] == 2
    assert not {"miou_by_seed", "shared_classes", "right_tile"} & result.keys()


def test_on_a_square_large_photos_weigh_no_more_than_small_ones():
    """A right small photo, and one of thrice its side whose mask is twice the class."""
    right = square_episode(query_base=None)
    right = replace(right, query=Image.fromarray(np.stack([np.asarray(right.query_mask) * np.uint8(255)] * 3, -1)))
    large = np.kron(np.asarray(right.query_mask), np.ones((3, 3), bool))
    wrong = np.zeros_like(large)
    wrong[12:] = True
    query = Image.fromarray(np.stack([wrong * np.uint8(255)] * 3, -1))
    wrong = replace(right, query=query, query_mask=large, support_ids=("b",))
    assert measured(Everything(), [right, wrong], "visual")["miou"] == pytest.approx(100 * (16 + 144) / (16 + 288))
    on_a_square = measured(Everything(), [right, wrong], "visual", square=24)["miou"]
    assert on_a_square == pytest.approx(100 * 2 * 144 / (3 * 144))


def test_ignored_pixels_do_not_count():
    ignore = np.zeros((8, 8), dtype=bool)
    ignore[:, 3] = True
    result = measured(Everything(), [square_episode(query_ignore=ignore)], "visual")
    assert result["miou"] == result["fb_iou"] == 100
    assert result["base_false_positive_rate"] is None  # all base pixels are ignored
    assert "base_false_positive_rate" not in measured(Everything(), [square_episode(query_base=None)], "visual")


def test_figures_are_averaged_over_seeds():
    stripe = square_episode().query_mask.copy()
    stripe[:, 3] = True
    wrong, right = square_episode(), square_episode(query_mask=stripe, seed=1)
    result = measured(Everything(), [wrong, wrong, right], "visual")
    assert result["miou_by_seed"] == {"0": pytest.approx(100 * 16 / 24), "1": 100}
    assert result["miou"] == pytest.approx(100 * (16 / 24 + 1) / 2)
    assert result["miou_std"] == pytest.approx(100 * (8 / 24) / 2**0.5)


def test_classes_that_were_trained_on_are_reported_apart():
    circle = square_episode(class_name="circle", class_names=("circle",), query_mask=np.ones((8, 8), dtype=bool))
    result = evaluate(Everything(), [square_episode(), circle], modes=["visual"], trained_classes={"box", "cup"})[
        "visual"
    ]
    assert result["shared_classes"] == {"classes": ["square"], "miou": pytest.approx(100 * 16 / 24)}
    assert result["new_classes"] == {"classes": ["circle"], "miou": pytest.approx(100 * 24 / 64)}
    result = measured(Everything(), [square_episode()], "visual", trained_classes=set())
    assert result["shared_classes"] == {"classes": [], "miou": None}


def test_an_episodes_own_description_comes_before_the_banks():
    class Asked(Everything):
        def segment(self, photo: Image.Image, class_name: str, **options: object) -> SimpleNamespace:
            asked.append(options["description"])
            return super().segment(photo, class_name)

    asked: list[str | None] = []
    named = [square_episode(class_name=name) for name in ("sock", "square")]
    result = evaluate(Asked(), [replace(named[0], description="woollen"), *named], modes=["visual"], describe=True)[
        "visual"
    ]
    assert asked == ["woollen", bank_description("sock"), None]
    assert result["described"] == 2
    evaluate(
        Asked(), [square_episode(class_name="cow")], modes=["visual"], describe=True, long_descriptions=True
    )  # fmt: skip
    assert asked[-1] == bank_description("cow", long=True) != bank_description("cow")


@pytest.fixture
def pascal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "cache"))
    return draw_pascal(tmp_path / "VOC2012")


def without_time(result: dict) -> dict:
    return {key: value for key, value in result.items() if key != "seconds_per_query"}


def test_workers_change_nothing(pascal):
    episodes = named_episodes(pascal, protocol_episodes("pascal-5i", pascal, fold=0, shots=1, seeds=2, limit=5))
    alone = measured(ContrastSegmenter(), episodes, "both")
    assert 0 < alone["miou"] < 100
    assert alone["base_false_positive_rate"] == 100  # the corners
    assert without_time(measured(ContrastSegmenter(), episodes, "both", workers=2)) == without_time(alone)
    (pascal / "JPEGImages" / "2007_000000.jpg").unlink()
    for workers in (0, 2):
        with pytest.raises(InputError, match=r"no photo .*2007_000000\.jpg") as failure:
            measured(ContrastSegmenter(), episodes, "both", workers=workers)
        assert "\n" not in str(failure.value)


def test_a_photo_is_encoded_once_for_its_episodes_and_modes(pascal):
    encoded = []

    class Counting(ContrastSegmenter):
        def encode_query(self, photo: Image.Image) -> Image.Image:
            encoded.append(photo)
            return photo

    entries = protocol_episodes("pascal-5i", pascal, fold=0, shots=1, seeds=2)
    episodes = named_episodes(pascal, entries)
    queries = {entry["query"] for entry in entries}
    assert len(queries) < len(entries)
    results = evaluate(Counting(), episodes, modes=["both", "visual"])
    assert len(encoded) == len(queries)
    assert without_time(results["both"]) == without_time(results["visual"])
    assert results["both"]["episodes"] == len(entries)


def test_every_shot_reaches_the_segmenter(tmp_path, monkeypatch):
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "cache"))
    root = draw_coco(tmp_path)
    entries = protocol_episodes("coco-20i", root, fold=0, shots=2, seeds=1, limit=4)
    segmenter = ContrastSegmenter()
    assert measured(segmenter, named_episodes(root, entries), "both")["episodes"] == 4
    assert set(segmenter.shots) == {2}
    assert measured(segmenter, named_episodes(root, entries), "semantic")["episodes"] == 4


@pytest.mark.parametrize(
    ("name", "draw", "fold"),
    [
        ("pascal-5i", draw_pascal, 0),
        ("coco-20i", draw_coco, 0),
        ("coco-20i", partial(draw_coco, year="2017"), 0),
        ("fss-1000", draw_fss, None),
        ("lvis-92i", draw_lvis, 0),
        ("folder", draw_folder, 0),
    ],
)
def test_the_model_is_measured_on_every_set(tmp_path, monkeypatch, micro_model, name, draw, fold):
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path / "cache"))
    root = draw(tmp_path / "data")
    shots = 1 if name in ("pascal-5i", "lvis-92i") else 2  # as many as their drawings have
    entries = protocol_episodes(name, root, fold=fold, shots=shots, seeds=1, limit=3)
    result = measured(micro_model, named_episodes(root, entries), "both")
    assert result["episodes"] == 3
    assert all(0 <= result[measure] <= 100 for measure in ("miou", "fb_iou", "boundary_iou"))


def evaluate_files(root: Path, files: list[Path]) -> None:
    """Measures on each file, or notes what went wrong."""
    state = PartialState(cpu=True)
    for file in files:
        try:
            result = measured(ContrastSegmenter(), load_episodes(root, file), "both")
        except InputError as error:
            result = {"error": str(error)}
        result["processes"] = state.num_processes
        file.with_suffix(f".result{state.process_index}").write_text(json.dumps(result))
    state.wait_for_everyone()
    state.destroy_process_group()  # gloo aborts a process whose partner leaves first


def test_two_processes_give_the_result_of_one_and_the_failure_of_one(pascal, tmp_path):
    entries = protocol_episodes("pascal-5i", pascal, fold=0, shots=1, seeds=3, limit=5)
    boats = [entry for entry in entries if entry["class_name"] == "boat"]
    others = [entry for entry in entries if entry["class_name"] != "boat"]
    assert boats
    assert len(others) > 3
    (pascal / "JPEGImages" / "2007_030000.jpg").unlink()  # a boat
    lists = {"readable": others, "unreadable": others + boats}  # the second process comes upon the boats
    files = [tmp_path / f"{name}.jsonl" for name in lists]
    for file, chosen in zip(files, lists.values()):
        write_episodes(file, chosen)
    ended = run_two_processes(evaluate_files, pascal, files)
    assert [status for status, _ in ended] == [0, 0], ended
    expected = without_time(measured(ContrastSegmenter(), named_episodes(pascal, others), "both"))
    for process in range(2):
        readable, unreadable = (json.loads(file.with_suffix(f".result{process}").read_text()) for file in files)
        assert readable.pop("processes") == unreadable.pop("processes") == 2
        assert without_time(readable) == json.loads(json.dumps(expected))
        assert unreadable.keys() == {"error"}
        assert "2007_030000.jpg" in unreadable["error"]
