"""Whether `DSVLFSModel` is what transformers, peft and the Hugging Face hub take a model for: every point is tried on
the packaged checkpoint, with a stand-in for the hub. Prints a line a point; the exit status is 1 where one fails.

In a fresh environment: `pip install '.[quantize]'`, then `python benchmarks/model_interface.py`; words after it choose
the points whose text has one of them.
"""

import contextlib
import copy
import json
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from stand_in_hub import REPOSITORY, Hub, commit_of, metadata_errors, running_hub

EXAMPLES = Path(__file__).parents[1] / "dsvlfs" / "page" / "examples"
POINTS: list[tuple[str, Callable[["Trial"], None]]] = []


def point(text: str) -> Callable:
    """A point of the list: what its function returns without an error holds."""

    def add(function: Callable[["Trial"], None]) -> Callable[["Trial"], None]:
        POINTS.append((text, function))
        return function

    return add


class Trial:
    """What the points share: the packaged model, its mask of an example, its checkpoint as saved and on the hub."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        import numpy as np

        from dsvlfs import DSVLFSModel

        self.folder, self.hub, self.np, self.kind = folder, hub, np, DSVLFSModel
        self.example = json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8"))[0]
        self.model = DSVLFSModel.from_pretrained("dsvlfs-tiny")
        self.expected = self.probability(self.model)
        self.checkpoint = folder / "checkpoint"
        self.model.save_pretrained(self.checkpoint)

    def probability(self, model):
        """Of the example's query, by its name and its support."""
        example = self.example
        support = model.encode_support([(EXAMPLES / example["support_image"], EXAMPLES / example["support_mask"])])
        return model.segment(EXAMPLES / example["query_image"], example["class_name"], support=support).probability

    def check_same(self, model) -> None:
        """To the last bit."""
        assert self.np.array_equal(self.probability(model), self.expected), "another mask"

    def check_close(self, model, limit: float) -> None:
        """A probability differs by this much at most in the mean, and its mask at one pixel in a hundred."""
        found = self.probability(model)
        assert self.np.isfinite(found).all(), "no number"
        difference = abs(found - self.expected).mean()
        changed = ((found >= 0.5) != (self.expected >= 0.5)).mean()
        assert difference < limit, f"probabilities differ by {difference:.4f} in the mean"
        assert changed < 0.01, f"{changed:.2%} of the mask changed"

    def push(self, **options):
        """Sends the model to the stand-in."""
        return self.model.push_to_hub(REPOSITORY, token="hf_none", **options)


def check_trained_precise(model) -> None:
    """What is trained is in float32."""
    import torch

    wrong = [n for n, p in model.named_parameters() if p.requires_grad and p.dtype != torch.float32]
    assert not wrong, f"{wrong[0]} is not in float32"


@point("from_pretrained(dtype=): the bases take it, what is trained stays in float32")
def _dtype(trial: Trial) -> None:
    import torch

    model = trial.kind.from_pretrained(trial.checkpoint, dtype=torch.bfloat16)
    encoder = model.semantic_encoder
    layer = encoder.llava.model.language_model.layers[0]
    assert model.image_encoder.backbone.dtype == encoder.vision_tower.dtype == torch.bfloat16
    assert layer.mlp.up_proj.weight.dtype == torch.bfloat16
    assert model.dtype == torch.float32
    check_trained_precise(model)
    trial.check_close(model, 0.01)


@point("from_pretrained(device_map=)")
def _device_map(trial: Trial) -> None:
    trial.check_same(trial.kind.from_pretrained(trial.checkpoint, device_map="cpu"))
    model = trial.kind.from_pretrained(trial.checkpoint, device_map="auto")
    devices = {model.device, model.image_encoder.backbone.device, model.semantic_encoder.device}
    assert len(devices) == 1, devices


@point("from_pretrained(quantization_config=): 8 and 4 bit, of both bases")
def _quantization(trial: Trial) -> None:
    import torch
    from transformers import BitsAndBytesConfig

    for bits in (8, 4):
        config = BitsAndBytesConfig(load_in_8bit=bits == 8, load_in_4bit=bits == 4)
        model = trial.kind.from_pretrained(trial.checkpoint, quantization_config=config, device_map="cpu")
        for base in (model.semantic_encoder.llava.model.language_model, model.image_encoder.backbone):
            kinds = {parameter.dtype for parameter in base.parameters()}
            assert kinds & {torch.int8, torch.uint8}, f"{bits} bit: {kinds}"
        check_trained_precise(model)
        assert trial.np.isfinite(trial.probability(model)).all()


@point("from_pretrained(attn_implementation=)")
def _attention(trial: Trial) -> None:
    model = trial.kind.from_pretrained(trial.checkpoint, attn_implementation="eager")
    llava = model.semantic_encoder.llava
    for part in (model.image_encoder.backbone, llava.model.language_model):
        assert part.config._attn_implementation == "eager"
    trial.check_close(model, 1e-4)


@point("from_pretrained(token=, revision=, cache_dir=, local_files_only=, force_download=) from the hub")
def _hub(trial: Trial) -> None:
    from dsvlfs import InputError

    trial.push(revision="second")
    cache = trial.folder / "cache"
    given = {"revision": "second", "cache_dir": cache}
    model = trial.kind.from_pretrained(REPOSITORY, token="hf_mine", **given)
    trial.check_same(model)
    assert "hf_mine" in trial.hub.tokens
    assert any(cache.rglob("model.safetensors"))
    trial.check_same(trial.kind.from_pretrained(REPOSITORY, local_files_only=True, **given))
    trial.check_same(trial.kind.from_pretrained(REPOSITORY, force_download=True, **given))
    with contextlib.suppress(InputError):
        trial.kind.from_pretrained(REPOSITORY, local_files_only=True, cache_dir=trial.folder / "empty")
        raise AssertionError("it went online")


@point("from_pretrained(subfolder=)")
def _subfolder(trial: Trial) -> None:
    trial.check_same(trial.kind.from_pretrained(trial.folder, subfolder="checkpoint"))


@point("from_pretrained(config=, setting=)")
def _config(trial: Trial) -> None:
    config = copy.deepcopy(trial.model.config)
    config.logit_offset = 0.0
    assert trial.kind.from_pretrained(trial.checkpoint, config=config).config.logit_offset == 0.0
    assert trial.kind.from_pretrained(trial.checkpoint, config=trial.checkpoint).config.logit_offset != 0.0
    model = trial.kind.from_pretrained(trial.checkpoint, vote_threshold=0.25)
    assert model.config.vote_threshold == model.processor.config.vote_threshold == 0.25


@point("image_options and vlm_options tell the bases apart")
def _apart(trial: Trial) -> None:
    import torch

    model = trial.kind.from_pretrained(
        trial.checkpoint, image_options={"dtype": torch.bfloat16}, vlm_options={"attn_implementation": "eager"}
    )
    language_model = model.semantic_encoder.llava.model.language_model
    assert model.image_encoder.backbone.dtype == torch.bfloat16
    assert language_model.layers[0].mlp.up_proj.weight.dtype == torch.float32
    assert (
        language_model.config._attn_implementation
        == "eager"
        != model.image_encoder.backbone.config._attn_implementation
    )


@point("AutoConfig, AutoModel and AutoProcessor after `import dsvlfs`, from a folder and from the hub")
def _auto(trial: Trial) -> None:
    trial.push()
    code = (
        "import sys, dsvlfs\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "from transformers import AutoConfig, AutoModel, AutoProcessor\n"
        "for name in sys.argv[1:]:\n"
        "    found = [kind.from_pretrained(name) for kind in (AutoConfig, AutoModel, AutoProcessor)]\n"
        "    kinds = [type(each).__name__ for each in found]\n"
        "    assert kinds == ['DSVLFSConfig', 'DSVLFSModel', 'DSVLFSProcessor'], kinds\n"
    )
    names = [str(trial.checkpoint), REPOSITORY]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


@point("architectures, a processor file, and a ProcessorMixin")
def _processor(trial: Trial) -> None:
    from transformers import ProcessorMixin

    from dsvlfs import DSVLFSProcessor

    config = json.loads((trial.checkpoint / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["DSVLFSModel"]
    assert (trial.checkpoint / "processor_config.json").is_file()
    assert isinstance(trial.model.processor, ProcessorMixin)
    trial.model.processor.save_pretrained(trial.folder / "processor")
    again = DSVLFSProcessor.from_pretrained(trial.folder / "processor")
    first, second = (
        each(images=EXAMPLES / trial.example["query_image"], text="fox") for each in (trial.model.processor, again)
    )
    assert all(first[name].equal(second[name]) for name in first)


@point("save_pretrained(push_to_hub=)")
def _save_and_push(trial: Trial) -> None:
    trial.hub.branches["main"].clear()
    trial.model.save_pretrained(trial.folder / "mine", push_to_hub=True, repo_id=REPOSITORY, token="hf_none")
    written = {
        p.relative_to(trial.folder / "mine").as_posix() for p in (trial.folder / "mine").rglob("*") if p.is_file()
    }
    assert trial.hub.files.keys() == written


@point("save_pretrained(max_shard_size=, is_main_process=, state_dict=)")
def _save(trial: Trial) -> None:
    from safetensors.torch import load_file

    from dsvlfs import InputError

    shards = trial.folder / "shards"
    trial.model.save_pretrained(shards, max_shard_size="4MB")
    assert len(list(shards.glob("model-*.safetensors"))) > 1
    trial.check_same(trial.kind.from_pretrained(shards))
    trial.model.save_pretrained(trial.folder / "none", is_main_process=False)
    assert not (trial.folder / "none").exists()
    trial.model.save_pretrained(shards, state_dict=trial.model.state_dict())
    first, again = (load_file(folder / "model.safetensors") for folder in (trial.checkpoint, shards))
    assert first.keys() == again.keys()
    assert all(first[name].equal(again[name]) for name in first)
    assert not list(shards.glob("model-*.safetensors"))
    with contextlib.suppress(InputError):
        trial.model.save_pretrained(shards, state_dict={"matcher": None})
        raise AssertionError("it saved a part")


@point("push_to_hub(create_pr=, revision=, commit_description=, private=, token=)")
def _push(trial: Trial) -> None:
    hub = trial.hub
    proposed = trial.push(create_pr=True, commit_description="Why.", private=True)
    assert proposed.pr_num == 1
    assert hub.commits[-1]["is_proposed"]
    assert hub.commits[-1]["description"] == "Why."
    assert hub.created[-1]["visibility"] == "private"
    made = trial.push(revision="third", commit_message="Third")
    assert hub.commits[-1]["branch"] == "third"
    assert hub.commits[-1]["summary"] == "Third"
    assert made == f"{hub.address}/{REPOSITORY}/commit/{commit_of('third')}"


@point("num_parameters, get_memory_footprint, dtype, device")
def _sizes(trial: Trial) -> None:
    import torch

    model = trial.model
    assert model.num_parameters() == sum(p.numel() for p in model.parameters())
    assert model.num_parameters(only_trainable=True) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert model.get_memory_footprint() > 4 * model.num_parameters()
    assert (model.dtype, model.device) == (torch.float32, torch.device("cpu"))


@point("gradient_checkpointing_enable: the same gradients")
def _checkpointing(trial: Trial) -> None:
    import torch

    model = copy.deepcopy(trial.model).train()
    encoder, question = model.semantic_encoder, model.processor.question([("fox", None)])
    layer = encoder.llava.model.language_model.layers[0]
    weight = layer.self_attn.v_proj.lora_B["default"].weight
    gradients, passes = [], []
    layer.self_attn.o_proj.register_forward_hook(lambda *_: passes.append(1))
    for _ in range(2):
        torch.manual_seed(0)
        model.zero_grad()
        prompt, text_loss = encoder(encoder.silent_tokens(1), question)
        (prompt.sum() + text_loss).backward()
        gradients.append(weight.grad.clone())
        model.gradient_checkpointing_enable()
    assert len(passes) == 3, "no activation was made again"
    assert gradients[0].any()
    assert torch.equal(*gradients)
    model.gradient_checkpointing_disable()
    assert not model.is_activation_checkpointing


@point("add_model_tags, and a card that is ours with valid metadata")
def _card(trial: Trial) -> None:
    from huggingface_hub import ModelCard

    own = (trial.checkpoint / "README.md").read_text(encoding="utf-8")
    assert own == trial.model.card
    assert metadata_errors(own) == []
    model = copy.copy(trial.model)
    model.add_model_tags(["birds"])
    model.push_to_hub(REPOSITORY, token="hf_none")
    pushed = trial.hub.files["README.md"].decode()
    assert metadata_errors(pushed) == []
    assert "birds" in ModelCard(pushed).data.tags
    assert ModelCard(pushed).text.strip() == ModelCard(own).text.strip()


@point("half() and to(torch.bfloat16) of the whole, with a support")
def _half(trial: Trial) -> None:
    import torch

    for dtype in (torch.float16, torch.bfloat16):  # on a CPU, slow
        model = copy.deepcopy(trial.model)
        model = model.half() if dtype == torch.float16 else model.to(dtype)
        assert model.dtype == dtype
        trial.check_close(model, 0.02)


@point("copy.deepcopy and pickle")
def _copies(trial: Trial) -> None:
    trial.check_same(copy.deepcopy(trial.model))
    file = trial.folder / "model.pickle"
    file.write_bytes(pickle.dumps(trial.model))
    trial.check_same(pickle.loads(file.read_bytes()))
    code = (
        "import pickle, sys\n"
        "from pathlib import Path\n"
        "model = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
        "model.segment(sys.argv[2], 'fox')\n"
    )
    picture = EXAMPLES / trial.example["query_image"]
    subprocess.run([sys.executable, "-c", code, str(file), str(picture)], capture_output=True, check=True)


@point("torch.set_default_dtype, before and after loading")
def _default_dtype(trial: Trial) -> None:
    import torch

    for dtype in (torch.float64, torch.bfloat16):
        try:
            torch.set_default_dtype(dtype)
            trial.check_same(trial.model)
            trial.check_same(trial.kind.from_pretrained(trial.checkpoint))
        finally:
            torch.set_default_dtype(torch.float32)


@point("LoRA in peft's own form: PeftModel.from_pretrained(base, CHECKPOINT, subfolder='adapter')")
def _adapter(trial: Trial) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from dsvlfs.hub.bases import resolve_base

    model, checkpoint = copy.deepcopy(trial.model), trial.folder / "adapted"
    with torch.no_grad():  # the packaged one's factors may be nought
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.02)
    model.save_pretrained(checkpoint)
    settings = json.loads((checkpoint / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    name = settings["base_model_name_or_path"]
    assert name == model.config.language_base
    base = AutoModelForCausalLM.from_pretrained(resolve_base(name), dtype=torch.float32)
    ids = trial.model.processor.tokenizer("Where is the fox?", return_tensors="pt").input_ids
    with torch.inference_mode():
        plain = base.model(ids).last_hidden_state
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # of tensors that it lacks
            adapted = PeftModel.from_pretrained(base, str(checkpoint), subfolder="adapter")
        found = adapted.get_base_model().model(ids).last_hidden_state
        own = model.semantic_encoder.llava.model.language_model(ids).last_hidden_state
    assert torch.equal(found, own), "another language model"
    assert not torch.allclose(found, plain)


@point("a checkpoint holds what was trained and names its bases; a round trip is bit-equal")
def _round_trip(trial: Trial) -> None:
    import torch
    from safetensors.torch import load_file

    tensors, trained = load_file(trial.checkpoint / "model.safetensors"), trial.model.trained_state_dict()
    assert tensors.keys() == trained.keys()
    assert not any(n.startswith("image_encoder.") or "vision_tower" in n or "base_layer" in n for n in tensors)
    restored = trial.kind.from_pretrained(trial.checkpoint)
    again = restored.trained_state_dict()
    assert all(torch.equal(again[name], trained[name]) for name in trained)
    assert restored.config.language_base == trial.model.config.language_base
    trial.check_same(restored)


@point("an option that transformers refuses is not reported as damage")
def _refused(trial: Trial) -> None:
    from dsvlfs import BaseNotAvailableError

    for options in ({"attn_implementation": "none such"}, {"dtype": "none such"}):
        try:
            trial.kind.from_pretrained(trial.checkpoint, **options)
        except BaseNotAvailableError as error:
            raise AssertionError(str(error)) from error
        except Exception as error:  # transformers' own, of whatever kind
            print(f"      refused: {str(error).splitlines()[0]}")
        else:
            raise AssertionError(f"{options} was taken")


def main() -> int:
    """Tries every point."""
    failed, tried = 0, 1
    with tempfile.TemporaryDirectory() as folder, running_hub() as hub:
        # Read when huggingface_hub is imported, which is later.
        os.environ |= {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "HF_HOME": f"{folder}/home"}
        trial = Trial(Path(folder), hub)
        print("ok    from_pretrained(name_or_path)", flush=True)
        for text, function in POINTS:
            if not any(word in text for word in sys.argv[1:] or [""]):
                continue
            tried += 1
            try:
                function(trial)
                print(f"ok    {text}", flush=True)
            except Exception as error:
                failed += 1
                print(f"FAIL  {text}: {type(error).__name__}: {error}", flush=True)
                traceback.print_exc(file=sys.stderr)
    print(f"{tried - failed} of {tried} points hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
