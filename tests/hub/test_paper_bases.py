"""The paper's way through `from_pretrained`, on small SAM and LLaVA folders: bases, prompts, round trip."""

import numpy as np
import paper_like
import pytest
import torch
from safetensors.torch import load_file
from transformers import BitsAndBytesConfig, LlavaForConditionalGeneration, SamModel

from dsvlfs import BaseNotAvailableError, DSVLFSModel, InputError


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return paper_like.save_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture
def model(bases) -> DSVLFSModel:
    torch.manual_seed(0)
    return DSVLFSModel(paper_like.config(*bases)).eval()


def test_the_bases_weights_are_loaded_and_frozen(model, bases):
    sam, llava = SamModel.from_pretrained(bases[0]), LlavaForConditionalGeneration.from_pretrained(bases[1])
    encoder = model.image_encoder.backbone.state_dict()
    assert all(torch.equal(encoder[name], tensor) for name, tensor in sam.vision_encoder.state_dict().items())
    decoder = model.mask_decoder.decoder.state_dict()
    expected = sam.mask_decoder.state_dict()
    assert decoder.keys() == {name for name in expected if "iou_prediction_head" not in name}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in decoder.items())
    tower = model.semantic_encoder.vision_tower.state_dict()
    assert all(torch.equal(tower[n], t) for n, t in llava.model.vision_tower.state_dict().items())
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any("vision_tower" in name or "multi_modal_projector" in name for name in trained)
    assert not any(name.startswith("image_encoder.") for name in trained)
    assert {"embed_tokens", "lm_head"} == {
        name.split(".modules_to_save")[0].split(".")[-1] for name in trained if "modules_to_save" in name
    }


def test_the_decoder_is_sams(model, bases):
    sam = SamModel.from_pretrained(bases[0]).eval()
    embedding, sparse = torch.randn(1, paper_like.PROMPT, 8, 8), torch.randn(1, paper_like.PROMPT)
    dense = torch.randn(1, paper_like.PROMPT, 8, 8)
    with torch.inference_mode():
        expected, _ = sam.mask_decoder(
            image_embeddings=embedding,
            image_positional_embeddings=sam.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=sparse[:, None, None],
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        torch.testing.assert_close(model.mask_decoder(embedding, sparse, dense), expected[:, 0, 0])


def test_segmenting_and_a_round_trip(model, circle, tmp_path):
    image, mask = circle
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
    support = model.encode_support([(image, mask), (image, ~mask)])
    assert [layer.shape for layer in support.layers] == [(2, 24, 8, 8)] * 2
    model.save_pretrained(tmp_path)
    restored = DSVLFSModel.from_pretrained(tmp_path)
    again = restored.encode_support([(image, mask), (image, ~mask)])
    for mode in ("both", "semantic", "visual"):
        first = model.segment(image, "red circle", support=support, mode=mode)
        second = restored.segment(image, "red circle", support=again, mode=mode)
        assert first.mask.shape == (60, 80)
        assert np.isfinite(first.probability).all()
        np.testing.assert_array_equal(first.probability, second.probability)
    plain, other = (model.segment(image, name, mode="semantic") for name in ("circle", "square"))
    assert not np.array_equal(plain.probability, other.probability)


def test_bases_in_half_precision_give_nearly_the_same(bases, circle, tmp_path):
    image, mask = circle
    torch.manual_seed(0)
    model = DSVLFSModel(paper_like.config(*bases)).eval()
    model.save_pretrained(tmp_path)
    half = {"dtype": torch.bfloat16, "attn_implementation": "sdpa"}
    small = DSVLFSModel.from_pretrained(tmp_path, image_options=half, vlm_options={**half, "device_map": {"": "cpu"}})
    assert small.image_encoder.backbone.dtype == small.semantic_encoder.vision_tower.dtype == torch.bfloat16
    assert small.mask_decoder.no_visual_prompt.dtype == small.matcher.to_prompt[0].weight.dtype == torch.float32
    layers = small.semantic_encoder.llava.model.language_model.layers
    assert layers[0].self_attn.q_proj.base_layer.weight.dtype == torch.bfloat16
    first, second = (
        m.segment(image, "circle", support=m.encode_support([(image, mask)])).probability for m in (model, small)
    )
    assert np.abs(first - second).max() < 0.05


def _train_a_little(model: DSVLFSModel) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))


def _semantic_prompt(model: DSVLFSModel, image: np.ndarray) -> torch.Tensor:
    question = model.processor.question([("red circle", None)])
    return model.semantic_encoder.prompt(model.encode_query(image).features["tokens"], question)


_PARTS = {
    "model.vision_tower": "cpu",
    "model.multi_modal_projector": "cpu",
    "model.language_model.embed_tokens": "cpu",
    "model.language_model.layers.0": "cpu",
    "model.language_model.layers.1": "disk",
    "model.language_model.norm": "cpu",
    "lm_head": "cpu",
}


@pytest.mark.parametrize("further", [[], ["model.language_model.embed_tokens", "lm_head"], ["model.vision_tower"]])
def test_what_was_trained_counts_beside_an_offloaded_base(model, circle, tmp_path, further):
    _train_a_little(model)
    model.save_pretrained(tmp_path / "checkpoint")
    options = {"device_map": _PARTS | dict.fromkeys(further, "disk"), "offload_folder": str(tmp_path / "offloaded")}
    offloaded = DSVLFSModel.from_pretrained(tmp_path / "checkpoint", vlm_options=options)
    language_model = offloaded.semantic_encoder.llava.model.language_model
    assert language_model.layers[1].mlp.up_proj.weight.is_meta
    assert not any(parameter.is_meta for parameter in offloaded.parameters() if parameter.requires_grad)
    torch.testing.assert_close(_semantic_prompt(offloaded, circle[0]), _semantic_prompt(model, circle[0]))
    offloaded.save_pretrained(tmp_path / "again")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("checkpoint", "again"))
    torch.testing.assert_close(second, first, rtol=0, atol=0)


@pytest.mark.parametrize("setting", [{"train_vlm_projector": True}, {"train_token_embeddings": "added"}])
def test_what_is_trained_in_place_cannot_be_offloaded(bases, tmp_path, setting):
    config = paper_like.config(*bases)
    config.update(setting)
    options = {"device_map": dict.fromkeys(_PARTS, "disk"), "offload_folder": str(tmp_path)}
    with pytest.raises(InputError, match="cannot be offloaded"):
        DSVLFSModel(config, vlm_options=options)


def test_a_model_that_starts_beside_an_offloaded_base_is_the_same(bases, circle, tmp_path):
    options = {"device_map": dict.fromkeys(_PARTS, "disk"), "offload_folder": str(tmp_path)}
    models = []
    for vlm_options in (None, options):
        torch.manual_seed(0)
        models.append(DSVLFSModel(paper_like.config(*bases), vlm_options=vlm_options).eval())
    plain, offloaded = models
    offloaded.semantic_encoder.to_prompt.load_state_dict(plain.semantic_encoder.to_prompt.state_dict())
    torch.testing.assert_close(_semantic_prompt(offloaded, circle[0]), _semantic_prompt(plain, circle[0]))


def test_an_offloaded_image_encoder_gives_the_same(model, bases, circle, tmp_path):
    image, mask = circle
    parts = {name: "disk" for name, _ in SamModel.from_pretrained(bases[0]).named_children()}
    options = {"device_map": parts, "offload_folder": str(tmp_path)}
    offloaded = DSVLFSModel(paper_like.config(*bases), image_options=options).eval()
    assert offloaded.image_encoder.backbone.patch_embed.projection.weight.is_meta
    before, after = model.mask_decoder.state_dict(), offloaded.mask_decoder.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if "no_semantic_prompt" not in name)
    first, second = (own.encode_support([(image, mask)]).layers for own in (model, offloaded))
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(other, one)


@pytest.mark.parametrize(("bits", "share"), [(8, 0.1), (4, 0.2)])
def test_a_quantised_base_gives_nearly_the_same(model, circle, tmp_path, bits, share):
    _train_a_little(model)
    model.save_pretrained(tmp_path)
    quantization = BitsAndBytesConfig(load_in_8bit=bits == 8, load_in_4bit=bits == 4)
    options = {"quantization_config": quantization, "device_map": {"": "cpu"}}
    small = DSVLFSModel.from_pretrained(tmp_path, vlm_options=options)
    base = small.semantic_encoder.llava.model.language_model.layers[0].self_attn.q_proj.base_layer
    assert base.weight.dtype in (torch.int8, torch.uint8)
    expected = _semantic_prompt(model, circle[0])
    assert (_semantic_prompt(small, circle[0]) - expected).abs().max() < share * expected.abs().max()


def test_a_base_of_another_shape_is_named(bases, tmp_path):
    with pytest.raises(BaseNotAvailableError, match="lacks"):
        DSVLFSModel(paper_like.config(bases[1], bases[1]))
