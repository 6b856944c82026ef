import pytest
import torch

from dsvlfs import InputError
from dsvlfs.description import _whole_sentence, describe


def test_the_language_model_writes_without_its_adapters(micro_model):
    with torch.no_grad():
        for name, parameter in micro_model.semantic_encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=5)
    written = describe(micro_model, " red  circle ")
    assert written.startswith("A red circle has")
    assert written.endswith(".")
    assert describe(micro_model, "red circle") == written
    with torch.no_grad():
        for name, parameter in micro_model.semantic_encoder.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    assert describe(micro_model, "red circle") == written


def test_an_unusable_class_name_is_refused(micro_model):
    with pytest.raises(InputError, match="class name is empty"):
        describe(micro_model, " ")


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
