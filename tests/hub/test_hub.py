"""What the Hugging Face hub gets: through its own client, against a stand-in of its HTTP API."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import paper_like
import pytest
import yaml
from huggingface_hub import ModelCard, constants, snapshot_download
from safetensors.torch import load_file

from dsvlfs import DSVLFSModel, InputError
from dsvlfs.hub.model_card import write_results

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIPELINE_TAGS = {"image-segmentation", "mask-generation", "image-to-image", "feature-extraction"}


def metadata_errors(content: str) -> list[str]:
    """What the hub's validator finds wrong with a model card: its published rules for the fields that are used here."""
    found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if not found:
        return ["there is no metadata"]
    data = yaml.safe_load(found[1])
    bases, tags = data.get("base_model", []), data.get("tags", [])
    rules = {
        "license": isinstance(data.get("license", "mit"), str),
        "library_name": isinstance(data.get("library_name", ""), str),
        "pipeline_tag": data.get("pipeline_tag", "image-segmentation") in PIPELINE_TAGS,
        "tags": isinstance(tags, list) and all(isinstance(tag, str) for tag in tags),
        "base_model": all(
            re.fullmatch(r"[\w.-]+/[\w.-]+", base) for base in ([bases] if isinstance(bases, str) else bases)
        ),
    }
    errors = [f"{name} is not allowed" for name, holds in rules.items() if not holds]
    for model in data.get("model-index", []):
        if not model.get("name"):
            errors.append("model-index has no name")
        for result in model["results"]:
            if not (result["task"].get("type") and result["dataset"].get("type") and result["dataset"].get("name")):
                errors.append("a result lacks its task or dataset")
            if not all(metric.get("type") and "value" in metric for metric in result["metrics"]):
                errors.append("a metric lacks its type or value")
    return errors


class Hub(ThreadingHTTPServer):
    """Repositories in memory; large files go the way of git LFS."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.validated: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        path, body, hub = self.path.partition("?")[0], self._body(), self.server
        if path == "/api/repos/create":
            hub.created.append(json.loads(body))
            self._answer({"url": f"{hub.address}/me/mine", "name": "me/mine"})
        elif path == "/api/validate-yaml":
            hub.validated.append(json.loads(body)["content"])
            errors = [{"message": error} for error in metadata_errors(hub.validated[-1])]
            self._answer({"errors": errors, "warnings": []}, 400 if errors else 200)
        elif path == "/api/models/me/mine/preupload/main":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            self._answer({"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]})
        elif path == "/me/mine.git/info/lfs/objects/batch":
            objects = [
                {**entry, "actions": {"upload": {"href": f"{hub.address}/large/{entry['oid']}"}}}
                for entry in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif path == "/api/models/me/mine/commit/main":
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[value["path"]] = hub.large[value["oid"]]
            self._answer({"commitUrl": f"{hub.address}/me/mine/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self._answer({"error": path}, 404)

    def do_PUT(self) -> None:
        content = self._body()
        assert hashlib.sha256(content).hexdigest() == self.path.rpartition("/")[2]
        self.server.large[self.path.rpartition("/")[2]] = content
        self._answer(b"")

    def do_GET(self) -> None:
        files = self.server.files
        if self.path.startswith("/api/models/me/mine/revision/"):
            self._answer({"id": "me/mine", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]})
        elif self.path.startswith("/api/models/me/mine/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            self._answer(entries)
        elif (name := self.path.rpartition("/")[2]) in files and "/resolve/" in self.path:
            self._answer(files[name], ETag=f'"{hashlib.sha1(files[name]).hexdigest()}"', X_Repo_Commit=COMMIT)
        else:
            self._answer({"error": self.path}, 404)

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # whose storage speaks another protocol
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_pushed_model_comes_back_as_it_was(micro_model, hub, tmp_path):
    address = micro_model.push_to_hub("me/mine", token="hf_none", private=True)
    assert address == f"{hub.address}/me/mine/commit/{COMMIT}"
    assert hub.created[0]["visibility"] == "private"
    assert hub.files.keys() == {"config.json", "model.safetensors", "README.md"}
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
    first, second = (m.segment(circle[0], "red circle").probability for m in (model, loaded))
    np.testing.assert_array_equal(first, second)
    with pytest.raises(InputError, match="neither packaged"):
        DSVLFSModel.from_pretrained("me/other")


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
