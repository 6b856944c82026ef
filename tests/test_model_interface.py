"""`DSVLFSModel` as transformers and peft take a model, on small SAM and LLaVA folders and on random weights."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import paper_like
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoProcessor,
    BitsAndBytesConfig,
    LlavaForConditionalGeneration,
    ProcessorMixin,
)

from dsvlfs import BaseNotAvailableError, DSVLFSConfig, DSVLFSModel, DSVLFSProcessor, InputError
from dsvlfs.page.examples import EXAMPLES


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A paper-like model, away from its initial values, saved as a checkpoint."""
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    model = DSVLFSModel(paper_like.config(*paper_like.save_bases(folder / "bases")))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder / "checkpoint")
    return folder / "checkpoint"


@pytest.fixture
def probability(circle):
    """Of a model: asked by a name and a support."""
    image, mask = circle

    def ask(model: DSVLFSModel) -> np.ndarray:
        support = model.encode_support([(image, mask), (image, ~mask)])
        return model.segment(image, "red circle", support=support).probability

    return ask


def _language_model(model: DSVLFSModel) -> torch.nn.Module:
    return model.semantic_encoder.llava.model.language_model


def _trained_precisions(model: DSVLFSModel) -> set[torch.dtype]:
    return {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}


@pytest.mark.parametrize("dtype", [torch.bfloat16, "float16"])
def test_a_dtype_is_that_of_the_bases_and_not_of_what_is_trained(checkpoint, probability, dtype):
    plain = DSVLFSModel.from_pretrained(checkpoint)
    half = DSVLFSModel.from_pretrained(checkpoint, dtype=dtype)
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert half.image_encoder.backbone.dtype == half.semantic_encoder.vision_tower.dtype == wanted
    assert _language_model(half).layers[0].mlp.up_proj.weight.dtype == wanted
    assert _trained_precisions(half) == {torch.float32}
    assert half.dtype == torch.float32
    assert np.abs(probability(half) - probability(plain)).max() < 0.05
    own, again = plain.trained_state_dict(), half.trained_state_dict()
    assert all(torch.equal(own[name], again[name]) for name in own)


def test_a_text_loss_beside_a_base_in_half_precision_has_gradients(checkpoint):
    half = DSVLFSModel.from_pretrained(checkpoint, dtype=torch.bfloat16).train()
    encoder, question = half.semantic_encoder, half.processor.question([("circle", None)])
    prompt, text_loss = encoder(encoder.silent_tokens(1), question)
    (prompt.sum() + text_loss).backward()
    missing = [n for n, p in encoder.vlm.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_a_joined_llava_takes_options_too():
    quantization = BitsAndBytesConfig(load_in_8bit=True)
    plain = DSVLFSModel.from_pretrained("dsvlfs-tiny")
    small = DSVLFSModel.from_pretrained(
        "dsvlfs-tiny", dtype=torch.bfloat16, image_options={"quantization_config": quantization, "device_map": "cpu"}
    )
    assert torch.int8 in {parameter.dtype for parameter in small.image_encoder.parameters()}
    assert small.semantic_encoder.vision_tower.dtype == torch.bfloat16
    assert _trained_precisions(small) == {torch.float32}
    example = EXAMPLES[0]
    first, second = (
        model.segment(example.query_file, example.class_name, support=model.encode_support([example.shot]))
        for model in (plain, small)
    )
    assert np.abs(first.probability - second.probability).mean() < 0.01
    assert (first.mask != second.mask).mean() < 0.01


def test_options_of_the_bases_reach_both_but_for_those_of_one(checkpoint):
    model = DSVLFSModel.from_pretrained(
        checkpoint, attn_implementation="eager", device_map="cpu", vlm_options={"attn_implementation": "sdpa"}
    )
    assert model.image_encoder.backbone.config._attn_implementation == "eager"
    assert _language_model(model).config._attn_implementation == "sdpa"
    assert model.device == model.semantic_encoder.device == torch.device("cpu")


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_sam_leaves_what_is_trained_alone(checkpoint, bits):
    quantization = BitsAndBytesConfig(load_in_8bit=bits == 8, load_in_4bit=bits == 4)
    config = DSVLFSConfig.from_pretrained(checkpoint)
    options = {"quantization_config": quantization, "device_map": "cpu"}
    plain, small = DSVLFSModel(config), DSVLFSModel(config, image_options=options, vlm_options=options)
    for base in (small.image_encoder.backbone, _language_model(small)):
        assert {parameter.dtype for parameter in base.parameters()} & {torch.int8, torch.uint8}
    assert _trained_precisions(small) == {torch.float32}
    for name, tensor in plain.mask_decoder.state_dict().items():
        assert torch.equal(small.mask_decoder.state_dict()[name], tensor)


def test_a_device_map_of_parts_is_for_one_base(checkpoint):
    with pytest.raises(InputError, match="image_options or in vlm_options"):
        DSVLFSModel.from_pretrained(checkpoint, device_map={"model.vision_tower": "cpu"})


def test_a_config_is_given_or_changed(checkpoint):
    config = DSVLFSConfig.from_pretrained(checkpoint)
    config.logit_offset = 0.7
    assert DSVLFSModel.from_pretrained(checkpoint, config=config).config.logit_offset == 0.7
    assert DSVLFSModel.from_pretrained(checkpoint, config=checkpoint).config.logit_offset == 0.0
    model = DSVLFSModel.from_pretrained(checkpoint, config=config, vote_threshold=0.3)
    assert model.config.vote_threshold == model.processor.config.vote_threshold == 0.3
    assert config.vote_threshold == 0.5
    with pytest.raises(TypeError, match="'vote_treshold'"):
        DSVLFSModel.from_pretrained(checkpoint, vote_treshold=0.3)
    with pytest.raises(InputError, match="does not fit"):
        DSVLFSModel.from_pretrained(checkpoint, lora_rank=4)


def test_a_checkpoint_in_a_subfolder(checkpoint, probability):
    inside = DSVLFSModel.from_pretrained(checkpoint.parent, subfolder=checkpoint.name)
    np.testing.assert_array_equal(probability(inside), probability(DSVLFSModel.from_pretrained(checkpoint)))
    assert isinstance(AutoModel.from_pretrained(checkpoint.parent, subfolder=checkpoint.name), DSVLFSModel)
    with pytest.raises(InputError, match=r"config\.json"):
        DSVLFSModel.from_pretrained(checkpoint.parent, subfolder="absent")


def test_what_a_base_refuses_is_not_called_damaged(checkpoint):
    for options in ({"attn_implementation": "none such"}, {"dtype": "none such"}):
        with pytest.raises((ValueError, ImportError), match=r"none such|torch\.dtype"):
            DSVLFSModel.from_pretrained(checkpoint, **options)


def test_auto_classes_know_the_checkpoint(checkpoint, probability):
    assert type(AutoConfig.from_pretrained(checkpoint)) is DSVLFSConfig
    assert type(AutoProcessor.from_pretrained(checkpoint)) is DSVLFSProcessor
    model = AutoModel.from_pretrained(checkpoint, attn_implementation="eager", vote_threshold=0.3)
    assert type(model) is DSVLFSModel
    assert model.config.vote_threshold == 0.3
    assert model.image_encoder.backbone.config._attn_implementation == "eager"
    with pytest.raises(TypeError, match="'guess'"):
        AutoModel.from_pretrained(checkpoint, guess=1)
    assert type(AutoModel.from_config(model.config)) is DSVLFSModel


@pytest.mark.parametrize(
    "first",
    [
        "import dsvlfs",
        "from transformers import AutoModel; import dsvlfs",
        "import dsvlfs; from transformers import LlavaForConditionalGeneration; import peft",
    ],
)
def test_a_mere_import_registers_and_is_light(checkpoint, first):
    code = (
        "import sys\n"
        f"{first}\n"
        "assert 'dsvlfs.modeling' not in sys.modules\n"
        "from transformers import AutoConfig, AutoModel, AutoProcessor\n"
        "kinds = [type(a.from_pretrained(sys.argv[1])).__name__ for a in (AutoProcessor, AutoModel, AutoConfig)]\n"
        "assert kinds == ['DSVLFSProcessor', 'DSVLFSModel', 'DSVLFSConfig'], kinds\n"
        "assert type(vars(AutoModel)['from_pretrained']) is classmethod\n"
    )
    done = subprocess.run([sys.executable, "-c", code, checkpoint], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_import_needs_neither_torch_nor_transformers():
    code = "import sys, dsvlfs; assert not {'torch', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_files_say_what_they_are(checkpoint):
    assert json.loads((checkpoint / "config.json").read_text())["architectures"] == ["DSVLFSModel"]
    assert json.loads((checkpoint / "processor_config.json").read_text()) == {"processor_class": "DSVLFSProcessor"}
    assert not list(checkpoint.glob("tokenizer*"))  # the base's


def test_a_processor_travels_alone(micro_model, circle, tmp_path):
    processor = micro_model.processor
    assert isinstance(processor, ProcessorMixin)
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    image = circle[0]
    first, second = (
        each(images=[image, image.rotate(90)], text=["circle", "red square"]) for each in (processor, again)
    )
    assert first.keys() == {"image_pixels", "vlm_pixels", "input_ids", "attention_mask", "labels", "semantic_index"}
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["image_pixels"].shape == (2, 3, 56, 56)
    assert processor(text="circle").keys() & {"image_pixels"} == set()


def test_shards_are_written_and_read(micro_model, tmp_path):
    micro_model.save_pretrained(tmp_path)
    (tmp_path / "optimizer.safetensors").touch()
    whole = load_file(tmp_path / "model.safetensors")
    micro_model.save_pretrained(tmp_path, max_shard_size="200KB")
    shards = sorted(path.name for path in tmp_path.glob("model*"))
    assert len(shards) > 2
    assert "model.safetensors" not in shards
    with torch.no_grad():
        for parameter in micro_model.parameters():
            parameter.zero_()
    micro_model.load_trained(tmp_path / "model.safetensors")
    state = micro_model.trained_state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in whole.items())
    (tmp_path / shards[0]).write_bytes(b"cut short")
    with pytest.raises(InputError, match="damaged"):
        micro_model.load_trained(tmp_path / "model.safetensors")
    micro_model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
    assert (tmp_path / "optimizer.safetensors").exists()  # not ours


def test_saving_by_several_processes(micro_model, tmp_path):
    micro_model.save_pretrained(tmp_path / "other", is_main_process=False)
    assert not (tmp_path / "other").exists()
    gathered = {name: tensor + 1 for name, tensor in micro_model.state_dict().items()}
    micro_model.save_pretrained(tmp_path, state_dict=gathered)
    written = load_file(tmp_path / "model.safetensors")
    assert written.keys() == micro_model.trained_state_dict().keys()
    assert all(torch.equal(written[name], gathered[name]) for name in written)
    with pytest.raises(InputError, match="lacks"):
        micro_model.save_pretrained(tmp_path, state_dict={})
    with pytest.raises(TypeError, match="'max_shards'"):
        micro_model.save_pretrained(tmp_path, max_shards=3)


def test_a_save_that_fails_leaves_the_checkpoint_as_it_was(micro_model, tmp_path, monkeypatch):
    micro_model.save_pretrained(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    micro_model.config.logit_offset = 3.0

    def fail(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("dsvlfs.hub.saving.write_adapter", fail)
    with pytest.raises(OSError, match="No space"):
        micro_model.save_pretrained(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_sizes_and_places(micro_model):
    assert micro_model.num_parameters() == sum(p.numel() for p in micro_model.parameters())
    trained = sum(p.numel() for p in micro_model.parameters() if p.requires_grad)
    assert micro_model.num_parameters(only_trainable=True) == trained
    weights = sum(t.nbytes for t in (*micro_model.parameters(), *micro_model.buffers()))
    assert micro_model.get_memory_footprint() == weights
    assert (micro_model.dtype, micro_model.device) == (torch.float32, torch.device("cpu"))


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_gradient_checkpointing_gives_the_same_gradients(micro_model):
    encoder, question = micro_model.train().semantic_encoder, micro_model.processor.question([("circle", None)])
    layer, read = _language_model(micro_model).layers[0].self_attn, []
    layer.o_proj.register_forward_hook(lambda *_: read.append(1))
    gradients, passes = [], []
    for _ in range(2):
        del read[:]
        torch.manual_seed(0)
        micro_model.zero_grad()
        prompt, text_loss = encoder(torch.ones_like(encoder.silent_tokens(1)), question)
        (prompt.sum() + text_loss).backward()
        gradients.append(layer.v_proj.lora_B["default"].weight.grad.clone())
        passes.append(len(read))
        micro_model.gradient_checkpointing_enable()
    assert passes == [1, 2]
    assert gradients[0].any()
    torch.testing.assert_close(*gradients)
    micro_model.gradient_checkpointing_disable()
    assert not micro_model.is_activation_checkpointing


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", ["tiny", "paper"])
def test_the_whole_model_in_half_precision(micro_model, checkpoint, circle, dtype, size):
    model = micro_model if size == "tiny" else DSVLFSModel.from_pretrained(checkpoint)
    if size == "tiny":
        model.add_shot_attention()
    image, mask = circle
    support, query = model.encode_support([(image, mask), (image, ~mask)]), model.encode_query(image)
    aggregations = ["votes", "joint", *(["attention"] if size == "tiny" else [])]
    expected = [model.segment(query, "circle", support=support, aggregation=a).probability for a in aggregations]
    half = copy.deepcopy(model)
    half = half.half() if dtype == torch.float16 else half.to(dtype)
    assert half.dtype == dtype
    own = half.encode_support([(image, mask), (image, ~mask)])
    for given, shown in ((image, own), (query, support)):  # encoded since, or before
        for aggregation, wanted in zip(aggregations, expected):
            found = half.segment(given, "circle", support=shown, aggregation=aggregation).probability
            assert np.abs(found - wanted).max() < 0.05


def test_copies_are_the_same_model(checkpoint, probability, tmp_path):
    model = DSVLFSModel.from_pretrained(checkpoint)
    fresh = copy.deepcopy(model)
    expected = probability(model)
    file = tmp_path / "model.pickle"
    file.write_bytes(pickle.dumps(model))
    for other in (fresh, copy.deepcopy(model), pickle.loads(file.read_bytes()), model):
        np.testing.assert_array_equal(probability(other), expected)
    code = (
        "import numpy, pickle, sys; from pathlib import Path\n"
        "model = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
        "model.segment(numpy.zeros((8, 8)), 'circle')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_is_none_of_its_business(micro_model, checkpoint, probability, dtype):
    micro_model.add_shot_attention()
    expected = [probability(model) for model in (micro_model, DSVLFSModel.from_pretrained(checkpoint))]
    try:
        torch.set_default_dtype(dtype)
        loaded = DSVLFSModel.from_pretrained(checkpoint)
        found = [probability(model) for model in (micro_model, loaded)]
    finally:
        torch.set_default_dtype(torch.float32)
    assert _trained_precisions(loaded) == {torch.float32}
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("error::UserWarning:peft")
def test_the_adapter_makes_the_same_llava_of_its_base(checkpoint, circle):
    model = DSVLFSModel.from_pretrained(checkpoint)
    settings = json.loads((checkpoint / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == model.config.vlm_base
    base = LlavaForConditionalGeneration.from_pretrained(settings["base_model_name_or_path"]).eval()
    question = model.processor.question([("red circle", None)])
    pixels = model.processor.query_view(circle[0]).vlm_pixels
    asked = {"input_ids": question.input_ids, "attention_mask": question.attention_mask, "pixel_values": pixels}
    with torch.inference_mode():
        plain = base(**asked).logits
        adapted = PeftModel.from_pretrained(base, str(checkpoint), subfolder="adapter")
        found, own = adapted(**asked).logits, model.semantic_encoder.llava(**asked).logits
    assert torch.equal(found, own)
    assert not torch.allclose(found, plain)


def test_a_base_that_is_not_here_is_not_fetched_where_that_is_forbidden(checkpoint, monkeypatch):
    def fetch(name: str, local_files_only: bool = False, **_: object) -> str:
        assert local_files_only, "it went online"
        raise FileNotFoundError(name)

    monkeypatch.setattr("dsvlfs.hub.bases.snapshot_download", fetch)
    with pytest.raises(BaseNotAvailableError, match="without local_files_only"):
        DSVLFSModel.from_pretrained(checkpoint, vlm_base="someone/llava", local_files_only=True)
