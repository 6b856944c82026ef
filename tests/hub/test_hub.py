"""What the Hugging Face hub gets: through its own client, against a stand-in of its HTTP API."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paper_like
import pytest
import yaml
from huggingface_hub import ModelCard, constants, snapshot_download
from safetensors.torch import load_file
from stand_in_hub import Hub, commit_of, metadata_errors, running_hub
from transformers import AutoModel, AutoProcessor

from dsvlfs import DSVLFSModel, DSVLFSProcessor, InputError
from dsvlfs.hub.model_card import write_results

ROOT = Path(__file__).parents[2]
CHECKPOINT = {
    "config.json",
    "model.safetensors",
    "README.md",
    "processor_config.json",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # whose storage speaks another protocol
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield server


def test_a_pushed_model_comes_back_as_it_was(micro_model, hub, tmp_path):
    address = micro_model.push_to_hub("me/mine", token="hf_none", private=True)
    assert address == f"{hub.address}/me/mine/commit/{commit_of('main')}"
    assert hub.created[0]["visibility"] == "private"
    assert hub.files.keys() == CHECKPOINT
    assert set(hub.validated) == {hub.files["README.md"].decode()}
    card = ModelCard(hub.files["README.md"].decode())  # a new one: the model came without
    assert card.data.library_name == "dsvlfs"
    assert "dinov2-small-focus" in card.text
    folder = Path(snapshot_download("me/mine", cache_dir=tmp_path / "cache", token=False))
    weights, own = load_file(folder / "model.safetensors"), micro_model.trained_state_dict()
    assert weights.keys() == own.keys()
    assert all(weights[name].equal(own[name]) for name in own)


def test_a_pushed_model_is_loaded_by_its_name(hub, circle, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    model = DSVLFSModel(paper_like.config(*paper_like.save_bases(Path("bases")))).eval()
    model.push_to_hub("me/mine", token="hf_none")
    loaded = DSVLFSModel.from_pretrained("me/mine")
    assert loaded.card == hub.files["README.md"].decode()
    assert {path.name for path in (tmp_path / "cache").rglob("*.safetensors")} == {"model.safetensors"}
    first, second = (m.segment(circle[0], "red circle").probability for m in (model, loaded))
    np.testing.assert_array_equal(first, second)
    with pytest.raises(InputError, match="neither packaged"):
        DSVLFSModel.from_pretrained("me/other")


def test_a_push_says_what_it_is_told_to(micro_model, hub):
    proposed = micro_model.push_to_hub("me/mine", token="hf_none", create_pr=True, commit_description="Why.")
    assert proposed.pr_num == 1
    assert hub.commits[-1]["is_proposed"]
    assert hub.commits[-1]["description"] == "Why."
    assert hub.files == {}
    micro_model.push_to_hub("me/mine", token="hf_none", revision="second", commit_message="Second")
    assert (hub.commits[-1]["branch"], hub.commits[-1]["summary"]) == ("second", "Second")
    assert hub.branches["second"].keys() == CHECKPOINT
    with pytest.raises(TypeError, match="'privat'"):
        micro_model.push_to_hub("me/mine", token="hf_none", privat=True)


def test_saving_can_push(micro_model, hub, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("not part of it")
    micro_model.save_pretrained(tmp_path / "mine", push_to_hub=True, token="hf_none", commit_message="Saved")
    assert hub.created[-1]["name"] == "mine"
    assert hub.files.keys() == CHECKPOINT
    assert hub.commits[-1]["summary"] == "Saved"


def test_tags_join_the_card_and_change_no_more_of_it(micro_model, hub):
    micro_model.card = (ROOT / "model_card.md").read_text(encoding="utf-8")
    micro_model.add_model_tags(["birds", "dsv-lfs"])
    micro_model.push_to_hub("me/mine", token="hf_none", tags="wings")
    card, own = ModelCard(hub.files["README.md"].decode()), ModelCard(micro_model.card)
    assert card.data.tags == [*own.data.tags, *(t for t in ("birds", "dsv-lfs", "wings") if t not in own.data.tags)]
    assert card.text.strip() == own.text.strip()
    assert metadata_errors(str(card)) == []


def test_a_revision_is_loaded_with_a_token_into_a_cache(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "unused"))
    monkeypatch.chdir(tmp_path)
    model = DSVLFSModel(paper_like.config(*paper_like.save_bases(Path("bases")))).eval()
    model.config.logit_offset = 0.5
    model.push_to_hub("me/mine", token="hf_none", revision="second")
    given = {"revision": "second", "cache_dir": tmp_path / "cache"}
    with pytest.raises(InputError, match="neither packaged"):
        DSVLFSModel.from_pretrained("me/mine", local_files_only=True, **given)
    loaded = DSVLFSModel.from_pretrained("me/mine", token="hf_mine", **given)
    assert loaded.config.logit_offset == 0.5
    assert "hf_mine" in hub.tokens
    hub.branches["second"]["README.md"] = b"---\ntags: []\n---\nanother"
    assert DSVLFSModel.from_pretrained("me/mine", local_files_only=True, **given).card == loaded.card
    assert not (tmp_path / "unused").exists()


def test_auto_classes_load_from_the_hub(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    DSVLFSModel(paper_like.config(*paper_like.save_bases(Path("bases")))).push_to_hub("me/mine", token="hf_none")
    given = {"cache_dir": tmp_path / "cache", "revision": "main"}
    assert type(AutoModel.from_pretrained("me/mine", **given)) is DSVLFSModel
    assert type(AutoProcessor.from_pretrained("me/mine", **given)) is DSVLFSProcessor


def test_the_packaged_card_is_pushed_with_all_the_hub_reads(micro_model, hub):
    micro_model.card = (ROOT / "model_card.md").read_text(encoding="utf-8")
    micro_model.push_to_hub("me/mine", token="hf_none")
    card = ModelCard(hub.files["README.md"].decode())
    assert str(card) == micro_model.card
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "dsvlfs", "image-segmentation")
    assert "few-shot-segmentation" in data.tags
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in data.base_model
    assert data.model_name == "dsvlfs-tiny"
    assert {result.metric_type for result in data.eval_results} == {"mean_iou"}
    for result in data.eval_results:
        assert str(result.metric_value) in card.text  # the table says the same


def test_a_card_that_the_hub_refuses_is_not_pushed(micro_model, hub):
    micro_model.card = "---\npipeline_tag: guessing\nbase_model:\n- nobody\n---\n# Mine\n"
    with pytest.raises(ValueError, match=r"pipeline_tag is not allowed[\s\S]*base_model is not allowed"):
        micro_model.push_to_hub("me/mine", token="hf_none")
    assert hub.files == {}


def test_results_are_written_into_the_metadata_alone(tmp_path):
    card = tmp_path / "README.md"
    card.write_text((ROOT / "model_card.md").read_text(encoding="utf-8"), encoding="utf-8")
    text = ModelCard.load(card).text
    write_results(card, "dsvlfs-tiny", {"my photos": {"miou": 61.234, "fb_iou": 70.0, "episodes": 5}})
    written = ModelCard.load(card)
    assert written.text.strip() == text.strip()
    assert [(r.dataset_name, r.metric_name, r.metric_value) for r in written.data.eval_results] == [
        ("my photos", "mIoU (%)", 61.2),
        ("my photos", "FB-IoU (%)", 70.0),
    ]
    assert metadata_errors(card.read_text(encoding="utf-8")) == []


def test_the_repository_is_a_space():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    data = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", readme, re.DOTALL)[1])
    assert data["sdk"] == "gradio"
    assert (ROOT / data["app_file"]).is_file()
    assert len(data["short_description"]) <= 60
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    low, high = re.search(r"^gradio>=([\d.]+),<([\d.]+)$", requirements, re.MULTILINE).groups()
    version = [int(part) for part in data["sdk_version"].split(".")]
    assert [int(part) for part in low.split(".")] <= version < [int(part) for part in high.split(".")]
