"""`DSVLFSModel`: the parts wired together, and the ways in and out of it."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import CommitInfo
from torch import Tensor
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_utils import local_torch_dtype

from .collecting import uncollected
from .configuration import DSVLFSConfig
from .errors import InputError
from .hub.assembly import layer_channels, load_image_base, load_llava
from .hub.bases import HUB_OPTIONS
from .hub.checkpoint_files import files_of, read_checkpoint
from .hub.language_share import LANGUAGE_MODEL, check_fit, copy_beginning, is_as_begun
from .hub.loading import blaming_config, open_checkpoint
from .hub.model_card import new_card, with_tags
from .hub.saving import save_checkpoint
from .hub.trained_parts import new_class_memory, new_grounding, new_neck, new_request_fit
from .hub.upload import check_options, upload
from .inference.doors import InferenceMixin
from .parts.added_token import merge_token, part_token
from .parts.aggregation import ShotAttention
from .parts.capture_hooks import list_for_capture, remove_capture_hooks
from .parts.image_encoder import ImageEncoder
from .parts.losses import TrainingOutput, bce_loss, dice_loss
from .parts.mask_decoder import MaskDecoder
from .parts.matching import DenseMatcher
from .parts.request_fit import FitSupports
from .parts.semantic_encoder import Question, SemanticEncoder
from .processing import DSVLFSProcessor


class DSVLFSModel(InferenceMixin, PreTrainedModel):
    """Few-shot segmentation by a semantic and a visual prompt (DSV-LFS, arXiv 2503.04006).

    Args:
        config: of either size.
        load_bases: load the frozen bases; without, every weight is random (shapes and costs only).
        image_options, vlm_options: of transformers' `from_pretrained` of the image encoder and of the LLaVA, such as
            `dtype`, `device_map`, `attn_implementation` or `quantization_config`. What is trained is in float32,
            whatever they say.

    Attributes:
        card: the model card (Markdown) that is saved with it; None until there is one.

    Raises:
        BaseNotAvailableError: a base cannot be had.
    """

    config: DSVLFSConfig
    processor: DSVLFSProcessor
    config_class = DSVLFSConfig
    main_input_name = "features"
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True  # the bases say what they do not support

    def __init__(
        self,
        config: DSVLFSConfig,
        *,
        load_bases: bool = True,
        image_options: Mapping[str, Any] | None = None,
        vlm_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(config)
        self.card: str | None = None
        with local_torch_dtype(torch.float32):
            self._compose(load_bases, image_options or {}, vlm_options or {})
        trained = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        share = {name: parameter for name, parameter in trained.items() if name.startswith(LANGUAGE_MODEL)}
        self._adapters, self._begun = frozenset(share), copy_beginning(share)

    def _compose(self, load_bases: bool, image_options: Mapping[str, Any], vlm_options: Mapping[str, Any]) -> None:
        config = self.config
        hub_options = {name: vlm_options[name] for name in HUB_OPTIONS if name in vlm_options}
        processor: Any = DSVLFSProcessor.from_config(config, **hub_options) if load_bases else None
        self.processor = processor
        tokenizer = self.processor.tokenizer if load_bases else None
        blocks = sorted({int(n.split(".")[1]) for n in config.frozen_layers if n.startswith("image.")})
        stages = sorted({int(n.split(".")[1]) for n in config.frozen_layers if n.startswith("vision.")})
        self.mask_decoder = MaskDecoder(
            dim=config.prompt_dim,
            multimask_outputs=config.decoder_multimask_outputs,
            detail_channels=[layer_channels(config, name) for name in config.detail_layers or []],
        )
        backbone = load_image_base(config, self.mask_decoder, image_options) if load_bases else None
        self.image_encoder = ImageEncoder(
            backbone=backbone or AutoModel.from_config(config.image_encoder_config()),
            blocks=blocks,
            lora_rank=config.image_lora_rank,
            lora_alpha=config.image_lora_alpha,
            lora_layers=config.image_lora_layers,
        )
        llava, semantic_token_id = load_llava(config, tokenizer, vlm_options)
        self.semantic_encoder = SemanticEncoder(
            llava=llava,
            semantic_token_id=semantic_token_id,
            stages=stages,
            lora_rank=config.lora_rank,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            train_token_embeddings=config.train_token_embeddings,
            train_projector=config.train_vlm_projector,
            standardise_state=config.standardise_state,
            photo_state=config.photo_state,
            prompt_dim=config.prompt_dim,
        )
        self.neck = new_neck(config)
        self.grounding = new_grounding(config)
        self.matcher = DenseMatcher(
            layers=len(config.correlation_layers),
            channels=config.match_channels,
            prompt_dim=config.prompt_dim,
            background=config.match_background,
            priors=config.match_priors,
        )
        self.request_fit = new_request_fit(config)
        self.class_memory = new_class_memory(config)
        self.shot_attention: ShotAttention | None = None
        if config.shot_aggregation == "attention":
            self.add_shot_attention()
        if "device_map" in {*image_options, *vlm_options}:
            self._place(self.semantic_encoder.device)

    def _place(self, device: torch.device) -> None:
        """Moves what belongs to no base."""
        for part in self.children():
            if part not in (self.image_encoder, self.semantic_encoder):
                part.to(device)
        self.semantic_encoder.place(device)

    def add_shot_attention(self) -> None:
        """Gives the model a `ShotAttention` that has learned nothing yet, and makes it what several shots go through
        unless another aggregation is asked for."""
        self.config.shot_aggregation = "attention"
        attention = ShotAttention(layers=len(self.config.correlation_layers), prompt_dim=self.config.prompt_dim)
        self.shot_attention = attention.to(self.device, self.dtype)

    @property
    def device(self) -> torch.device:
        """Where the model is, but for bases that were put elsewhere."""
        return self.mask_decoder.no_visual_prompt.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of what is trained."""
        return self.mask_decoder.no_visual_prompt.dtype

    def get_input_embeddings(self) -> torch.nn.Module:
        """The language model's."""
        return self.semantic_encoder.llava.get_input_embeddings()

    def __getstate__(self) -> dict[str, Any]:
        remove_capture_hooks(self)
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        list_for_capture(self)

    def forward(
        self,
        features: dict[str, Tensor],
        support_layers: Sequence[Tensor],
        support_mask: Tensor,
        question: Question | None,
        target: Tensor,
        *,
        use_semantic: Tensor,
        use_visual: Tensor,
        semantic_prompt: Tensor | None = None,
        counted: Tensor | None = None,
        text_factor: float = 1.0,
        fit: FitSupports | None = None,
    ) -> TrainingOutput:
        """A training step's losses, one support a query.

        Args:
            features: of the queries, from `frozen_features`.
            support_layers, support_mask: from `support_features`.
            question: of the samples with `use_semantic`, in their order; None if `semantic_prompt` is given.
            target: (batch, height, width), in [0, 1], at the decoder's resolution; the logits are brought to another's.
            use_semantic, use_visual: bool (batch,), which prompt each sample is given.
            semantic_prompt: of the samples with `use_semantic`, computed before.
            counted: (batch, height, width), in [0, 1]: the share of each pixel that the mask losses count; None
                counts all.
            text_factor: what the text loss is multiplied by in the weighted sum. Its mean is over the samples with
                `use_semantic`; where a step's batch is computed in parts, those with more of them weigh more.
            fit: what the fit to the request reads, of the samples with `use_visual`; None gives it the one support.

        Returns:
            Logits and losses.
        """
        config = self.config
        embedding = self.image_embedding(features)
        semantic = self.mask_decoder.no_semantic_prompt.expand(len(target), -1)
        text_loss = fit_loss = target.new_zeros(())
        if use_semantic.any():
            if semantic_prompt is None:
                semantic_prompt, text_loss = self.semantic_encoder(features["tokens"][use_semantic], question)
            semantic = semantic.masked_scatter(use_semantic[:, None], semantic_prompt.to(semantic.dtype))
        visual = self.mask_decoder.no_visual_prompt[None, :, None, None].expand_as(embedding)
        if use_visual.any():
            size = embedding.shape[-1]
            queries = {name: features[name][use_visual] for name in config.correlation_layers}
            layers, mask = [layer[use_visual] for layer in support_layers], support_mask[use_visual]
            matched = self.visual_prompt(queries, layers, mask, size)
            if self.request_fit is not None:
                layers, mask, shots = fit or ([layer[:, None] for layer in layers], mask[:, None], None)
                score = self.request_fit.score(list(queries.values()), layers, mask, size, shots)
                matched = matched + self.request_fit.prompt(score)
                if config.fit_loss_weight:
                    own = [None if m is None else m[use_visual] for m in (target, counted)]
                    fit_loss = self.request_fit.loss(score, *own)
            visual = visual.masked_scatter(use_visual[:, None, None, None], matched.to(visual.dtype))
        if self.grounding is not None and use_semantic.any():
            queries = {name: features[name][use_semantic] for name in config.grounding_layers}
            grounded = self.ground(queries, semantic[use_semantic], embedding.shape[-1])
            visual = visual.index_add(0, use_semantic.nonzero()[:, 0], grounded.to(visual.dtype))
        logits = self.mask_decoder(embedding, semantic, visual, [features[name] for name in config.detail_layers or []])
        if logits.shape != target.shape:
            logits = F.interpolate(logits[:, None], target.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        bce, dice = bce_loss(logits, target, counted).mean(), dice_loss(logits, target, counted).mean()
        loss = (
            config.text_loss_weight * text_factor * text_loss
            + config.bce_loss_weight * bce
            + config.dice_loss_weight * dice
            + config.fit_loss_weight * fit_loss
        )
        return TrainingOutput(logits, loss, text_loss.detach(), bce.detach(), dice.detach(), fit_loss.detach())

    # Saving and loading ------------------------------------------------------------------------------------------

    def trained_state_dict(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint carries: all but the bases'."""
        image = {f"image_encoder.{n}" for n in self.image_encoder.state_dict() if not n.startswith("adapter.")}
        frozen = image | {LANGUAGE_MODEL + n for n in self.semantic_encoder.vlm.state_dict()}
        return {
            name: tensor for name, tensor in self.state_dict().items() if name in self._adapters or name not in frozen
        }

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "50GB",
        *,
        dtype: torch.dtype | None = None,
        whole: bool = False,
        repo_id: str | None = None,
        **hub_options: Any,
    ) -> None:
        """Writes `config.json`, `model.safetensors` with what was trained only, the language model's share of that as
        an adapter of peft's (`adapter/`), `processor_config.json`, and the model card as `README.md`. Where that share
        learned nothing, `model.safetensors` leaves it out and says so.

        Args:
            save_directory: made where it is missing.
            is_main_process: of several that call it, the one that writes.
            state_dict: what to write, gathered from where the model is divided; of more than `trained_state_dict`, that
                much is taken.
            push_to_hub: also send the files to the hub.
            max_shard_size: of one file, in bytes or as "2GB"; what is larger is written in several.
            dtype: of the tensors in the file; None keeps the model's.
            whole: leave nothing out, not even what was drawn by chance and is not read yet.
            repo_id: on the hub; None takes the folder's name.
            hub_options: of `push_to_hub`.

        Raises:
            InputError: `state_dict` lacks a tensor.
            TypeError: there is no such option.
        """
        check_options(hub_options)
        if not is_main_process:
            return
        folder = Path(save_directory)
        names, given = self.trained_state_dict(), state_dict
        if given is not None and (missing := [name for name in names if name not in given]):
            raise InputError(f"The state to save lacks {len(missing)} tensors that are trained, first {missing[0]}.")
        state = {name: (given or names)[name].detach().to("cpu", dtype) for name in names}
        self.config.architectures = [type(self).__name__]
        files = save_checkpoint(
            folder,
            config=self.config,
            tensors=state,
            leave_out=not whole and is_as_begun({name: (given or names)[name] for name in names}, self._begun),
            vlm=self.semantic_encoder.vlm,
            card=with_tags(self.card or new_card(self.config), self.model_tags or []),
            max_shard_size=max_shard_size,
        )
        if push_to_hub:
            upload(folder, files, repo_id or folder.resolve().name, **hub_options)

    def push_to_hub(self, repo_id: str, *, max_shard_size: int | str = "50GB", **hub_options: Any) -> CommitInfo:
        """Sends what `save_pretrained` writes to a model repository of the Hugging Face hub, made where it is missing.

        Args:
            repo_id: "user/name".
            max_shard_size: as for `save_pretrained`.
            hub_options: `private`, `token`, `revision`, `create_pr`, `commit_message`, `commit_description`, as
                `dsvlfs.hub.upload.upload` takes them; `tags`, which the card gets for good.

        Returns:
            The commit; as text, its address.
        """
        self.add_model_tags(hub_options.pop("tags", None) or [])
        check_options(hub_options)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, max_shard_size=max_shard_size)
            return upload(Path(folder), files_of(Path(folder)), repo_id, **hub_options)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike = "dsvlfs-tiny",
        *,
        config: DSVLFSConfig | str | os.PathLike | None = None,
        subfolder: str = "",
        revision: str | None = None,
        force_download: bool = False,
        image_options: Mapping[str, Any] | None = None,
        vlm_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> "DSVLFSModel":
        """Loads a checkpoint and its bases, for inference.

        What is trained stays in float32, whatever the bases are in, and is put where the language model starts.

        Args:
            name_or_path: "dsvlfs-tiny" (comes with the package), a folder, or a model id of the
                Hugging Face hub.
            config: in place of the checkpoint's own; or the folder or id of one.
            subfolder: of the folder or model, where the checkpoint lies.
            revision, force_download: of the checkpoint on the hub; not of its bases.
            image_options, vlm_options: of transformers' `from_pretrained` of the image encoder alone and of the LLaVA
                alone; they come before what is said for both.
            options: `token`, `cache_dir` and `local_files_only`, of the checkpoint and its bases; `dtype`,
                `device_map` (a device, "auto" or another strategy), `quantization_config`, `attn_implementation`,
                `max_memory`, `offload_folder`, `offload_buffers`, of both bases. The rest changes the config.

        Raises:
            InputError: there is no such checkpoint, it is damaged or of another configuration, or a `device_map` names
                the parts of one base.
            BaseNotAvailableError: one of its bases cannot be had.
            TypeError: an option is neither of these nor a setting of the config.
        """
        of_checkpoint = {"subfolder": subfolder, "revision": revision, "force_download": force_download}
        with uncollected():
            opened = open_checkpoint(name_or_path, config, of_checkpoint, image_options, vlm_options, options)
            with blaming_config(opened, lambda: cls(opened.config, load_bases=False)):
                model = cls(opened.config, image_options=opened.image_options, vlm_options=opened.vlm_options)
            model._adopt(opened.tensors, opened.said, opened.file)
            model.image_encoder.merge()
            merge_token(model.semantic_encoder.vlm)
        model.card = opened.card
        return model.eval()

    def load_trained(self, file: Path) -> None:
        """Loads the tensors of `trained_state_dict` from a safetensors file.

        Raises:
            InputError: the file is missing, damaged, or of another configuration; the model has merged its LoRA into
                the image encoder, as `from_pretrained` does, and the file's is another; or the file leaves the language
                model as it began, and the model's has learned something.
        """
        part_token(self.semantic_encoder.vlm)
        self._adopt(*read_checkpoint(file), file)

    def _adopt(self, state: dict[str, Tensor], said: Mapping[str, Any], file: Path) -> None:
        own, fitted = self.trained_state_dict(), self.config.standardise_state  # names that serve without learning
        check_fit(own, state, file, said=said, begun=self._begun, silently=fitted)
        prefix, adapter = "image_encoder.adapter.", self.image_encoder.adapter
        if adapter and adapter.loses({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}):
            raise InputError(
                f"This model has merged its own LoRA into the image encoder, and that of {file} would change nothing; "
                "load the checkpoint with from_pretrained."
            )
        self.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in state.items()}, strict=False)


AutoModel.register(DSVLFSConfig, DSVLFSModel, exist_ok=True)
