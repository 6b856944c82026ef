"""The class semantic encoder: a LLaVA reads the class and the photo and answers with `<SEM_prompt>`; that token's last
hidden state becomes the semantic prompt (arXiv 2503.04006, section 3.2)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from threading import RLock
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module
from accelerate.utils import align_module_device
from peft import LoraConfig, PeftModel, get_peft_model
from peft.helpers import rescale_adapter_scale
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..errors import InputError
from .kept_states import KeptStates
from .photo_prompt import PhotoPrompt
from .unknown_words import UnknownWords

_ADAPTERS = RLock()
"""Of a pass of a language model whose adapters some passes leave out."""


@dataclass(frozen=True)
class Question:
    """A batch of teacher-forced questions and answers, padded on the right.

    Args:
        input_ids: (batch, length), with the image token once for each photo token.
        attention_mask: (batch, length).
        labels: (batch, length), -100 outside the answer.
        semantic_index: (batch,), position of `<SEM_prompt>`.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    semantic_index: Tensor

    def to(self, device: torch.device) -> "Question":
        """The same on another device."""
        return Question(**{name: value.to(device) for name, value in vars(self).items()})


class SemanticEncoder(nn.Module):
    """LLaVA with LoRA, and the projection of its answer. What is trained is in float32, whatever the LLaVA is in.

    Args:
        llava: the pretrained LLaVA, whose vocabulary holds `<SEM_prompt>`.
        semantic_token_id: of `<SEM_prompt>`.
        stages: stages of the vision tower whose feature maps are returned beside the tokens.
        lora_rank, lora_alpha, lora_dropout: of the adapters on q_proj and v_proj of the language model.
        train_token_embeddings: "all" embeddings and the LM head, or only the "added" token's rows.
        train_projector: train LLaVA's multimodal projector.
        standardise_state: shift and scale the state before its projection, by buffers that training sets: a small
            language model's states at `<SEM_prompt>` hardly differ between classes.
        prompt_dim: channels of the semantic prompt.
    """

    def __init__(
        self,
        *,
        llava: LlavaForConditionalGeneration,
        semantic_token_id: int,
        stages: Sequence[int] = (),
        lora_rank: int = 8,
        lora_alpha: int = 16,
        lora_dropout: float = 0.05,
        train_token_embeddings: str = "all",
        train_projector: bool = False,
        standardise_state: bool = False,
        photo_state: bool = False,
        prompt_dim: int = 256,
    ) -> None:
        super().__init__()
        adapters = LoraConfig(
            r=lora_rank,
            lora_alpha=lora_alpha,
            lora_dropout=lora_dropout,
            target_modules=r".*language_model.*\.(q_proj|v_proj)",
            modules_to_save=["embed_tokens", "lm_head"] if train_token_embeddings == "all" else None,
            trainable_token_indices=(
                {"embed_tokens": [semantic_token_id]} if train_token_embeddings == "added" else None
            ),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that v6 drops
            self.vlm = get_peft_model(llava, adapters)
        self.llava.model.multi_modal_projector.requires_grad_(train_projector)
        _keep_trained_loaded(self.vlm)
        self._keep_trained_precise()
        self.stages = tuple(stages)
        width = llava.config.text_config.hidden_size
        self.standardise_state = standardise_state
        if standardise_state:
            self.register_buffer("state_mean", torch.zeros(width))
            self.register_buffer("state_scale", torch.ones(width))
        self.unknown_words = UnknownWords(width=width) if standardise_state else None
        self.to_prompt = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, prompt_dim))
        self.photo_prompt: PhotoPrompt | None = None
        if photo_state:
            self.add_photo_prompt()
        self._states = KeptStates()

    def add_photo_prompt(self) -> None:
        """Adds a `PhotoPrompt` that has learned nothing, where there is none."""
        if self.photo_prompt is None:
            first, last = self.to_prompt[0], self.to_prompt[-1]
            added = PhotoPrompt(width=first.in_features, prompt_dim=last.out_features)
            self.photo_prompt = added.to(first.weight.device)

    def adapt(self) -> None:
        """Lets LoRA learn."""
        for name, parameter in self.vlm.named_parameters():
            if "lora_" in name:
                parameter.requires_grad_(True)

    @property
    def llava(self) -> LlavaForConditionalGeneration:
        """The LLaVA under the adapters."""
        return self.vlm.get_base_model()

    def _keep_trained_precise(self) -> None:
        """Beside a LLaVA in less precision, what is trained stays in float32: what it reads and gives is cast."""
        language_model = self.llava.model.language_model
        for module in self.vlm.modules():
            for part in module.modules_to_save.values() if isinstance(module, ModulesToSaveWrapper) else ():
                if part.weight.dtype == torch.float32:
                    continue
                part.float()
                if isinstance(part, nn.Embedding):
                    part.register_forward_hook(partial(_given_as_beside, language_model.norm))
                else:
                    part.register_forward_pre_hook(_read_as_own)
        for parameter in self.vlm.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    @property
    def device(self) -> torch.device:
        """Where the language model starts to compute."""
        return next(parameter.device for parameter in self.vlm.parameters() if parameter.requires_grad)

    def place(self, device: torch.device) -> None:
        """Moves all but the LLaVA."""
        self.to_prompt.to(device)
        for part in (self.photo_prompt, self.unknown_words):
            if part is not None:
                part.to(device)
        for name, buffer in self.named_buffers(recurse=False):
            self.register_buffer(name, buffer.to(device))

    @property
    def is_adapted(self) -> bool:
        """Whether training has changed the language model: LoRA's second factors start as nought."""
        return any(tensor.any() for name, tensor in self.vlm.named_parameters() if "lora_B" in name)

    @property
    def reads_photo(self) -> bool:
        """Whether the answer depends on the photo: not where the projector's last matrix is nought, whose output is
        then its bias, whatever it is given; where there is a `PhotoPrompt`, whether that has learned. True where the
        matrix is not here: divided among processes, or offloaded."""
        if self.photo_prompt is not None:
            return not self.photo_prompt.is_silent
        weight = self.llava.model.multi_modal_projector.linear_2.weight
        return weight.is_meta or weight.numel() == 0 or bool(weight.any())

    @property
    def vision_tower(self) -> PreTrainedModel:
        """The LLaVA's frozen vision tower."""
        return self.llava.model.vision_tower

    def train(self, mode: bool = True) -> "SemanticEncoder":
        """The frozen vision tower stays in evaluation mode (its batch norms must not learn)."""
        super().train(mode)
        self._states.clear()
        self.vision_tower.eval()
        return self

    def encode_photo(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """Runs the frozen vision tower, once a photo whatever is asked about it.

        Args:
            pixel_values: (batch, 3, size, size), normalised.

        Returns:
            `tokens`: (batch, tokens, channels), and `vision.N`: (batch, channels, height, width) for each stage N
            asked for.
        """
        output = self.vision_tower(pixel_values=pixel_values, output_hidden_states=True)
        config = self.llava.config
        tokens = output.hidden_states[config.vision_feature_layer]
        if config.vision_feature_select_strategy == "default":
            tokens = tokens[:, 1:]  # the class token
        return {"tokens": tokens} | {f"vision.{n}": output.feature_maps[n].contiguous() for n in self.stages}

    def silent_tokens(self, batch: int) -> Tensor:
        """Photo tokens (batch, tokens, channels) of nought: through a projector that is new, a photo of nothing."""
        projector = self.llava.model.multi_modal_projector
        return projector.linear_1.weight.new_zeros(
            batch, self.llava.config.image_seq_length, projector.linear_1.in_features
        )

    def read(self, tokens: Tensor | None, question: Question) -> tuple[Tensor, Tensor]:
        """One teacher-forced pass of the language model.

        Args:
            tokens: (batch, tokens, channels) of the photo, from `encode_photo`; None where the question holds no
                image token.
            question: of the same batch.

        Returns:
            Last hidden state at `<SEM_prompt>` (batch, width), and the cross-entropy of the answer (scalar).
        """
        hidden = self._hidden(tokens, question)
        targets = question.labels[:, 1:]
        answered = targets != -100  # logits of the answer only: the vocabulary is the larger part of the cost
        logits = self.llava.lm_head(hidden[:, :-1][answered])
        return _state(hidden, question), F.cross_entropy(logits.float(), targets[answered])

    @torch.no_grad()
    def prompt(self, tokens: Tensor, question: Question) -> Tensor:
        """The semantic prompts of photos that are all asked one question, for inference: without the text loss, and
        computed once a question where no photo is read. What is kept is dropped when a weight has changed.

        Args:
            tokens: (batch, tokens, channels) of the photos, from `encode_photo`.
            question: a batch of one.

        Returns:
            (batch, prompt_dim).
        """
        if self.training or self.reads_photo:
            every = Question(**{name: torch.cat([value] * len(tokens)) for name, value in vars(question).items()})
            if self.photo_prompt is None:
                return self.project(_state(self._hidden(tokens, every), every))
            return self.project(self._kept_state(tokens, question)) + self.photo_share(tokens, every)
        return self.project(self._kept_state(tokens, question)).expand(len(tokens), -1)

    @torch.no_grad()
    def strangeness(self, question: Question) -> float:
        """How like a word that means nothing the name that is asked for is to the language model (`UnknownWords`), from
        -1 to 1; -1 where nothing tells.

        Args:
            question: a batch of one, without a description.
        """
        if self.unknown_words is None:
            return -1.0
        return float(self.unknown_words(self._standardised(self._kept_state(self.silent_tokens(1), question))))

    def photo_share(self, tokens: Tensor, question: Question) -> Tensor:
        """What the photo adds to the prompt (batch, prompt_dim), where there is a `PhotoPrompt`; of the same
        arguments as `read`."""
        assert self.photo_prompt is not None
        with _ADAPTERS:
            state = _state(self._hidden(tokens, question), question)
        return self.photo_prompt(state)

    def _kept_state(self, tokens: Tensor, question: Question) -> Tensor:
        """`class_state` (1, width) of a question, for which no photo is read; kept."""
        asked = tuple(question.input_ids[0].tolist())
        return self._states.get(asked, self._weights(), lambda: self.class_state(tokens[:1], question))

    def _weights(self) -> tuple[tuple[int, int], ...]:
        """Where each weight is, and how often it has been written to: another where one has changed."""
        return tuple(
            (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
            for tensor in chain(self.parameters(), self.buffers())
        )

    def _hidden(self, tokens: Tensor | None, question: Question) -> Tensor:
        """The language model's last hidden states (batch, length, width)."""
        if tokens is None:
            return self._read(None, question)
        projector = self.llava.model.multi_modal_projector
        dtype = projector.linear_1.weight.dtype
        return self._read(projector(tokens.to(dtype) if dtype.is_floating_point else tokens), question)

    def class_state(self, tokens: Tensor, question: Question) -> Tensor:
        """(batch, width), the state whose projection is the prompt: where `PhotoPrompt` reads the photo, of the class
        alone, by the language model without LoRA: what the adapters learn of photos leaves the names alone."""
        if self.photo_prompt is None:
            return _state(self._hidden(tokens, question), question)
        with _ADAPTERS, rescale_adapter_scale(self.vlm, 0):
            return _state(self._read(self.photo_prompt.silent.expand(*tokens.shape[:2], -1), question), question)

    def _read(self, embeddings: Tensor | None, question: Question) -> Tensor:
        """The last hidden states by the embeddings (batch, tokens, width) of the photo's tokens."""
        photo = None
        if embeddings is not None:
            photo = {"image": BaseModelOutputWithPooling(pooler_output=list(embeddings))}
        return self.llava.model(
            input_ids=question.input_ids,
            attention_mask=question.attention_mask,
            mm_encoder_outputs=photo,
            use_cache=False,  # nobody goes on from here
        ).last_hidden_state

    def project(self, state: Tensor) -> Tensor:
        """(batch, width) at `<SEM_prompt>` to the semantic prompt (batch, prompt_dim)."""
        return self.to_prompt(self._standardised(state))

    def _standardised(self, state: Tensor) -> Tensor:
        state = state.to(self.to_prompt[0].weight)
        return (state - self.state_mean) * self.state_scale if self.standardise_state else state

    def forward(self, tokens: Tensor | None, question: Question) -> tuple[Tensor, Tensor]:
        """`read`, then `project`: the semantic prompt and the text loss."""
        with _ADAPTERS:
            state, text_loss = self.read(tokens, question)
        if self.photo_prompt is None:
            return self.project(state), text_loss
        with torch.no_grad():
            alone = self.class_state(tokens, question)
        return self.project(alone) + self.photo_prompt(state), text_loss


def _keep_trained_loaded(vlm: PeftModel) -> None:
    """Where accelerate has offloaded a base, peft makes what is trained beside it without memory, and loading it would
    change nothing: here LoRA and what is saved whole get their values, where the base computes.

    Raises:
        InputError: something else that is trained is offloaded.
    """
    for module in vlm.modules():
        if isinstance(module, LoraLayer):
            base = module.get_base_layer()
        elif isinstance(module, ModulesToSaveWrapper):
            base = module.original_module
        else:
            continue
        if not hasattr(base, "_hf_hook") or not any(parameter.is_meta for parameter in base.parameters()):
            continue
        device = base._hf_hook.execution_device
        if isinstance(module, LoraLayer):
            for part in (module.lora_A, module.lora_B):
                part.to_empty(device=device)
            for adapter in module.active_adapters:
                module.reset_lora_parameters(adapter, True)
        else:
            for part in module.modules_to_save.values():
                remove_hook_from_module(part).to_empty(device=device)
                with align_module_device(base):
                    part.load_state_dict(base.state_dict())
                add_hook_to_module(part, AlignDevicesHook(device))  # what it reads comes to it, as to its base
    hooked = any(hasattr(module, "_hf_hook") for module in vlm.modules())
    lost = [name for name, parameter in vlm.named_parameters() if parameter.requires_grad and parameter.is_meta]
    if hooked and lost:
        raise InputError(
            f"What is trained cannot be offloaded ({lost[0].removeprefix('base_model.model.')}); give it a device in "
            "device_map."
        )


def _given_as_beside(beside: nn.Module, part: nn.Module, given: Any, result: Tensor) -> Tensor:
    """A forward hook: what a part gives, in the precision of the layers beside it."""
    return result.to(beside.weight.dtype)


def _read_as_own(part: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A forward hook: what a part reads, in its own precision."""
    return tuple(tensor.to(part.weight.dtype) for tensor in given)


def _state(hidden: Tensor, question: Question) -> Tensor:
    """Hidden states (batch, length, width) at `<SEM_prompt>`, (batch, width)."""
    return hidden[torch.arange(len(hidden), device=hidden.device), question.semantic_index]
