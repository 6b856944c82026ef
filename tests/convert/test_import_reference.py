"""Import of the authors' checkpoints: a small one under their names, and the matched parts in float64 against their
equations."""

import json

import paper_like
import pytest
import torch
from reference_matching import ReferenceMatcher
from safetensors.torch import load_file
from torch import Tensor
from transformers import SamModel

from dsvlfs import DSVLFSModel, InputError
from dsvlfs.convert.reference import MARKERS, import_reference

VOCABULARY = len(paper_like.WORDS)
ADDED_TOKENS = 1 + len(MARKERS)
ROOT = "base_model.model."


def reference_state() -> dict[str, Tensor]:
    """A run's state dict, after zero_to_fp32, with random numbers."""
    torch.manual_seed(3)
    width, prompt = paper_like.WIDTH, paper_like.PROMPT
    state = {
        f"{ROOT}model.embed_tokens.weight": torch.randn(VOCABULARY + ADDED_TOKENS, width),
        f"{ROOT}lm_head.weight": torch.randn(VOCABULARY + ADDED_TOKENS, width),
        f"{ROOT}model.text_hidden_fcs.0.0.weight": torch.randn(width, width),
        f"{ROOT}model.text_hidden_fcs.0.0.bias": torch.randn(width),
        f"{ROOT}model.text_hidden_fcs.0.2.weight": torch.randn(prompt, width),
        f"{ROOT}model.text_hidden_fcs.0.2.bias": torch.randn(prompt),
        f"{ROOT}model.visual_model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": torch.randn(
            2, prompt // 2
        ),
        f"{ROOT}model.visual_model.prompt_encoder.no_mask_embed.weight": torch.randn(1, prompt),
        f"{ROOT}model.visual_model.image_encoder.pos_embed": torch.randn(1, 8, 8, 24),  # frozen, not taken
        f"{ROOT}model.mm_projector.0.weight": torch.randn(width, 24),
    }
    for layer in range(paper_like.LAYERS):
        for name in ("q_proj", "v_proj"):
            prefix = f"{ROOT}model.layers.{layer}.self_attn.{name}"
            state[f"{prefix}.weight"] = torch.randn(width, width)
            state[f"{prefix}.lora_A.default.weight"] = torch.randn(8, width)
            state[f"{prefix}.lora_B.default.weight"] = torch.randn(width, 8)
    matcher = ReferenceMatcher(paper_like.LAYERS, (4, 8), prompt)
    state |= {f"{ROOT}model.{name}": torch.randn_like(tensor) for name, tensor in matcher.state_dict().items()}
    for name, tensor in SamModel(paper_like.sam_config()).mask_decoder.state_dict().items():
        state[f"{ROOT}model.visual_model.mask_decoder.{_sams_own(name)}"] = torch.randn_like(tensor)
    return state


def _sams_own(name: str) -> str:
    """transformers' name of a tensor of the mask decoder to segment-anything's."""
    for ours, theirs in (
        ("layer_norm_final_attn", "norm_final_attn"),
        ("upscale_conv1", "output_upscaling.0"),
        ("upscale_layer_norm", "output_upscaling.1"),
        ("upscale_conv2", "output_upscaling.3"),
        ("layer_norm", "norm"),
        ("proj_out", "layers.2"),
    ):
        name = name.replace(ours, theirs)
    if "layers.0" in name and "transformer" not in name:
        name = name.replace("layers.0", "layers.1")
    return name.replace("proj_in", "layers.0")


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> tuple[dict[str, Tensor], DSVLFSModel]:
    """The state dict, and the model that loads what came of it."""
    folder = tmp_path_factory.mktemp("reference")
    state = reference_state()
    torch.save(state, folder / "pytorch_model.bin")
    import_reference(folder / "pytorch_model.bin", folder / "ours", paper_like.config(*paper_like.save_bases(folder)))
    return state, DSVLFSModel.from_pretrained(folder / "ours")


def test_the_questions_of_a_run_come_with_it(tmp_path):
    torch.save(reference_state(), tmp_path / "model.bin")
    config = paper_like.config(*paper_like.save_bases(tmp_path))
    asked = {
        "prompt_template": "USER: <im_start>{image}<im_end> {description}Find the {class_name}. ASSISTANT:",
        "answer_template": "Sure, <SEM_prompt>.",
        "further_templates": [["USER: <im_start>{image}<im_end> {class_name}? ASSISTANT:", "<SEM_prompt>."]],
        "answer_ends": True,
    }
    (tmp_path / "prompts.json").write_text(json.dumps(asked))
    import_reference(tmp_path / "model.bin", tmp_path / "out", config, prompts=tmp_path / "prompts.json")
    own = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {name: own[name] for name in asked} == asked
    assert own["photo_markers"] == MARKERS
    (tmp_path / "prompts.json").write_text(json.dumps(asked | {"answer_template": "Here."}))
    with pytest.raises(InputError, match=r"prompts\.json.*answer_template"):
        import_reference(tmp_path / "model.bin", tmp_path / "out", config, prompts=tmp_path / "prompts.json")
    (tmp_path / "prompts.json").write_text(json.dumps(asked | {"question": "Where?"}))
    with pytest.raises(InputError, match=r"prompts\.json.*question"):
        import_reference(tmp_path / "model.bin", tmp_path / "out", config, prompts=tmp_path / "prompts.json")


def test_the_visual_prompt_is_the_references(imported):
    state, model = imported
    reference = ReferenceMatcher(paper_like.LAYERS, (4, 8), paper_like.PROMPT).double()
    prefix = f"{ROOT}model."
    reference.load_state_dict({name: state[prefix + name].double() for name in reference.state_dict()})
    torch.manual_seed(0)
    query, support = ([100 * torch.randn(1, 24, 8, 8, dtype=torch.float64) for _ in range(2)] for _ in range(2))
    mask = torch.zeros(1, 8, 8, dtype=torch.float64)
    mask[:, 2:6, 1:5] = 1
    expected = reference(query, support, mask)
    torch.testing.assert_close(model.matcher.double()(query, support, mask, 8), expected, atol=1e-4, rtol=1e-4)


def test_projection_lora_and_tokens_are_the_references(imported):
    state, model = imported
    encoder = model.semantic_encoder.double()
    torch.manual_seed(0)
    hidden = torch.randn(3, paper_like.WIDTH, dtype=torch.float64)

    def tensor(name: str) -> Tensor:
        return state[ROOT + name].double()

    fcs = "model.text_hidden_fcs.0"
    inner = (hidden @ tensor(f"{fcs}.0.weight").T + tensor(f"{fcs}.0.bias")).clamp(min=0)
    torch.testing.assert_close(encoder.project(hidden), inner @ tensor(f"{fcs}.2.weight").T + tensor(f"{fcs}.2.bias"))
    for number, layer in enumerate(encoder.llava.model.language_model.layers):
        for name in ("q_proj", "v_proj"):
            module = getattr(layer.self_attn, name)
            lora = f"model.layers.{number}.self_attn.{name}.lora_"
            low = hidden @ tensor(f"{lora}A.default.weight").T @ tensor(f"{lora}B.default.weight").T
            torch.testing.assert_close(module(hidden), module.base_layer(hidden) + 16 / 8 * low)
    embed, head = encoder.llava.get_input_embeddings(), encoder.llava.lm_head
    markers = model.processor.tokenizer.convert_tokens_to_ids(MARKERS)
    ids, theirs = (
        torch.tensor([3, model.processor.semantic_token_id, *markers]),
        [3, *range(VOCABULARY, VOCABULARY + 3)],
    )
    torch.testing.assert_close(embed(ids), tensor("model.embed_tokens.weight")[theirs])
    torch.testing.assert_close(head(hidden)[:, ids], hidden @ tensor("lm_head.weight")[theirs].T)


def test_the_photo_stands_between_its_markers(imported):
    _, model = imported
    tokenizer = model.processor.tokenizer
    ids = model.processor.question([("circle", None)]).input_ids[0].tolist()
    first, last = (ids.index(token) for token in tokenizer.convert_tokens_to_ids(MARKERS))
    assert tokenizer.unk_token_id not in (ids[first], ids[last])
    assert ids[first + 1 : last] == [model.processor.image_token_id] * 4


def test_another_vocabulary_is_refused(tmp_path):
    state = reference_state()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[ROOT + name] = state[ROOT + name][: VOCABULARY + 1]  # without the markers
    torch.save(state, tmp_path / "model.bin")
    with pytest.raises(InputError, match=f"{VOCABULARY + 1} rows in its vocabulary.*im_start"):
        import_reference(tmp_path / "model.bin", tmp_path / "out", paper_like.config())
    assert not (tmp_path / "out").exists()


def test_every_tensor_of_the_mask_decoder_has_its_place(imported):
    state, model = imported
    prefix = f"{ROOT}model.visual_model.mask_decoder."
    for name, tensor in model.mask_decoder.decoder.state_dict().items():
        torch.testing.assert_close(tensor.float(), state[prefix + _sams_own(name)])
    table = state[f"{ROOT}model.visual_model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    torch.testing.assert_close(model.mask_decoder.position.positional_embedding.float(), table)


def test_a_checkpoint_that_lacks_a_part_is_named(tmp_path):
    state = reference_state()
    del state[f"{ROOT}model.decoderFewshot.2.bias"]
    torch.save(state, tmp_path / "model.bin")
    with pytest.raises(InputError, match=r"matcher\.to_prompt\.2\.bias"):
        import_reference(tmp_path / "model.bin", tmp_path / "out", paper_like.config(*paper_like.save_bases(tmp_path)))
    assert not (tmp_path / "out").exists()


def test_the_written_tensors_are_the_models(imported, tmp_path):
    _, model = imported
    model.float().save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == model.trained_state_dict().keys()
