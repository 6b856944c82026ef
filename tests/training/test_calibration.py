"""Calibration and what follows from it; the uncertainty analysis on the micro model and drawn photos."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import build_micro_model
from drawn_packs import draw_episodes
from PIL import Image
from sklearn.metrics import roc_auc_score

from dsvlfs import DSVLFSModel, InputError
from dsvlfs.cli import main
from dsvlfs.data.episodes import load_episodes
from dsvlfs.inference.calibration import (
    Calibration,
    expected_calibration_error,
    expected_iou,
    fit_calibration,
    reliability,
)
from dsvlfs.inference.results import Prediction
from dsvlfs.measuring.analysis import uncertainty
from dsvlfs.training import calibrate
from dsvlfs.training.requests import Request, field_requests


def test_the_error_of_a_hand_computed_case():
    # Bin 1 of 2: 0.1 and 0.3, one of two is foreground: |0.2 - 0.5|. Bin 2: 0.9, foreground: |0.9 - 1|.
    table = reliability(np.array([0.1, 0.3, 0.9]), np.array([0.0, 1.0, 1.0]), bins=2)
    np.testing.assert_allclose(table, [[2, 0.2, 0.5], [1, 0.9, 1.0]])
    assert expected_calibration_error(table) == pytest.approx((2 * 0.3 + 0.1) / 3)
    assert reliability(np.array([1.0]), np.array([1.0]))[-1, 0] == 1


def test_a_fit_finds_what_logits_were_made_with():
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(40_000, generator=generator) * 3
    target = (torch.rand(40_000, generator=generator) < true.sigmoid()).float()
    fitted = fit_calibration(true * 2 - 1, target)
    assert fitted.temperature == pytest.approx(2, rel=0.05)
    assert fitted.bias == pytest.approx(1, abs=0.08)
    errors = [
        expected_calibration_error(reliability(logits.sigmoid().numpy(), target.numpy()))
        for logits in (true * 2 - 1, fitted(true * 2 - 1))
    ]
    assert errors[1] < 0.01 < errors[0]


def test_the_iou_to_expect_of_a_mask():
    probability = np.array([[1.0, 0.5], [0.25, 0.0]])
    mask = probability >= 0.5
    assert expected_iou(mask, probability) == pytest.approx(1.5 / (2 + 0.25))
    assert expected_iou(mask & False, probability) == 0


def test_a_mask_of_which_little_is_expected_can_be_left_empty():
    logits = torch.tensor([[[2.0, -1.0], [-3.0, -3.0]]])
    plain = Prediction(logits, (2, 2), 0.5).segmentation()
    assert plain.expected_iou is None
    prediction = Prediction(logits, (2, 2), 0.5, calibration=Calibration(2.0, -1.0))
    calibrated = torch.sigmoid((logits[0] - 1) / 2).numpy()
    np.testing.assert_allclose(prediction.calibrated(), calibrated, rtol=1e-6)
    kept = prediction.segmentation()
    np.testing.assert_array_equal(kept.mask, plain.mask)
    np.testing.assert_array_equal(kept.probability, plain.probability)
    assert kept.expected_iou == pytest.approx(expected_iou(plain.mask, calibrated))
    assert kept.presence == kept.expected_iou  # no other sign is given
    seen = replace(prediction, fits=(0.5, -0.2))
    score = seen.segmentation().presence
    assert score == pytest.approx((kept.expected_iou + 0.5) / 3)
    low, high = (seen.segmentation(min_presence=score + d) for d in (-0.01, 0.01))
    np.testing.assert_array_equal(low.mask, plain.mask)
    assert not low.is_emptied
    assert not high.mask.any()
    assert high.is_emptied
    assert (high.expected_iou, high.presence) == (kept.expected_iou, score)
    # The model's own limit holds unless another is named.
    limited = replace(seen, min_presence=score + 0.01)
    assert not limited.segmentation().mask.any()
    np.testing.assert_array_equal(limited.segmentation(min_presence=0).mask, plain.mask)
    with pytest.raises(ValueError, match="no calibration"):
        Prediction(logits, (2, 2), 0.5).calibrated()


def test_the_area_under_the_roc_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    present, absent = rng.random(30) + 0.3, rng.random(30)
    area, (low, high) = uncertainty.auroc(present, absent)
    pairs = (present[:, None] > absent).mean()  # the share of pairs in the right order
    assert (
        area
        == pytest.approx(pairs)
        == pytest.approx(roc_auc_score([1] * 30 + [0] * 30, np.concatenate([present, absent])))
    )
    assert low < area < high
    assert uncertainty.auroc(np.ones(4), np.zeros(4))[0] == 1


@pytest.fixture
def root(tmp_path):
    return draw_episodes(tmp_path / "photos")


def test_the_command_asks_for_an_absent_class(root, tmp_path, micro_model, monkeypatch, capsys):
    monkeypatch.setattr("dsvlfs.cli.running.load_model", lambda name: micro_model)
    command = ["analyze", "uncertainty", "--root", str(root), "--episodes", str(root / "episodes.jsonl")]
    command += ["--out", str(tmp_path / "report")]
    assert main(command) == 2
    assert "no calibration" in capsys.readouterr().err
    micro_model.config.calibration = [1.5, 0.1]
    asked = []
    predict = micro_model.predict
    monkeypatch.setattr(
        micro_model, "predict", lambda query, name, **options: asked.append(name) or predict(query, name, **options)
    )
    assert main(command) == 0
    assert asked == ["circle", "square"] * 2 + ["square", "circle"] * 2
    result = json.loads((tmp_path / "report" / "report.json").read_text())["data"]
    assert all(len(result[part][name]) == 4 for part in ("present", "absent") for name in uncertainty.Presence._fields)
    area = roc_auc_score([1] * 4 + [0] * 4, result["present"]["presence"] + result["absent"]["presence"])
    assert result["auroc"]["presence"] == pytest.approx(area)
    assert (tmp_path / "report" / "uncertainty.png").exists()


def test_one_class_alone_is_never_absent(root, micro_model):
    micro_model.config.calibration = [1.0, 0.0]
    episodes = load_episodes(root, root / "episodes.jsonl", limit=2)
    with pytest.raises(InputError, match="more classes"):
        uncertainty.measure(micro_model, episodes)


def test_a_checkpoint_is_calibrated_and_nothing_else_changes(circle, tmp_path, monkeypatch):
    model = build_micro_model()
    model.save_pretrained(tmp_path)
    before = json.loads((tmp_path / "config.json").read_text())
    monkeypatch.setattr(DSVLFSModel, "from_pretrained", lambda folder: model)
    request = Request("circle", circle[0], circle[1], circle)
    for name in ("training_mosaics", "coco_scenes"):
        monkeypatch.setattr(calibrate, name, lambda folder, number: iter([request]))
    assert main(["calibrate", str(tmp_path), "--data-root", str(tmp_path), "--requests", "1"]) == 0
    after = json.loads((tmp_path / "config.json").read_text())
    temperature, _bias = after.pop("calibration")
    assert temperature > 0
    before.pop("calibration", None)
    assert after == before


def test_requests_of_fields_are_as_many_of_each(tmp_path):
    for name in ("welds", "leaves"):
        field = tmp_path / name
        for part in ("images", "labels"):
            (field / part).mkdir(parents=True)
        (field / "classes.json").write_text(json.dumps({"1": name, "2": "other"}))
        for number in range(4):
            labels = np.zeros((32, 32), np.uint8)
            labels[4:20, 4 + number : 20] = 1
            labels[24:, 24:] = 2
            Image.fromarray(labels).save(field / "labels" / f"{number}.png")
            drawn = np.random.default_rng((number, len(name))).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(drawn).save(field / "images" / f"{number}.jpg")
    asked = list(field_requests([tmp_path / "welds", tmp_path / "leaves"], 6))
    assert len(asked) == 6
    assert {request.class_name for request in asked[:3]} <= {"welds", "other"}
    for request in asked:
        assert request.query_mask.shape == (32, 32)
        assert request.query_mask.any()
        assert request.support[1].any()
