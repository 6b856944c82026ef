"""Supports on disk: by hand, and between commands."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import build_micro_model
from PIL import Image

from dsvlfs import InputError, Support
from dsvlfs.inference import kept_supports
from dsvlfs.inference.kept_supports import encoding_once


@pytest.fixture(scope="module")
def model():
    return build_micro_model()


@pytest.fixture(scope="module")
def other():
    """With other encoders."""
    model = copy.deepcopy(build_micro_model())
    with torch.no_grad():
        next(model.image_encoder.parameters()).add_(1)
    return model


def example(shade: int = 0) -> tuple[Image.Image, np.ndarray]:
    photo, mask = Image.new("RGB", (60, 40), (shade, 90, 90)), np.zeros((40, 60), bool)
    mask[10:30, 20:40] = True
    photo.paste((200, 30, 30), (20, 10, 40, 30))
    return photo, mask


def same(one: Support, other: Support) -> bool:
    pairs = zip((*one.layers, one.masks), (*other.layers, other.masks), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Counted:
    """A model that counts the supports it encodes."""

    def __init__(self, model):
        self.model, self.device, self.encoder_digest, self.encoded = model, model.device, model.encoder_digest, 0

    def encode_support(self, examples):
        self.encoded += len(examples)
        return self.model.encode_support(examples)


def test_what_an_image_encoder_learned_is_of_its_digest_merged_or_not():
    digests = set()
    for alpha, learned in ((16, False), (16, True), (8, True)):
        model = build_micro_model(image_lora_rank=2, image_lora_alpha=alpha, image_lora_layers=["query"])
        if learned:
            for block in model.image_encoder.adapter.blocks:
                torch.nn.init.constant_(block["query"].up, 0.5)
        digests.add(model.encoder_digest())
    assert len(digests) == 3
    model = build_micro_model(image_lora_rank=2, image_lora_layers=["query"])
    before = model.encoder_digest()
    model.image_encoder.merge()
    assert model.encoder_digest() == before


def test_what_is_saved_is_loaded(model, tmp_path):
    support = model.encode_support([example(), example(50)])
    support.save(tmp_path / "a.safetensors", model)
    assert same(Support.load(tmp_path / "a.safetensors", model), support)


def test_a_model_with_other_weights_of_its_own_takes_it(model, tmp_path):
    support = model.encode_support([example()])
    support.save(tmp_path / "a.safetensors", model)
    tuned = copy.deepcopy(model)
    with torch.no_grad():
        next(tuned.matcher.parameters()).add_(1)
    tuned.config.calibration = (1.0, 0.5)
    assert same(Support.load(tmp_path / "a.safetensors", tuned), support)


def test_another_models_is_refused(model, other, tmp_path):
    file = tmp_path / "a.safetensors"
    model.encode_support([example()]).save(file, model)
    with pytest.raises(InputError, match=r"was encoded by another model; encode the support again"):
        Support.load(file, other)
    seen_otherwise = copy.deepcopy(model)
    seen_otherwise.config.support_context = 3.0
    with pytest.raises(InputError, match="another model"):
        Support.load(file, seen_otherwise)


def test_what_is_no_support_is_refused(model, tmp_path):
    file = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match="support"):
        Support.load(file, model)
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"The support .* is damaged .*; encode the support again"):
        Support.load(file, model)
    model.save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(InputError, match=r"holds no encoded support; give a file that Support\.save wrote"):
        Support.load(tmp_path / "checkpoint" / "model.safetensors", model)


def test_a_changed_file_is_refused(model, tmp_path):
    file = tmp_path / "a.safetensors"
    model.encode_support([example()]).save(file, model)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        Support.load(file, model)


def test_a_second_time_encodes_none(model, tmp_path):
    counted = Counted(model)
    first = encoding_once(counted, tmp_path)([example(), example(50)])
    assert counted.encoded == 2
    again = encoding_once(counted, tmp_path)([example(50), example(), example(80)])
    assert counted.encoded == 3
    assert same(again[[1, 0]], first)
    assert same(first, model.encode_support([example(), example(50)]))


@pytest.mark.parametrize("what", ["mask", "photo", "model"])
def test_what_differs_is_encoded(model, other, tmp_path, what):
    photo, mask = example()
    encoding_once(model, tmp_path)([(photo, mask)])
    if what == "mask":
        mask[0, 0] = True
    elif what == "photo":
        photo.putpixel((0, 0), (1, 2, 3))
    counted = Counted(other if what == "model" else model)
    found = encoding_once(counted, tmp_path)([(photo, mask)])
    assert counted.encoded == 1
    assert same(found, counted.model.encode_support([(photo, mask)]))


def test_a_damaged_file_is_encoded_anew(model, tmp_path):
    encoding_once(model, tmp_path)([example()])
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-5])
    for encoded in (1, 0):
        counted = Counted(model)
        assert same(encoding_once(counted, tmp_path)([example()]), model.encode_support([example()]))
        assert counted.encoded == encoded


def test_what_was_not_used_for_the_longest_goes(model, tmp_path):
    encoding_once(model, tmp_path)([example()])
    (first,) = tmp_path.glob("*.safetensors")
    size = first.stat().st_size
    os.utime(first, (1, 1))
    encoding_once(model, tmp_path, 3 * size)([example(10)])
    (second,) = set(tmp_path.glob("*.safetensors")) - {first}
    os.utime(second, (2, 2))
    encoding_once(model, tmp_path, 3 * size)([example()])  # used again
    encoding_once(model, tmp_path, 2 * size)([example(20)])
    assert first.exists()
    assert not second.exists()
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    encoding_once(model, tmp_path, 1)([example(30)])  # larger than all the room: what is there stays
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_folder_that_cannot_be_written_is_no_error(model, tmp_path):
    (tmp_path / "file").write_text("")
    found = encoding_once(model, tmp_path / "file" / "supports")([example()])
    assert same(found, model.encode_support([example()]))


def test_another_process_that_makes_room_is_not_waited_for(model, tmp_path):
    with kept_supports.FileLock(tmp_path / ".lock"):
        encoding_once(model, tmp_path)([example()])
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_a_model_that_cannot_say_what_it_encodes_with_keeps_nothing(tmp_path, monkeypatch):
    class Bare:
        def encode_support(self, examples):
            return len(examples)

    monkeypatch.setattr(kept_supports, "kept_folder", lambda: Path(tmp_path))
    assert encoding_once(Bare())([example()]) == 1
    assert not list(tmp_path.iterdir())
