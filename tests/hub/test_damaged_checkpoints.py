"""Checkpoints whose config or tensors are not what was saved: one sentence, before any base is loaded."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dsvlfs import DSVLFSModel, InputError
from dsvlfs.hub.checkpoint_files import PACKAGED_CHECKPOINTS, read_config, read_tensors, write_tensors
from dsvlfs.hub.doctor import examine

PACKAGED = PACKAGED_CHECKPOINTS["dsvlfs-tiny"]
SETTINGS = json.loads((PACKAGED / "config.json").read_bytes())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a JSON object"),
        ([], "not a JSON object"),
        ({}, "model_type is None"),
        (SETTINGS | {"image_size": 0}, "wrong 'image_size'"),
        (SETTINGS | {"image_size": 10**9}, "wrong 'image_size'"),
        (SETTINGS | {"image_std": [0.2, 0.2, 0]}, "wrong value in entry 3 of 'image_std'"),
        (
            SETTINGS | {"prompt_template": "{class_name:>1000000000}{image}"},
            "wrong 'prompt_template' .*without a format",
        ),
        (SETTINGS | {"prompt_template": "{class_name} {image} {0}"}, "wrong 'prompt_template'"),
        (SETTINGS | {"prompt_template": "{class_name.__class__} {image}"}, "wrong 'prompt_template'"),
        (SETTINGS | {"prompt_template": "{"}, "wrong 'prompt_template'"),
        (SETTINGS | {"answer_template": "It is here."}, "wrong 'answer_template'"),
        (SETTINGS | {"image_config": None}, "wrong 'image_config'"),
        (SETTINGS | {"image_config": {"model_type": "none such"}}, "damaged"),
        (SETTINGS | {"image_config": SETTINGS["image_config"] | {"hidden_size": 10**12}}, "beyond reason"),
        (SETTINGS | {"vlm_config": "llava"}, "wrong 'vlm_config'"),
        (SETTINGS | {"correlation_layers": ["image.x"]}, "wrong value in entry 1 of 'correlation_layers'"),
        (SETTINGS | {"match_channels": [10**9]}, "wrong value in entry 1 of 'match_channels'"),
        (SETTINGS | {"language_base": None}, "names no bases"),
        (SETTINGS | {"shot_aggregation": "mean"}, "wrong 'shot_aggregation'"),
        (SETTINGS | {"lora_dropout": float("nan")}, "not valid JSON"),
    ],
)
def test_a_damaged_config_is_told(tmp_path, content, message):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        DSVLFSModel.from_pretrained(tmp_path)


def test_a_config_of_no_model_is_told(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS | {"embedding_layers": ["vision.90"]}))
    (tmp_path / "model.safetensors").write_bytes((PACKAGED / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="describes no model that can be built"):
        DSVLFSModel.from_pretrained(tmp_path)


def test_the_packaged_config_holds_the_schema():
    assert read_config(PACKAGED).to_dict()["match_channels"] == SETTINGS["match_channels"]


@pytest.fixture
def file(tmp_path) -> Path:
    """Some tensors, as a checkpoint has them."""
    write_tensors(tmp_path / "a.safetensors", {"a": torch.ones(3, 4), "b": torch.zeros(2, dtype=torch.float16)})
    return tmp_path / "a.safetensors"


def test_tensors_that_changed_are_told(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="tensors have changed since"):
        read_tensors(file)


def test_tensors_that_are_no_numbers_are_told(file):
    for value in (float("nan"), float("inf")):
        save_file(load_file(file) | {"a": torch.full((3, 4), value)}, file)
        with pytest.raises(InputError, match="a is not all numbers"):
            read_tensors(file)


def test_a_name_that_is_none_is_told():
    for name in (None, 5, ["dsvlfs-tiny"]):
        with pytest.raises(InputError, match="give a name or a folder"):
            DSVLFSModel.from_pretrained(name)


def test_the_doctor_finds_what_is_whole_and_what_is_not(tmp_path, monkeypatch):
    findings = {finding.what: finding for finding in examine()}
    assert findings["base dinov2-small-focus"].state.startswith("whole")
    assert findings["checkpoint dsvlfs-tiny"].state == "whole"
    assert findings["torch"].state == torch.__version__
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path))
    monkeypatch.setitem(PACKAGED_CHECKPOINTS, "dsvlfs-tiny", tmp_path)
    findings = {finding.what: finding for finding in examine()}
    assert findings["base dinov2-small-focus"].mend == "fetch it: dsvlfs bases"
    assert findings["checkpoint dsvlfs-tiny"].mend == "install dsvlfs again"
    monkeypatch.setenv("DSVLFS_CACHE", "/dev/null/cache")
    assert "DSVLFS_CACHE" in next(finding for finding in examine() if finding.what == "cache").mend
