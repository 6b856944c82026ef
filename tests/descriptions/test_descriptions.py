"""The bank of descriptions, and the language models that write more."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
from conftest import micro_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from dsvlfs import InputError, cli
from dsvlfs.data.coco_reading import COCO_CLASSES
from dsvlfs.data.pascal import PASCAL_CLASSES
from dsvlfs.descriptions.bank import bank_description, bank_names
from dsvlfs.descriptions.memory import write_once
from dsvlfs.descriptions.writers import CheckpointWriter, EndpointWriter, TransformersWriter, _whole_sentence


class Scribe:
    """Writes another text each time."""

    source = "scribe"

    def __init__(self) -> None:
        self.written = 0

    def write(self, class_name: str) -> str:
        self.written += 1
        return f"{class_name}, text {self.written}."


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[dict]]]:
    """A chat completions interface that answers with `request.param`: a status and a body."""
    status, body = request.param
    asked: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path, "key": self.headers["Authorization"], **content})
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/v1", asked
        running.shutdown()
        thread.join()


def answer(text: str) -> tuple[int, dict]:
    message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [message]}


@pytest.mark.parametrize("classes", [PASCAL_CLASSES, COCO_CLASSES], ids=["pascal", "coco"])
def test_the_bank_has_every_class_of(classes):
    assert [names for names in classes if not any(map(bank_description, names))] == []


def test_the_banks_texts_are_whole_and_of_a_length_that_is_taken(micro_model):
    for name in bank_names():
        text = bank_description(name)
        assert text.endswith(".")
        assert len(text) > 30
        micro_model.processor.question([(name, text)])


@pytest.mark.parametrize("classes", [PASCAL_CLASSES, COCO_CLASSES], ids=["pascal", "coco"])
def test_every_class_has_a_paragraph_of_its_own(classes, micro_model):
    paragraphs = {names: next(filter(None, (bank_description(n, long=True) for n in names))) for names in classes}
    assert all(80 <= len(text.split()) <= 150 and text.endswith(".") for text in paragraphs.values())
    assert len({*paragraphs.values()}) == len(paragraphs)
    micro_model.processor.question([(names[0], text) for names, text in paragraphs.items()])


def test_a_class_without_a_paragraph_has_its_sentence():
    assert bank_description("red fox", long=True) == bank_description("red fox")
    assert bank_description("sofa", long=True) == bank_description("couch", long=True) != bank_description("couch")
    assert {"sofa", "person"} & {*bank_names(long=True)} == {"person"}


def test_case_and_hyphens_do_not_count():
    assert bank_description("Red-Fox") == bank_description(" red fox") is not None
    assert bank_description("TVmonitor") == bank_description("tv")
    assert bank_description("no such thing") is None


def test_the_language_model_writes_without_its_adapters(micro_model):
    writer = CheckpointWriter(micro_model)
    with torch.no_grad():
        for name, parameter in micro_model.semantic_encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=5)
    written = writer.write(" red  circle ")
    assert written.startswith("A red circle has")
    assert written.endswith(".")
    assert writer.write("red circle") == written
    with torch.no_grad():
        for name, parameter in micro_model.semantic_encoder.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    assert writer.write("red circle") == written


def test_any_causal_language_model_writes(tmp_path):
    torch.manual_seed(0)
    tokenizer = micro_tokenizer()
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **size)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    writer = TransformersWriter(str(tmp_path))
    assert writer.write("red circle").startswith("A red circle has")
    with pytest.raises(InputError, match="cannot be loaded"):
        TransformersWriter(str(tmp_path / "nowhere")).write("fox")


@pytest.mark.parametrize("server", [answer("<think>hm</think> A fox has red fur. It lives")], indirect=True)
def test_a_servers_language_model_writes(server):
    url, asked = server
    assert EndpointWriter(url, "m", api_key="secret").write("fox") == "A fox has red fur."
    assert asked[0]["path"] == "/v1/chat/completions"
    assert asked[0]["model"] == "m"
    assert asked[0]["key"] == "Bearer secret"
    assert "a fox" in asked[0]["messages"][0]["content"]


@pytest.mark.parametrize(
    ("server", "sentence"),
    [((401, {"error": "no"}), "status 401"), ((200, {"no": "choices"}), "other than"), (answer(" "), "wrote nothing")],
    indirect=["server"],
)
def test_what_a_server_does_wrong_is_named(server, sentence):
    with pytest.raises(InputError, match=sentence):
        EndpointWriter(server[0], "m").write("fox")


def test_a_server_that_is_none_is_named():
    with pytest.raises(InputError, match="none of a server"):
        EndpointWriter("localhost", "m")
    with pytest.raises(InputError, match="cannot be reached"):
        EndpointWriter("http://127.0.0.1:9/v1", "m", timeout=2).write("fox")


def test_a_text_is_written_once(tmp_path):
    file, scribe = tmp_path / "texts.json", Scribe()
    assert [write_once(scribe, name, file=file) for name in ("fox", " fox ", "owl")] == [
        "fox, text 1.",
        "fox, text 1.",
        "owl, text 2.",
    ]
    assert write_once(scribe, "fox", anew=True, file=file) == write_once(Scribe(), "fox", file=file) == "fox, text 3."
    file.write_text("{")
    with pytest.raises(InputError, match="damaged"):
        write_once(scribe, "fox", file=file)


@pytest.mark.parametrize("server", [answer("It is green.")], indirect=True)
def test_the_command_takes_the_bank_before_a_server_only_where_asked(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DSVLFS_CACHE", str(tmp_path))
    out = tmp_path / "texts" / "t.json"
    assert cli.main(["describe", "red fox", "--out", str(out)]) == 0
    assert json.loads(out.read_text()) == {"red fox": bank_description("red fox")}
    asks = ["describe", "red fox", "--source", "endpoint", "--base-url", server[0], "--language-model", "m"]
    assert cli.main(asks) == cli.main(asks) == 0
    assert len(server[1]) == 1  # remembered
    assert "red fox: It is green." in capsys.readouterr().out
    assert cli.main(["describe", "red fox", "--source", "endpoint", "--language-model", "m"]) == 2
    assert "--base-url" in capsys.readouterr().err


def test_an_unusable_class_name_is_refused(micro_model):
    with pytest.raises(InputError, match="class name is empty"):
        CheckpointWriter(micro_model).write(" ")


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("A fox has red fur. It lives", "A fox has red fur."),
        ("A mug has a 3.5 cm handle, a rim and", "A mug has a 3.5 cm handle."),
        ("A cube has six sides", "A cube has six sides."),
    ],
)
def test_only_a_whole_sentence_is_kept(written, kept):
    assert _whole_sentence(written) == kept
