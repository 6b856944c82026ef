"""The language model's share of a checkpoint: left out where it learned nothing, and missed nowhere else."""

import pytest
import torch
from conftest import build_micro_model
from safetensors import safe_open
from safetensors.torch import load_file

from dsvlfs import DSVLFSModel
from dsvlfs.errors import InputError
from dsvlfs.hub.checkpoint_files import write_tensors
from dsvlfs.hub.language_share import LANGUAGE_MODEL, LEFT_OUT


def silent(**settings: object) -> DSVLFSModel:
    """With a projector that is new, as the real base has it."""
    model = build_micro_model(**settings)
    torch.nn.init.zeros_(model.semantic_encoder.llava.model.multi_modal_projector.linear_2.weight)
    return model


def learn(model: DSVLFSModel, part: str) -> None:
    with torch.no_grad():
        next(tensor for name, tensor in model.semantic_encoder.vlm.named_parameters() if part in name).add_(1e-4)


def share(tensors: dict) -> set[str]:
    return {name for name in tensors if name.startswith(LANGUAGE_MODEL)}


def test_what_learned_nothing_is_left_out_and_comes_back(tmp_path):
    model = silent()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    saved, every = load_file(file), model.trained_state_dict()
    assert saved.keys() == every.keys() - share(every)
    with safe_open(file, "pt") as stored:
        assert LEFT_OUT.items() <= stored.metadata().items()
    other = silent()
    torch.nn.init.ones_(other.matcher.state_dict()[next(iter(other.matcher.state_dict()))])
    other.load_trained(file)
    for name, tensor in other.trained_state_dict().items():
        torch.testing.assert_close(tensor, every[name], rtol=0, atol=0)
    model.save_pretrained(tmp_path, whole=True)
    assert load_file(file).keys() == every.keys()


@pytest.mark.parametrize("part", ["lora_B", "trainable_tokens_delta", "linear_2.weight", "linear_2.bias"])
def test_what_learned_is_written_and_keeps_another_out(tmp_path, part):
    silent().save_pretrained(tmp_path / "none")
    model = silent()
    learn(model, part)
    model.save_pretrained(tmp_path / "some")
    assert share(load_file(tmp_path / "some" / "model.safetensors")) == share(model.trained_state_dict())
    with pytest.raises(InputError, match="has learned something"):
        model.load_trained(tmp_path / "none" / "model.safetensors")


@pytest.mark.parametrize("fitted", [True, False])
def test_a_share_that_is_missing_unsaid_is_missed_where_names_are_not_fitted(tmp_path, fitted):
    model = silent(standardise_state=fitted)
    every = model.trained_state_dict()
    file = tmp_path / "model.safetensors"
    write_tensors(file, {name: tensor for name, tensor in every.items() if name not in share(every)})
    if fitted:
        model.load_trained(file)
    else:
        with pytest.raises(InputError, match="does not fit"):
            model.load_trained(file)
        write_tensors(file, {n: tensor for n, tensor in every.items() if n not in share(every)}, **LEFT_OUT)
        model.load_trained(file)
