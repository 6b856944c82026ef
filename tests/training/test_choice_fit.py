"""What chooses among masks is fitted to requests whose truth is known."""

import pytest
import torch
from conftest import build_micro_model

from dsvlfs import DSVLFSModel, InputError
from dsvlfs.cli import main
from dsvlfs.parts.mask_choice import READINGS, SIGNS
from dsvlfs.training import choice_fit
from dsvlfs.training.choice_fit import Known, known_of, solve
from dsvlfs.training.requests import Request


def known(kind: str, seed: int, weights: torch.Tensor) -> Known:
    signs = torch.rand(len(weights), SIGNS, generator=torch.Generator().manual_seed(seed))
    return Known(kind, signs, (signs * weights[:, :-1]).sum(dim=1) + weights[:, -1])


def test_a_fit_finds_what_the_ious_follow():
    weights = torch.randn(3, SIGNS + 1, generator=torch.Generator().manual_seed(0)) / 10
    rows = [known("field" if place % 3 else "voc", place, weights) for place in range(4000)]
    torch.testing.assert_close(solve(rows), weights, rtol=0.05, atol=0.01)


def test_every_kind_of_request_counts_the_same():
    signs = torch.rand(1, SIGNS)
    rows = [Known("field", signs, torch.ones(1))] * 9 + [Known("voc", signs, torch.zeros(1))]
    assert solve(rows)[0, -1] == pytest.approx(0.5)  # signs that never differ tell nothing


def test_what_a_request_tells(circle):
    model = build_micro_model(fit_ridge=10.0, mask_choice=True)
    request = Request("circle", circle[0], circle[1], circle, further=[circle])
    named, unnamed = known_of(model, "field", request)
    assert named.signs.shape == (len(READINGS), SIGNS)
    assert len(unnamed.iou) == sum(reading.start in ("asked", None) for reading in READINGS)
    assert named.signs[0, -1] == 0.25  # one further support, of four that count
    for kind, mode in ((named, "both"), (unnamed, "visual")):
        support = model.encode_support([circle] * 2)
        found = model.predict(circle[0], "circle", support=support, modes=[mode], aggregation="joint")[mode]
        side = found.deciding.shape[-1]
        mask = found.segmentation(size=(side, side)).mask
        truth = choice_fit._on_grid(circle[1], side).numpy() > 0.5
        assert kind.iou[0] == pytest.approx((mask & truth).sum() / (mask | truth).sum())
    nothing_counts = request._replace(ignore=circle[1] | True)
    assert known_of(model, "field", nothing_counts)[1].iou.sum() == 0
    model.config.name_trust = 1.0
    assert known_of(model, "field", request)[0] is None


def test_the_command_writes_a_checkpoint_that_chooses(circle, tmp_path, monkeypatch, capsys):
    model = build_micro_model(fit_ridge=10.0)
    monkeypatch.setattr(DSVLFSModel, "from_pretrained", lambda folder: model)
    request = Request("circle", circle[0], circle[1], circle)
    monkeypatch.setattr(choice_fit, "training_mosaics", lambda folder, number: iter([request] * number))
    asked = []

    def fields(folders, number, shots):
        asked.append((len(folders), number, shots))
        return iter([request] * number)

    monkeypatch.setattr(choice_fit, "field_requests", fields)
    monkeypatch.setattr(choice_fit, "fields_of", lambda root: [root / "a", root / "b"])
    monkeypatch.setattr(choice_fit, "unseen_pascal", lambda root, fold, number: iter([request] * number))
    scene = request._replace(class_name="zebra")
    monkeypatch.setattr(
        choice_fit, "coco_scenes", lambda root, number: iter([scene, request._replace(class_name="Cat")])
    )
    command = ["fit-choice", "own", "--data-root", str(tmp_path), "--out", str(tmp_path / "out"), "--requests", "2"]
    command += ["--fields", "a", "--folds", *map(str, range(4))]
    assert main(command) == 0
    assert asked == [(1, 2, 1), (1, 1, 5), (2, 2, 1), (2, 2, 5)]
    # 5 mosaics, 3 and 4 of fields, 4 of VOC's folds, 2 of COCO's
    assert "of 18 requests" in capsys.readouterr().out
    assert model.mask_choice.named.abs().sum() > 0
    assert model.config.mask_choice
    assert {file.name for file in (tmp_path / "out").iterdir()} >= {"config.json", "model.safetensors"}


def test_a_checkpoint_without_the_fit_to_the_request_is_refused(micro_model, tmp_path, monkeypatch):
    monkeypatch.setattr(DSVLFSModel, "from_pretrained", lambda folder: micro_model)
    with pytest.raises(InputError, match="fit_ridge"):
        choice_fit.fit_choice("own", tmp_path, tmp_path / "out")


@pytest.mark.parametrize(("name", "fold"), [("cat", (1 + 1 + 0) % 4), ("aeroplane", 1), ("tv", 0)])
def test_scenes_of_pascals_classes_are_asked_of_a_fold_that_learned_them(monkeypatch, tmp_path, name, fold):
    models = {str(place): build_micro_model(fit_ridge=10.0) for place in range(4)}
    monkeypatch.setattr(DSVLFSModel, "from_pretrained", lambda folder: models[str(folder)])
    for kind in ("training_mosaics", "field_requests", "unseen_pascal"):
        monkeypatch.setattr(choice_fit, kind, lambda *given: iter([]))
    monkeypatch.setattr(choice_fit, "fields_of", lambda root: [root])
    request = Request(name, None, None, None)
    monkeypatch.setattr(choice_fit, "coco_scenes", lambda root, number: iter([request]))
    asked = choice_fit._requests(build_micro_model(fit_ridge=10.0), tmp_path, (), list("0123"), 2)
    assert [(kind, model) for kind, model, _ in asked] == [("known", models[str(fold)])]
