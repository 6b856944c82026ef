"""The projector that sees, in closed form, and a run that trains what the photo adds alone."""

import pytest
import torch
import train_micro
from conftest import WORDS, build_micro_model
from drawn_packs import draw_packs
from safetensors.torch import load_file

from dsvlfs import InputError
from dsvlfs.hub.imagenet_classes import ImagenetClasses
from dsvlfs.training import run as run_module
from dsvlfs.training.feature_cache import FeatureCache
from dsvlfs.training.seeing import fit_projector, name_embeddings, start_seeing

WHOLE = """
scenes: {mosaic: 3, photo: 2, cutouts: 2, single: 2}
class_supports: 2
steps: 2
text_only_steps: 2
batch_size: 2
warmup_steps: 1
checkpoint_every: 2
log_every: 1
"""
PHOTO = WHOLE + "learns_photo: true\nsemantic_only: 0.5\nlearning_rate: 1.0e-2\n"


def _classes(channels: int) -> ImagenetClasses:
    generator = torch.Generator().manual_seed(0)
    names = [(word,) for word in WORDS if word.isalpha()][:6]
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return ImagenetClasses(names, draw(len(names), 12), draw(len(names)), draw(12, channels), draw(12))


def test_the_projector_says_what_a_linear_map_says():
    model = build_micro_model()
    projector = model.semantic_encoder.llava.model.multi_modal_projector
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(3000, 4, projector.linear_1.in_features, generator=generator) * 50
    linear = torch.randn(tokens.shape[-1], projector.linear_2.out_features, generator=generator)
    wanted = tokens[..., :4] @ linear[:4] + 7
    fit_projector(model, tokens, wanted)
    with torch.no_grad():
        found = projector(tokens[:20])
    deviation, target = found - wanted.mean(dim=(0, 1)), wanted[:20] - wanted.mean(dim=(0, 1))
    assert torch.nn.functional.cosine_similarity(deviation, target, dim=-1).min() > 0.99
    assert torch.allclose(projector(tokens.mean(dim=(0, 1))), wanted.mean(dim=(0, 1)), atol=0.5)


def test_a_name_is_the_mean_of_its_words():
    model = build_micro_model()
    first, second = [word for word in WORDS if word.isalpha()][:2]
    one, other, both = name_embeddings(model, [first, second, f"{first} {second}"])
    assert torch.allclose(both, (one + other) / 2, atol=1e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the packs, and a run of the whole model and its cache."""
    folder = tmp_path_factory.mktemp("trained")
    draw_packs(folder / "packs")
    (folder / "whole.yaml").write_text(WHOLE)
    (folder / "photo.yaml").write_text(PHOTO)
    options = ["--config", folder / "whole.yaml", "--data-root", folder / "packs"]
    train_micro.run(*options, "--cache", folder / "cache", "--out", folder / "whole")
    return folder


def test_only_the_photos_share_learns(trained, monkeypatch):
    channels = build_micro_model().semantic_encoder.vision_tower.config.hidden_size
    monkeypatch.setattr(run_module, "imagenet_classes", lambda: _classes(channels))
    options = ["--config", trained / "photo.yaml", "--data-root", trained / "packs", "--cache", trained / "cache"]
    train_micro.run(*options, "--start-from", trained / "whole" / "final", "--out", trained / "photo")
    before, after = (load_file(trained / run / "final" / "model.safetensors") for run in ("whole", "photo"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("multi_modal_projector" in name for name in changed)
    added = after.keys() - before.keys()
    assert added
    assert all(name.startswith("semantic_encoder.photo_prompt.") for name in added)
    assert after["semantic_encoder.photo_prompt.to_prompt.2.weight"].any()


def test_lora_learns_from_where_the_share_alone_got_to(trained, monkeypatch):
    channels = build_micro_model().semantic_encoder.vision_tower.config.hidden_size
    monkeypatch.setattr(run_module, "imagenet_classes", lambda: _classes(channels))
    if not (trained / "photo" / "final").exists():
        test_only_the_photos_share_learns(trained, monkeypatch)
    (trained / "lora.yaml").write_text(PHOTO + "photo_lora: true\n")
    options = ["--config", trained / "lora.yaml", "--data-root", trained / "packs", "--cache", trained / "cache"]
    train_micro.run(*options, "--start-from", trained / "photo" / "final", "--out", trained / "lora")
    before, after = (load_file(trained / run / "final" / "model.safetensors") for run in ("photo", "lora"))
    learned = {name for name, tensor in after.items() if name not in before or not torch.equal(before[name], tensor)}
    assert any("lora_B" in name for name in learned)
    assert all("lora_" in name or ".photo_prompt.to_prompt." in name for name in learned - _left_out(before, after))


def _left_out(before, after):
    """What a language model that learned nothing leaves out of its file."""
    return {name for name in after.keys() - before.keys() if "lora_" not in name}


def test_a_checkpoint_is_needed(trained):
    options = ["--config", trained / "photo.yaml", "--data-root", trained / "packs", "--cache", trained / "cache"]
    with pytest.raises(InputError, match="What the photo adds to the prompt is trained on top"):
        train_micro.run(*options, "--out", trained / "none")


def test_an_empty_cache_says_so(tmp_path):
    with pytest.raises(InputError, match=r"lacks vision\.6"):
        start_seeing(build_micro_model(), FeatureCache(tmp_path), _classes(8))
